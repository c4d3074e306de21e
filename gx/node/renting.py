"""What the live runs of a node rent now, in figures: each container as its run's ledger has it, and what they hold.

Containers measure nothing that is sent here: how many attempts they have in flight is known from the leases, for how
many they have slots from their worker; what one of them holds of these, nobody says.
"""

from __future__ import annotations

from math import isinf
from typing import Literal

from gx.core.ledger import Container
from gx.core.message import Value
from gx.core.view import RentState, RunState
from gx.run import scheduler


class ContainerNow(Value, frozen=True, kw_only=True, omit_defaults=False):
    """A container that may be alive: `starting` until it was seen. `name` is its landlord's, empty before that.

    `age_s` counts from its reservation; `usd` is what it cost up to when it was last seen, or would have, rehearsed.
    """

    run: str
    container: str
    name: str
    gpu: str
    state: Literal["starting", "up"]
    age_s: float
    usd: float
    is_rehearsal: bool


class RentedNow(Value, frozen=True, kw_only=True, omit_defaults=False):
    """What a run rents: `in_flight` attempts are with containers, which compute `slots` at once (0: none is asked for).

    `usd` is what is settled so far, of `cap_usd`: None where nothing is to be paid, as in a rehearsal. What the run
    rented before on terms of the other sort is not in it.
    """

    run: str
    is_rehearsal: bool
    in_flight: int
    slots: int
    usd: float
    cap_usd: float | None
    containers: tuple[ContainerNow, ...] = ()


def rented_now(run: RunState, now_s: float, *, slots: int) -> RentedNow | None:
    """What a live run rents at a wall-clock instant; None if it may not, or has not yet."""
    rent = run.rent
    if rent is None or not (rent.ledger.alive or rent.ledger.settled_usd):
        return None
    return RentedNow(
        run=run.id,
        is_rehearsal=rent.terms.is_rehearsal,
        in_flight=scheduler.rented(run),
        slots=slots,
        usd=rent.ledger.settled_usd,
        cap_usd=None if isinf(rent.ledger.cap_usd) else rent.ledger.cap_usd,
        containers=tuple(_container(run.id, rent, one, now_s) for one in rent.ledger.alive.values()),
    )


def _container(run: str, rent: RentState, one: Container, now_s: float) -> ContainerNow:
    return ContainerNow(
        run=run,
        container=one.id,
        name=rent.names.get(one.id, ""),
        gpu=one.gpu,
        state="up" if one.id in rent.names else "starting",
        age_s=max(0.0, now_s - one.spawned_s),
        usd=one.usd_per_s * max(0.0, one.settled_s - one.spawned_s),
        is_rehearsal=rent.terms.is_rehearsal,
    )
