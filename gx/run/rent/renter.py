"""One run's rented containers while it is live: when placement is asked, what is committed, and what is told then.

It holds no rules: `gx.run.placement` decides, by what `outlook` expects; `gx.core.ledger` says what the cap has room
for, `renting` makes events of both, and `cap` what follows when the cap is reached. What must be known before it is
done is committed first: `move` and `settle` give events, and `act` tells the worker of those that were committed.
Invariant: no container may be alive that the ledger has no reservation for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from math import inf

from gx.core import event as e
from gx.core.errors import GxError
from gx.core.ledger import LEASE_S
from gx.core.message import Turn
from gx.core.ports import (
    AttemptEnded,
    AttemptGone,
    CallMade,
    ContainerSeen,
    Landlord,
    RentedWorker,
    RentRefused,
    WorkerEvent,
)
from gx.core.task import CloudLease, Offer
from gx.core.view import RentState, RunState
from gx.run import outcomes, placement, scheduler
from gx.run.placement import Verdict
from gx.run.rent import cap, renting, tail
from gx.run.rent.orphans import Orphans
from gx.run.rent.outlook import Here, Outlook
from gx.run.rent.refusals import Refusals
from gx.run.station import Station

DECIDE_EVERY_S = 2.0
"""How often placement is asked: a container takes longer to start."""
RENEW_EVERY_S = LEASE_S / 3
CLEARING_S = 5.0
"""How long the last word of a run waits for calls that nobody wants: a landlord that answers has cancelled them."""
_LOOK_EVERY_S = 0.1
"""How often it is looked at whether that is so."""
NAME = "cloud"


class Renter:
    """The renting of one run that has terms for it; `may_travel` says which of its tasks may leave the machine."""

    def __init__(
        self,
        run: RunState,
        rent: RentState,
        landlord: Landlord,
        *,
        may_travel: Callable[[str], bool],
        on_news: Callable[[], None],
        now: float,
    ) -> None:
        self._run, self._rent, self._landlord = run, rent, landlord
        self._may_travel, self._on_news = may_travel, on_news
        self.station = Station(NAME, self._open, on_news=on_news, on_failure=self._failed)
        self.tail = tail.Tail()
        self._outlook = Outlook(run, rent, now)
        self._bodies: list[e.Body] = [] if rent.capped is not None else cap.answered_by_terms(run, "new terms")
        self._seen: list[ContainerSeen] = []
        self._orphans = Orphans(run)
        self._rents: tuple[str, bool] | None = None
        """The GPU of the worker that is up, and whether that is a rehearsal: it keeps both as long as it lives."""
        self._refusals = Refusals("" if rent.refused is None else rent.refused.reason)
        self._greeted: RentedWorker | None = None
        self._moved_s = self._renewed_s = self._looked_s = -inf
        self._vouched_s = 0.0
        self._began_s = now
        self._idle_since: float | None = None
        self._called_s = now if rent.ledger.alive else -inf
        """When a call was under way last, or may have been: of what an earlier process did, nobody knows."""
        self._n_made = 0
        self._ending_s: float | None = None
        """Since when the run has nothing more to say."""
        if self._orphans:
            self.station.want()

    def __repr__(self) -> str:
        return f"<Renter of {self._run.id}: {len(self._rent.ledger.alive)} reserved, {self.station}>"

    @property
    def worker(self) -> RentedWorker | None:
        """The worker, while it is up."""
        return self.station.worker  # type: ignore[return-value]

    @property
    def leases(self) -> int:
        """How many attempts containers may hold, by the verdict in force."""
        return self.station.leases or 0

    @property
    def is_resting(self) -> bool:
        """Whether nothing is rented for now, nor lent to what is there: the verdict says why."""
        return bool(self._refusals.reason)

    def next_s(self) -> float:
        """The wall-clock instant at which there is something to look at, whatever happens."""
        return self._moved_s + DECIDE_EVERY_S if self._ending_s is None else self._looked_s + _LOOK_EVERY_S

    def is_outlasted(self, here: Here, now: float) -> bool:
        """Whether a task that this machine began now would end after all that containers do."""
        is_lending = self.station.lease() is not None and not self.is_resting
        return is_lending and self._outlook.outlasts(here, now)

    # ── before a commit ──────────────────────────────────────────────────────────────────────────────────────────

    def move(self, now: float, here: Here | None, *, may_begin: bool) -> list[e.Body]:
        """What is to be committed by what was seen and by time alone: a verdict, reservations, renewals, ends.

        `here` is this machine's bench, None while there is none. Unless something `may_begin`, nothing is decided, and
        only what is under way is looked after and paid for.
        """
        made, self._bodies = self._bodies, []
        heard, self._seen = self._seen, []
        made.extend(renting.seen(self._run, self._rent, heard))
        if self._moved_s <= now < self._moved_s + DECIDE_EVERY_S:
            return made
        self._moved_s = now
        self._refusals.look(now)
        is_lent = scheduler.rented(self._run) > 0
        is_idle = not is_lent and self._is_clear
        self._idle_since = (self._idle_since or now) if is_idle else None
        self._look_at_calls(now)
        kept = renting.gone(
            self._run,
            self._rent,
            idle_since=self._idle_since,
            called_s=self._called_s,
            began_s=self._began_s,
            now=now,
        )
        is_wanted = self._rent.verdict is not None and self._rent.verdict.containers > 0
        # A run that is held up and lends nothing pays for no more: else a call that nobody knows would keep it paying.
        if (is_lent or (is_wanted and may_begin)) and not 0 <= now - self._renewed_s < RENEW_EVERY_S:
            kept.extend(renting.renew(self._run, self._rent, now))
        is_over = not is_wanted and now >= self._began_s + LEASE_S  # till then an earlier process's may begin
        if self.worker is not None and (self._vouched_s <= now or is_over):
            self.worker.give_back()  # nobody pays for what it would begin, or nothing more is to begin
        may_decide = may_begin and not kept  # what is kept or ends changes what there is room for
        if may_decide and here is not None and self._outlook.is_known(here, now):
            made.extend(self._decide(now, here))
            self._have_back(now, here)
        return [*made, *kept]

    def _decide(self, now: float, here: Here) -> list[e.Body]:
        """A verdict, if it is another one than that in force, and the reservations that it needs; or the cap."""
        rent, terms = self._rent, self._rent.terms
        last = renting.verdict_of(rent.verdict)
        start_left_s = self._outlook.start_left_s(now)
        found = renting.figures(
            self._run,
            rent,
            edge=here.pace,
            start_left_s=start_left_s,
            may_travel=self._may_travel,
            home=self.tail.home,
            now=now,
        )
        if self._refusals.reason:
            return self._changed(Verdict(reason=f"edge only: {self._refusals.reason}"), last, found)
        try:
            offers = [] if terms.mode == "off" else self._known(here)
        except GxError as error:
            self._failed(error)
            return []
        if self._rents is not None:
            slots = 0 if self.worker is None else self.worker.capacity().slots
            self._outlook.look(self._rents[0], slots, now)
        is_forced = terms.mode == "force" or (terms.mode == "auto" and self._run.burst_asked is not None)
        verdict = renting.forced(offers, rent, found) if is_forced else placement.decide(found, offers, last)
        self._outlook.verdict = verdict
        made = self._changed(verdict, last, found)
        if (more := verdict.containers - len(rent.ledger.alive)) > 0:
            made.extend(renting.reserve(self._run, rent, self._outlook.offers[verdict.gpu], more, now))
        elif not verdict.containers:
            made.extend(cap.reached(self._run, rent, offers, found, is_forced=is_forced, now=now))
        return made

    def _changed(self, verdict: Verdict, last: Verdict | None, found: placement.Figures) -> list[e.Body]:
        if last is not None and (verdict.gpu, verdict.containers) == (last.gpu, last.containers):
            return []
        return [renting.decided(self._run, verdict, found)]

    def _known(self, here: Here) -> Sequence[Offer]:
        """What may be rented on these terms, beside what is rented already, as fast as it was measured to be."""
        terms = self._rent.terms
        found = self._landlord.offers(self._run.id, here.tokens_per_s)
        if self._rents is not None:
            found = self._outlook.corrected(found, self._rents[0])
        allowed = [one for one in found if one.gpu in terms.gpu or not terms.gpu]
        if self._rents is not None:
            allowed = [one for one in allowed if (one.gpu, terms.is_rehearsal) == self._rents]
        self._outlook.offers = {one.gpu: one for one in allowed}
        return allowed

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
                made = outcomes.gone(run, event, worker=NAME)
                if made and event.is_home:
                    self.tail.home.add(event.task)
                return made
            case AttemptEnded() if (usage := event.outcome.usage).tokens_in + usage.tokens_out > 0:
                self._refusals.answered()
                self._outlook.answered(usage.tokens_in + usage.tokens_out)
            case ContainerSeen():
                self._outlook.seen(event)
                self._seen.append(event)
            case RentRefused():
                return self._refused(event.reason, event.code, stops=event.stops)
        return []

    def _refused(self, reason: str, code: str = "", *, stops: bool = False) -> list[e.Body]:
        """Each reason once in a row. As long as calls are under way it is one of pace, unless it `stops` them; else
        nothing is rented now.
        """
        if stops or not self._has_calls:
            self._refusals.rest(reason, code)
        is_new = self._refusals.is_new(reason)
        return [e.RentRefused(run=self._run.id, reason=reason, code=code)] if is_new else []

    def lose(self, names: Iterable[tuple[str, int]], reason: str) -> list[e.Body]:
        """Attempts that no container has, nor ever will: they run anew."""
        made: list[e.Body] = []
        for name in names:
            self._orphans.drop(name)
            event = AttemptGone(task=name[0], attempt=name[1], reason=reason, is_suspect=False)
            made.extend(outcomes.gone(self._run, event, worker=NAME))
        return made

    def may_end(self, now: float) -> bool:
        """Whether the run, which has nothing more to do, may say its last word: no call of it is left that costs, or
        that was waited for long enough.
        """
        self._ending_s, self._looked_s = now if self._ending_s is None else self._ending_s, now
        return self._is_all_clear or not 0 <= now - self._ending_s < CLEARING_S

    def let_go(self, now: float) -> list[e.Body]:
        """What is to be committed with the run's last word here: nothing of it is under way any more."""
        self._look_at_calls(now)
        return renting.let_go(
            self._run,
            self._rent,
            is_clear=self._is_all_clear,
            idle_since=self._idle_since,
            called_s=self._called_s,
            began_s=self._began_s,
            now=now,
        )

    @property
    def _is_all_clear(self) -> bool:
        """Whether no call is left that nobody wants, those of an earlier process counted in."""
        return self._is_clear and not self._orphans

    @property
    def _is_clear(self) -> bool:
        """Whether no call is left that nobody wants: not with the worker, nor with one that went away."""
        worker = self.worker or self._greeted
        return worker is None or worker.is_clear

    @property
    def _has_calls(self) -> bool:
        """Whether calls are under way that somebody wants."""
        leases = (task.lease for task in self._run.leased.values())
        return any(isinstance(lease, CloudLease) and lease.call for lease in leases)

    def _look_at_calls(self, now: float) -> None:
        """Note whether a call is under way, or one was made since the last look, or one may run that nobody wants."""
        worker = self.worker or self._greeted
        before, self._n_made = self._n_made, 0 if worker is None else worker.calls_made
        if self._n_made != before or self._has_calls or (self._n_made and not self._is_clear):
            self._called_s = now

    def _have_back(self, now: float, here: Here) -> None:
        """Where this machine has nothing to do: have back what it ends sooner."""
        here_s = self._outlook.here_s(here)
        for taken in self.tail.taken(self._run, self._outlook.there, free=here.idle, edge_task_s=here_s, now=now):
            self.station.recall(*taken)

    # ── after a commit ───────────────────────────────────────────────────────────────────────────────────────────

    def act(self, body: e.Body) -> None:
        """Tell the worker what was committed."""
        match body:
            case e.TaskLeased() if isinstance(body.lease, CloudLease):
                self._idle_since = self._ending_s = None
            case e.TaskSucceeded() | e.TaskFailed() | e.TaskCancelled():
                self.tail.ended(body.task)
            case e.ContainersRenewed():
                self._renewed_s = body.at
                self._vouch()
            case e.PlacementDecided() | e.ContainerReserved() | e.ContainerEnded():
                self._vouch()
                self._scale()
            case e.ContainerSeen():
                self._refusals.seen()
            case e.BurstAllowed():
                self._refusals.forget()
                self.tail.home.clear()
                self._moved_s = -inf
                self._bodies.extend(cap.answered_by_terms(self._run, body.by))
                self._scale()

    def _vouch(self) -> None:
        """Pay for as long as the ledger has room for each of them: the driver's lease is one for all."""
        alive = self._rent.ledger.alive.values()
        until = min((max(one.spawned_s, one.renewed_s) + one.lease_s for one in alive), default=0.0)
        if self.worker is not None and until != self._vouched_s:
            self._vouched_s = until
            self.worker.vouch(until)

    def _scale(self) -> None:
        """As many containers as were decided on, and no more than are reserved."""
        verdict = self._rent.verdict
        number = min(0 if verdict is None else verdict.containers, len(self._rent.ledger.alive))
        if number and self.worker is None and not self.is_resting:
            self.station.want()
        if self.worker is not None:
            self.worker.scale(number)
            if not number:
                self.worker.give_back()

    def give_back(self, most: int, here: Here | None, now: float) -> None:
        """This machine is idle: have so many attempts back that nothing was begun of, unless it would outlast the
        containers with them: those it would not begin, and they were lent again, and so on.
        """
        if self.worker is not None and (here is None or not self.is_outlasted(here, now)):
            self.worker.give_back(most)

    def cancel(self, task: str, attempt: int) -> None:
        """End an attempt, also one that an earlier process began and that nobody follows yet."""
        self._orphans.cancel((task, attempt))
        self.station.cancel(task, attempt)

    def came_up(self, turns: Mapping[str, Turn]) -> list[tuple[str, int]]:
        """Once its worker is up: take over what an earlier process had begun. Which attempts need their `turns`, and
        have none that may leave.
        """
        worker = self.worker
        if worker is None:
            return []
        if worker is not self._greeted:
            self._greeted, self._vouched_s = worker, 0.0
            self._vouch()
            self._scale()
        return self._orphans.take_over(self.station, turns, self._may_travel)

    def _open(self) -> AbstractAsyncContextManager[RentedWorker]:
        gpus = [one.gpu for one in self._rent.ledger.alive.values()]
        gpus += self._orphans.gpus
        gpus += [] if self._rent.verdict is None else [self._rent.verdict.gpu]
        self._rents = (gpus[0] if gpus else "", self._rent.terms.is_rehearsal)
        return self._landlord.rent(self._run.id, self._rents[0])

    def _failed(self, error: GxError) -> None:
        """Nothing can be rented: the run goes on here, with what containers had."""
        self._rents = None
        self._orphans.clear()
        self._bodies.extend(self._refused(error.message, error.code))
        self._refusals.rest(error.message, error.code)
        self._bodies.extend(outcomes.lose_rented(self._run, error.message, worker=NAME))
        self._on_news()
