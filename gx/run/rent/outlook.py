"""How it goes with one run in its containers and on this machine: paces, starts, and when a task ends where.

It puts together the offers, what was seen of the containers, and this machine's bench; it decides nothing. Nothing of
it outlives the process: a new one looks anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from gx.core.ports import ContainerSeen
from gx.core.task import Offer, Rate
from gx.core.view import RentState, RunState
from gx.run import scheduler
from gx.run.fairness import mean_tokens
from gx.run.placement import Verdict
from gx.run.rent import tail
from gx.run.rent.pace import RentedPace

SETTLING_S = 20.0
"""How long the pace of a bench that has ended its first tasks may be far from the one that it comes to."""


class Here(NamedTuple):
    """This machine's bench: its pace, its slots, and how many of these have nothing to do."""

    pace: Rate
    slots: int
    idle: int = 0

    @property
    def tokens_per_s(self) -> float:
        return self.pace.tokens_in_per_s + self.pace.tokens_out_per_s


class Outlook:
    """That of one run, as of what it was told last.

    `offers` are those that may be taken, by GPU; `verdict` is placement's last word, changed or not; `there` is how it
    goes in the containers.
    """

    def __init__(self, run: RunState, rent: RentState, now: float) -> None:
        self._run, self._rent = run, rent
        self._pace = RentedPace(now)
        self._settling_since: float | None = None
        self.offers: dict[str, Offer] = {}
        self.verdict: Verdict | None = None
        self.there = tail.There(task_s=inf, at_once=1)

    def __repr__(self) -> str:
        return f"<Outlook of {self._run.id}: {self.there}>"

    # ── in the containers ────────────────────────────────────────────────────────────────────────────────────────

    def answered(self, tokens: int) -> None:
        """An attempt there ended, with so many tokens."""
        self._pace.answered(tokens)

    def seen(self, event: ContainerSeen) -> None:
        """A container is up."""
        if (took_s := self._start_s(event)) is not None:
            self._pace.started(took_s)
        self._pace.seen(event)
        since_s = min(self.there.up_since_s, event.seen_at) if self._is_up else event.seen_at
        self.there = self.there._replace(start_s=0.0, up_since_s=since_s, heard_s=event.seen_at)

    def _start_s(self, event: ContainerSeen) -> float | None:
        """How long a container took that is heard of for the first time: since the last reservation for one that was
        made before it began, and in which nobody was seen yet. `None` where that can't be told, as beside others: one
        more begins when there is work for it, and that may be long after it was reserved.
        """
        rent = self._rent
        if self._is_up or event.container in rent.names.values():
            return None
        free = [one.spawned_s for seat, one in rent.ledger.alive.items() if seat not in rent.names]
        since_s = max((at for at in free if at <= event.began_at), default=None)
        return None if since_s is None else max(0.0, event.seen_at - since_s)

    def corrected(self, offers: Iterable[Offer], gpu: str) -> list[Offer]:
        """The offers, as fast as was measured of `gpu`. Of what containers have, about half is computed already."""
        return self._pace.corrected(offers, gpu, scheduler.rented(self._run) * mean_tokens(self._run) / 2)

    def start_left_s(self, now: float) -> float:
        """How long the containers that start are taken to need yet."""
        usual_s = max((offer.cold_start_s for offer in self.offers.values()), default=0.0)
        alive = self._rent.ledger.alive.items()
        waits = [now - one.spawned_s for seat, one in alive if seat not in self._rent.names]
        return max(0.0, usual_s - max(waits, default=0.0))

    def look(self, gpu: str, slots: int, now: float) -> None:
        """Look how it goes there, with so many slots of that GPU, by its offer and by what was seen."""
        offer = self.offers.get(gpu)
        number = 0 if self._rent.verdict is None else self._rent.verdict.containers
        if offer is None or not slots or not number:
            return
        task_s = slots / number * mean_tokens(self._run) / max(offer.tokens_per_s, 1e-9)
        start_s = 0.0 if self._is_up else max(self.start_left_s(now), tail.LEAST_START_S)
        self.there = self.there._replace(task_s=task_s, at_once=slots, start_s=start_s)

    @property
    def _is_up(self) -> bool:
        """Whether a container that is alive was seen."""
        return bool(self._rent.names)

    # ── on this machine ──────────────────────────────────────────────────────────────────────────────────────────

    def is_known(self, here: Here, now: float) -> bool:
        """Whether this machine's pace can be relied on. The first tasks to end were the shortest or waited for a model,
        so until each slot has ended one, or for a while, what was decided stays.
        """
        if self._rent.verdict is None or not 0 < here.pace.tasks < here.slots:
            return True
        self._settling_since = self._settling_since or now
        return now - self._settling_since >= SETTLING_S

    def here_s(self, here: Here) -> float:
        """What a task takes on this machine with all slots at work, by Little's law; without end if nobody knows."""
        pace = here.tokens_per_s
        return here.slots * mean_tokens(self._run) / pace if pace > 0 else inf

    def outlasts(self, here: Here, now: float) -> bool:
        """Whether a task that this machine began now would end after all that containers do."""
        here_s = self.here_s(here)
        return here_s < inf and tail.outlasts(self.verdict, self.there, edge_task_s=here_s, now=now)
