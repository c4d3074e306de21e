"""One run's rented containers while it is live: when placement is asked, what is committed, and what is told then.

It holds no rules: `gx.run.placement` decides, `gx.core.ledger` says what the cap has room for, and `gx.run.renting`
makes events of both. What must be known before it is done is committed first: `move` and `settle` give events, and
`act` tells the worker of those that were committed.

Invariant: no container may be alive that the ledger has no reservation for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from math import inf

from gx.core import event as e
from gx.core.errors import GxError
from gx.core.ledger import LEASE_S
from gx.core.message import Turn
from gx.core.ports import AttemptGone, CallMade, ContainerSeen, Landlord, RentedWorker, RentRefused, WorkerEvent
from gx.core.task import CloudLease, Offer, Rate
from gx.core.view import RentState, RunState
from gx.run import outcomes, placement, renting, scheduler
from gx.run.station import Station

DECIDE_EVERY_S = 2.0
"""How often placement is asked: a container takes longer to start."""
RENEW_EVERY_S = LEASE_S / 3
NAME = "cloud"


class Renter:
    """The renting of one run that has terms for it; `may_travel` says which of its tasks may leave the machine."""

    def __init__(
        self,
        run: RunState,
        landlord: Landlord,
        *,
        may_travel: Callable[[str], bool],
        on_news: Callable[[], None],
    ) -> None:
        self._run, self._landlord, self._may_travel, self._on_news = run, landlord, may_travel, on_news
        self.station = Station(NAME, self._open, on_news=on_news, on_failure=self._failed)
        self._bodies: list[e.Body] = []
        self._orphans = {t.id: t.lease for t in run.leased.values() if isinstance(t.lease, CloudLease)}
        self._offers: dict[str, Offer] = {}
        self._is_broken = False
        self._greeted: RentedWorker | None = None
        self._moved_s = self._renewed_s = -inf
        self._idle_since: float | None = None
        if self._orphans:
            self.station.want()

    def __repr__(self) -> str:
        return f"<Renter of {self._run.id}: {len(self._rent.ledger.alive)} reserved, {self.station}>"

    @property
    def _rent(self) -> RentState:
        assert self._run.rent is not None
        return self._run.rent

    @property
    def worker(self) -> RentedWorker | None:
        """The worker, while it is up."""
        return self.station.worker  # type: ignore[return-value]

    @property
    def leases(self) -> int:
        """How many attempts containers may hold, by the verdict in force."""
        return self.station.leases or 0

    def next_s(self) -> float:
        """The wall-clock instant at which there is something to look at, whatever happens."""
        return self._moved_s + DECIDE_EVERY_S

    # ── before a commit ──────────────────────────────────────────────────────────────────────────────────────────

    def move(self, now: float, edge: Rate | None) -> list[e.Body]:
        """What is to be committed by time alone: a verdict, reservations, renewals, ends.

        `edge` is the pace of this machine's bench, None while there is none.
        """
        made, self._bodies = self._bodies, []
        if now < self.next_s():
            return made
        self._moved_s = now
        is_idle = not scheduler.rented(self._run)
        self._idle_since = (self._idle_since or now) if is_idle else None
        made.extend(renting.gone(self._run, self._rent, idle_since=self._idle_since, now=now))
        if now - self._renewed_s >= RENEW_EVERY_S and self._rent.ledger.alive:
            made.extend(renting.renew(self._run, self._rent, now))
        if edge is not None and not self._is_broken and not made:
            made.extend(self._decide(now, edge))
        return made

    def _decide(self, now: float, edge: Rate) -> list[e.Body]:
        """A verdict, if it is another one than that in force, and the reservations that it needs."""
        rent, terms = self._rent, self._rent.terms
        last = renting.verdict_of(rent.verdict)
        offers = [] if terms.mode == "off" else list(self._known(edge).values())
        usual_s = max((offer.cold_start_s for offer in offers), default=0.0)
        waits = [now - one.spawned_s for seat, one in rent.ledger.alive.items() if seat not in rent.names]
        start_left_s = max(0.0, usual_s - max(waits, default=0.0))
        found = renting.figures(
            self._run, rent, edge=edge, start_left_s=start_left_s, may_travel=self._may_travel, now=now
        )
        if terms.mode == "force":
            verdict = renting.forced(offers, rent, found)
        else:
            verdict = placement.decide(found, offers, last)
        made = list[e.Body]()
        if last is None or (verdict.gpu, verdict.containers) != (last.gpu, last.containers):
            made.append(renting.decided(self._run, verdict, found))
        if (more := verdict.containers - len(rent.ledger.alive)) > 0:
            made.extend(renting.reserve(self._run, rent, self._offers[verdict.gpu], more, now))
        return made

    def _known(self, edge: Rate) -> dict[str, Offer]:
        found = self._landlord.offers(self._run.id, edge.tokens_in_per_s + edge.tokens_out_per_s)
        self._offers = {one.gpu: one for one in found if one.gpu in self._rent.terms.gpu or not self._rent.terms.gpu}
        return self._offers

    def settle(self, event: WorkerEvent) -> list[e.Body]:
        """What follows from what its worker said, beside what follows from any worker's attempts."""
        run = self._run
        match event:
            case CallMade():
                task = run.leased.get(event.task)
                if task is None or task.attempt != event.attempt or not isinstance(task.lease, CloudLease):
                    return []
                return [e.CallMade(run=run.id, task=task.id, attempt=task.attempt, call=event.call, gpu=task.lease.gpu)]
            case AttemptGone():
                return outcomes.gone(run, event, worker=NAME)
            case ContainerSeen():
                return renting.seen(run, self._rent, event)
            case RentRefused():
                return self._refused(event.reason)
        return []

    def _refused(self, reason: str, code: str = "") -> list[e.Body]:
        last = self._rent.refused
        return (
            []
            if last is not None and last.reason == reason
            else [e.RentRefused(run=self._run.id, reason=reason, code=code)]
        )

    # ── after a commit ───────────────────────────────────────────────────────────────────────────────────────────

    def act(self, body: e.Body) -> None:
        """Tell the worker what was committed."""
        if isinstance(body, e.ContainersRenewed):
            self._renewed_s = body.at
            if self.worker is not None:
                self.worker.vouch(body.at + LEASE_S)
        elif isinstance(body, e.PlacementDecided | e.ContainerReserved | e.ContainerEnded):
            self._scale()

    def _scale(self) -> None:
        """As many containers as were decided on, and no more than are reserved."""
        verdict = self._rent.verdict
        number = min(0 if verdict is None else verdict.containers, len(self._rent.ledger.alive))
        if number and self.worker is None and not self._is_broken:
            self.station.want()
        if self.worker is not None:
            self.worker.scale(number)

    def came_up(self, turns: Mapping[str, Turn]) -> list[str]:
        """Once its worker is up: take over what an earlier process had begun. Which tasks need their `turns` first."""
        worker = self.worker
        if worker is None:
            return []
        if worker is not self._greeted:
            self._greeted = worker
            alive = self._rent.ledger.alive.values()
            worker.vouch(min((max(one.spawned_s, one.renewed_s) + one.lease_s for one in alive), default=0.0))
            self._scale()
        missing: list[str] = []
        for task_id, lease in list(self._orphans.items()):
            task = self._run.leased.get(task_id)
            if task is None or task.lease != lease:
                del self._orphans[task_id]
            elif lease.call:
                self.station.hold(task_id, task.attempt)
                worker.reattach(task_id, task.attempt, lease.call)
                del self._orphans[task_id]
            elif task_id in turns:
                self.station.submit(turns[task_id].for_attempt(task.attempt, turns[task_id].sampling.seed))
                del self._orphans[task_id]
            else:
                missing.append(task_id)
        return missing

    def _open(self) -> AbstractAsyncContextManager[RentedWorker]:
        gpus = [one.gpu for one in self._rent.ledger.alive.values()]
        gpus += [lease.gpu for lease in self._orphans.values()]
        return self._landlord.rent(self._run.id, gpus[0] if gpus else "")

    def _failed(self, error: GxError) -> None:
        """Nothing can be rented: the run goes on here, with what containers had."""
        self._is_broken = True
        self._orphans.clear()
        self._bodies.extend(self._refused(error.message, error.code))
        self._bodies.extend(outcomes.lose_rented(self._run, error.message, worker=NAME))
        self._on_news()
