"""What rented containers may cost a run: the exposure that its cap is held against.

Pure: values in, values out; instants are wall-clock seconds that are given to it. It knows no cloud and no log.

*Exposure* is the most that a run may have cost in the end if nobody did anything more: what is settled, and for each
container that may be alive its rate × (what isn't settled of its age, as of its last renewal + its cold start + one
lease of its driver + the longest time-out that it may still run + the time that it idles before it ends). A container
checks its driver's lease before each input and takes none without it, so a driver that dies adds nothing.

Invariant: whoever spawns only where `may_spawn`, and renews only what `renewable` names, never spends more than the
cap, whatever fails, as long as containers keep their time-outs.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gx.core.message import Value

LEASE_S = 60.0
"""How long a container takes inputs after its driver was last heard of."""


class Container(Value, frozen=True, kw_only=True):
    """A container that may be alive, since its spawn was intended. `renewed_s` is when its driver last spoke for it.

    What it cost is settled up to `settled_s`. `timeout_s` is the longest that one input may run, and `cold_start_s` the
    longest that a start may take: what its app was deployed with, not what is usual.
    """

    id: str
    gpu: str
    usd_per_s: float
    spawned_s: float
    settled_s: float
    renewed_s: float
    timeout_s: float
    cold_start_s: float
    lease_s: float = LEASE_S
    window_s: float

    @property
    def latest_end_s(self) -> float:
        """The instant by which it has ended, if nobody speaks for it again."""
        return max(self.spawned_s, self.renewed_s) + self.cold_start_s + self.lease_s + self.timeout_s + self.window_s

    @property
    def exposure_usd(self) -> float:
        """What it may cost yet beyond what is settled."""
        return self.usd_per_s * (self.latest_end_s - self.settled_s)


class Ledger(Value, frozen=True, kw_only=True):
    """A run's money: the cap, which belongs to the run and survives restarts, what is settled, and who may be alive."""

    cap_usd: float
    settled_usd: float = 0.0
    alive: dict[str, Container] = {}

    @property
    def exposure_usd(self) -> float:
        """The most that the run costs if nobody does anything more."""
        return self.settled_usd + sum(container.exposure_usd for container in self.alive.values())

    @property
    def free_usd(self) -> float:
        """What may be reserved yet."""
        return self.cap_usd - self.exposure_usd


def may_spawn(ledger: Ledger, container: Container) -> bool:
    """Whether the exposure with one more container is within the cap."""
    return ledger.exposure_usd + container.exposure_usd <= ledger.cap_usd


def spawned(ledger: Ledger, container: Container) -> Ledger:
    """With one more; to be recorded before the spawn is asked for, since nobody knows what becomes of that."""
    return msgspec.structs.replace(ledger, alive=ledger.alive | {container.id: container})


def renewable(ledger: Ledger, now_s: float) -> list[str]:
    """The containers whose driver may speak for them now, the oldest first: as many as the cap has room for.

    The others take no input once their lease is over; what they don't use of their time-outs makes room again.
    """
    free, chosen = ledger.free_usd, list[str]()
    for container in sorted(ledger.alive.values(), key=lambda one: (one.spawned_s, one.id)):
        more = container.usd_per_s * max(0.0, now_s - max(container.renewed_s, container.spawned_s))
        if more <= free:
            chosen.append(container.id)
            free -= more
    return chosen


def renewed(ledger: Ledger, ids: Iterable[str], now_s: float) -> Ledger:
    """With those spoken for; to be recorded before they are told. If the clock went back, what was said holds."""
    alive = {i: ledger.alive[i] for i in ids}
    later = {i: msgspec.structs.replace(one, renewed_s=max(now_s, one.renewed_s)) for i, one in alive.items()}
    return msgspec.structs.replace(ledger, alive=ledger.alive | later)


def settled(ledger: Ledger, id: str, until_s: float) -> Ledger:
    """A container was seen alive at an instant: what it cost until then is known. An earlier one changes nothing."""
    container = ledger.alive[id]
    usd = container.usd_per_s * max(0.0, until_s - container.settled_s)
    later = msgspec.structs.replace(container, settled_s=max(until_s, container.settled_s))
    return msgspec.structs.replace(ledger, settled_usd=ledger.settled_usd + usd, alive=ledger.alive | {id: later})


def ended(ledger: Ledger, id: str, at_s: float) -> Ledger:
    """A container ended at an instant, with loading and idle tail: it can't cost more. One that isn't alive is passed.

    An end that lies before what was settled takes the difference back.
    """
    if (container := ledger.alive.get(id)) is None:
        return ledger
    usd = container.usd_per_s * (max(at_s, container.spawned_s) - container.settled_s)
    rest = {i: one for i, one in ledger.alive.items() if i != id}
    return msgspec.structs.replace(ledger, settled_usd=ledger.settled_usd + usd, alive=rest)


def given_up(ledger: Ledger, now_s: float) -> Ledger:
    """Containers that must have ended by now, and nobody said when, are settled at the most that they can cost."""
    for container in list(ledger.alive.values()):
        if now_s >= container.latest_end_s:
            ledger = ended(ledger, container.id, container.latest_end_s)
    return ledger
