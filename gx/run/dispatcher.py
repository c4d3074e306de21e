"""The loop: decide, commit, fold, hand out leases, publish.

It holds no rules. What follows from what is in `gx.flow.graph`, `gx.run.scheduler` and `gx.run.outcomes`; this file
gathers their events, commits them in one batch, folds them, and only then acts. A turn reaches a worker only after its
lease is durable; a result reaches the client only after its success is.

What is wanted of a run waits in `pending` until the loop takes it. What takes its time goes on `beside` the loop, and
puts what it found there too. Whose a leased attempt is, and what is heard of it, is known to `workers`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from gx.core import event as e
from gx.core.errors import BenchError, GxError
from gx.core.ports import Clock, Landlord, Worker
from gx.core.projection import fold
from gx.core.protocol import Measured, Signal
from gx.core.view import View
from gx.flow import graph
from gx.run import afterwards, outcomes, scheduler
from gx.run.active import ActiveRun
from gx.run.beside import Beside
from gx.run.contents import Contents
from gx.run.fairness import Fairness
from gx.run.memory.learning import learned
from gx.run.meter import Meter
from gx.run.pending import Pending
from gx.run.rent import lending
from gx.run.settling import Settling
from gx.run.shares import share
from gx.run.station import MakeWorker, Station
from gx.run.workers import Workers

VIEW_GC = (100_000, 50, 100)
"""How seldom the collector looks for cycles: a view of a million small values holds none, and a look walks them all."""
_FIRST = (e.StepRouted, e.BurstAllowed, e.AttemptLost, e.TaskCancelled)
"""What is committed before anything else is decided. What is prepared now would go the old way, or be rented under the
old cap; and an answer that is there by now would count for an attempt that somebody took back or gave up.
"""
_LONGEST_SLEEP_S = 3600.0
_SHORTEST_SLEEP_S = 0.001


class Log(Protocol):
    """What the dispatcher needs of the event log."""

    async def append(self, bodies: list[e.Body], blobs: list[e.Blob], *, source: str) -> list[e.Event]: ...


class Dispatcher:
    """Drives the live runs of one node. Use as `async with`; every method is called from its event loop."""

    def __init__(
        self,
        *,
        log: Log,
        view: View,
        contents: Contents,
        make_worker: MakeWorker,
        clock: Clock,
        epoch: int,
        landlord: Landlord | None = None,
    ) -> None:
        self.view = view
        self._log, self._contents, self._clock, self._landlord = log, contents, clock, landlord
        self._epoch, self._source = epoch, f"node:{epoch}"
        self._active: dict[str, ActiveRun] = {}
        self._pending = Pending()
        self._edge = Station("edge", make_worker, on_news=self._pending.ring, on_failure=self._fail_all)
        self._meter = Meter(epoch)
        settling = Settling(self._active, contents, self._meter, epoch, lambda signal: self.on_signal(signal))
        self._workers = Workers(self._edge, settling)
        self._fairness = Fairness()
        self._last = self._moment()
        self.on_signal: Callable[[Signal | Measured], None] = lambda signal: None

    # ── what clients ask for ─────────────────────────────────────────────────────────────────────────────────────

    async def commit(self, bodies: list[e.Body], blobs: list[e.Blob] | None = None) -> None:
        """Append and fold at once, outside the loop: the first events of a run."""
        for event in await self._log.append(bodies, blobs or [], source=self._source):
            fold(self.view, event)

    async def activate(self, run: ActiveRun) -> None:
        """Take up a run that is in the view: void what an earlier node left leased, unfold what is missing."""
        await self.commit(outcomes.recover(run.state, epoch=self._epoch))
        self._active[run.state.id] = run
        self._beside.begin(run, self._clock.now())
        self._pending.ring()

    async def worker(self) -> Worker:
        """The worker here, brought up for what is no turn. :raises BenchError: if it can't be."""
        if (worker := await self._edge.settled()) is None:
            raise BenchError("no bench can be brought up", hint="`gx doctor` tries the engine")
        return worker

    def drain(self, run_id: str, reason: str, by: str = "") -> None:
        """Grant nothing more; when what is leased has ended, the run is interrupted."""
        self._active[run_id].drain(e.RunInterrupted(run=run_id, reason=reason, by=by), self._clock.monotonic())
        self._pending.ring()

    def stop(self, last: scheduler.LastWord) -> None:
        """End the run now, with this last word: what is leased is lost, and costs no retry."""
        run = self._active[last.run]
        self._workers.cancel(run, run.state.leased.values())
        if not isinstance(run.draining, e.RunCancelled):  # whoever gave it up for good was told so
            run.draining, run.draining_since = last, self._clock.monotonic()
        run.is_given_up = True
        self._pending.put(outcomes.recover(run.state, epoch=self._epoch + 1))
        self._pending.ring()

    def change(self, body: e.RunPaused | e.RunContinued | e.RunChanged) -> None:
        """Pause a live run, let it go on, or change its limits."""
        self._pending.put([body])

    def steer(self, bodies: Collection[e.Body], blobs: Collection[e.Blob] = ()) -> None:
        """Change live runs by what their rules or a person decided, in one commit."""
        self._pending.put(bodies, blobs)

    def attend(self, run_id: str, *, is_attended: bool) -> None:
        """Say whether anybody wants the run's results: without, it gets no grants."""
        if (run := self._active.get(run_id)) is not None:
            run.is_attended = is_attended
            self._pending.ring()

    def cancel(self, run_id: str, reason: str, *, by: str = "", tasks: Collection[str] | None = None) -> None:
        """End tasks of the run that have not ended: some, or all."""
        run = self._active[run_id]
        chosen = [run.state.tasks[name] for name in (run.state.tasks if tasks is None else tasks)]
        self._pending.put(outcomes.cancel(run.state, reason, by=by, tasks=chosen))

    def requeue(self, run_id: str, tasks: Collection[str], by: str) -> None:
        """Take what runs of these tasks back from the workers: it runs anew."""
        run = self._active[run_id]
        leased = [run.state.leased[name] for name in tasks if name in run.state.leased]
        self._workers.cancel(run, leased)
        self._pending.put(outcomes.take_back(run.state, leased, by))

    def leftovers(self) -> list[e.Body]:
        """What is to be written of runs that were still going when the dispatcher was left: stopped now."""
        made: list[e.Body] = []
        for run_id, run in self._active.items():
            made.extend(outcomes.recover(run.state, epoch=self._epoch + 1))
            if run.renter is not None:  # its worker was left, and cancelled what was under way
                made.extend(outcomes.lose_rented(run.state, "its node ended", worker=run.renter.station.name))
                made.extend(run.renter.let_go(self._clock.now()))
            made.extend(self._meter.end(run_id))
            made.append(run.draining or e.RunInterrupted(run=run_id, reason="stopped at once"))
        return made

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Dispatcher:
        self._thresholds = gc.get_threshold()
        gc.set_threshold(*VIEW_GC)
        self._group: TaskGroup = await anyio.create_task_group().__aenter__()
        self._beside = Beside(
            self._group, self._pending, self._contents, self._edge, self._landlord, on_failure=self._fail
        )
        self._group.start_soon(self._loop)
        self._group.start_soon(self._edge.serve)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)
        gc.set_threshold(*self._thresholds)

    async def _loop(self) -> None:
        while True:
            bodies, blobs = self._gather()
            if bodies:
                events = await self._log.append(bodies, blobs, source=self._source)
                self._apply(events)
                await anyio.lowlevel.checkpoint()  # what workers said meanwhile belongs to the next commit
                continue
            await self._pending.rung(within_s=self._until_next_instant())

    def _moment(self) -> scheduler.Moment:
        return scheduler.Moment(self._clock.now(), self._clock.monotonic())

    def _until_next_instant(self) -> float:
        """Seconds until time alone changes something; an hour if nothing is known to."""
        now, looked = self._clock.now(), self._last.wall  # what became due since was not looked at yet
        known = (scheduler.next_instant(run.state, run.held(), looked) for run in self._active.values())
        renting = (run.renter.next_s() for run in self._active.values() if run.renter is not None)
        soonest_s = min((at - now for at in (*known, *renting) if at is not None), default=_LONGEST_SLEEP_S)
        return min(max(soonest_s, _SHORTEST_SLEEP_S), _LONGEST_SLEEP_S)

    # ── before a commit ──────────────────────────────────────────────────────────────────────────────────────────

    def _gather(self) -> tuple[list[e.Body], list[e.Blob]]:
        """All events that are to be committed now, with their blobs."""
        wanted, blobs = self._pending.take()
        bodies = afterwards.still_meant(wanted, self.view)
        if not bodies:
            for run in self._active.values():
                if run.is_dirty:
                    run.is_dirty = False
                    bodies.extend(graph.unfold(run.plan, run.state))
        if any(isinstance(body, _FIRST) for body in bodies):
            return bodies, blobs
        at, last = self._moment(), self._last
        self._last = at
        if (jump_s := scheduler.clock_jump(last, at)) is not None:
            bodies.extend(e.ClockJumped(run=run_id, by_s=jump_s) for run_id in self._active)
            return bodies, blobs
        heard, free = self._workers.hear(self._active.values(), at, blobs)
        bodies.extend(heard)
        shares = share(self._fairness, self._active.values(), free, at.wall)
        for name, run in list(self._active.items()):
            most, is_alone = shares.leases.get(name, 0), shares.alone == name
            bodies.extend(self._advance(run, at, most, blobs, bodies, is_alone=is_alone))
        return learned(self._active, bodies, at.wall, blobs), blobs

    def _advance(
        self,
        run: ActiveRun,
        at: scheduler.Moment,
        most: int,
        blobs: list[e.Blob],
        before: list[e.Body],
        *,
        is_alone: bool,
    ) -> list[e.Body]:
        """Do what a run does next, and return its events; `before` are those that are to be committed already.

        At the `most` so many leases of this machine's are granted.
        """
        edge, renter = self._edge, run.renter
        leases = edge.leases if renter is None else (edge.leases or 0) + renter.leases
        move = scheduler.advance(run.plan, run.state, run.held(), at, leases=leases, before=before)
        if move.stop is not None:
            run.drain(move.stop, at.monotonic)
        if move.is_cut_off:
            self._workers.cancel(run, run.state.leased.values())
        if move.hung and len(run.state.leased) > scheduler.rented(run.state):  # containers keep their own time
            run.was_cut_off(at.monotonic)
            edge.restart(move.hung)
        if move.last is not None and renter is not None and not renter.may_end(at.wall):
            return []
        if move.last is not None:
            rented = [] if renter is None else renter.let_go(at.wall)
            return [*self._meter.end(run.state.id), *rented, move.last]
        bodies = list[e.Body]()
        if move.prepare:
            bodies.extend(self._prepare(run, move.prepare, blobs))
        if move.wants_worker:
            edge.want()
        if move.wants_worker and move.may_grant:
            bodies.extend(self._grant(run, at, most, is_alone=is_alone))
        elif move.may_grant:
            lending.have_back(run, edge, at)
        return bodies

    def _prepare(self, run: ActiveRun, tasks: Collection[str], blobs: list[e.Blob]) -> list[e.Body]:
        prepared = run.preparer.prepare(tasks)
        run.turns.update(prepared.turns)
        blobs.extend(prepared.blobs)
        if any(task in run.state.suspects for task in prepared.turns):
            self._pending.ring()  # it runs alone as soon as that is asked again
        return prepared.bodies

    def _grant(self, run: ActiveRun, at: scheduler.Moment, most: int, *, is_alone: bool) -> list[e.Body]:
        """Leases of this machine's worker, then, for other tasks, of the worker that the run rents."""
        edge = self._edge
        granted = scheduler.decide(
            run.state,
            at.wall,
            worker=edge.name,
            lease=edge.lease(),
            free=most,
            at_hand=lending.to_begin(run, edge, at),
            is_alone=is_alone,
        )
        return [*granted, *lending.lend(run, at, granted)]

    # ── after a commit ───────────────────────────────────────────────────────────────────────────────────────────

    def _apply(self, events: Iterable[e.Event]) -> None:
        """Fold what was committed, unfold what follows, and act on it."""
        for event in events:
            body = event.body
            run = self._active.get(getattr(body, "run", ""))
            if run is None:
                fold(self.view, event)
                continue
            if isinstance(body, e.TaskCancelled) and body.task in run.state.leased:
                self._workers.cancel(run, [run.state.leased[body.task]])
            is_end = outcomes.is_end(run.state, body)
            fold(self.view, event)
            run.folded(body, is_end=is_end)
            match body:
                case e.InputsRead():
                    self._pending.put(graph.expand(run.plan, run.state, body))
                case e.TaskLeased():
                    self._pending.put(self._workers.submit(run, body))
                case e.BurstAllowed():
                    self._beside.rent(run, self._clock.now())
                case e.RunFinished() | e.RunCancelled():
                    self._end(run)
                case e.RunStopped() | e.RunInterrupted():
                    if not isinstance(run.draining, e.RunCancelled):  # else it was given up meanwhile: that ends it
                        self._end(run)
        for run in self._active.values():
            run.step_ended()
            self._beside.cut(run)

    def _end(self, run: ActiveRun) -> None:
        del self._active[run.state.id]
        self._pending.bodies = afterwards.kept(self._pending.bodies, run.state)
        run.end()

    # ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────

    def _fail_all(self, error: GxError) -> None:
        """No bench can be kept up."""
        for run in list(self._active.values()):
            self._fail(run, error)

    def _fail(self, run: ActiveRun, error: GxError) -> None:
        """The run can't go on here; what is finished stays, and its client is told why."""
        if run.is_over:  # as where its input ends in an error because nobody reads on
            return
        run.error = run.error or error
        run.drain(e.RunInterrupted(run=run.state.id, reason=error.message), self._clock.monotonic())
        if self._edge.worker is None:
            self._pending.put(outcomes.recover(run.state, epoch=self._epoch + 1))
        self._pending.ring()
