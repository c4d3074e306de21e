"""The loop: decide, commit, fold, hand out leases, publish.

It holds no rules. What follows from what is in `gx.flow.graph`, `gx.run.scheduler` and `gx.run.outcomes`; this file
gathers their events, commits them in one batch, folds them, and only then acts. A turn reaches a worker only after its
lease is durable; a result reaches the client only after its success is. It is long because it is the one place where
what was decided is done: for runs, for this machine's worker, and for those that are rented.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from gx.core import event as e
from gx.core.errors import BenchError, GxError, ours
from gx.core.ports import Clock, Landlord, Worker
from gx.core.projection import fold
from gx.core.protocol import Measured, Signal
from gx.core.renting import can_switch
from gx.core.task import CloudLease, EdgeLease
from gx.core.view import RunState, TaskState, View
from gx.flow import graph
from gx.flow.privacy import private_fields
from gx.run import afterwards, feeder, grouping, outcomes, scheduler
from gx.run.active import ActiveRun
from gx.run.contents import Contents
from gx.run.fairness import Fairness
from gx.run.inputs import Row
from gx.run.memory.learning import learned
from gx.run.meter import Meter
from gx.run.rent import lending
from gx.run.rent.renter import Renter
from gx.run.settling import Settling
from gx.run.station import MakeWorker, Station

_PENDING_LIMIT = 8192
"""Events that may wait for a commit before the input is read on."""
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
        self._log, self._contents, self._clock = log, contents, clock
        self._landlord = landlord
        self._epoch, self._source = epoch, f"node:{epoch}"
        self._active: dict[str, ActiveRun] = {}
        self._edge = Station("edge", make_worker, on_news=self._wake, on_failure=self._fail_all)
        self._meter = Meter(epoch)
        self._settling = Settling(self._active, contents, self._meter, epoch, lambda signal: self.on_signal(signal))
        self._fairness = Fairness()
        self._last = self._moment()
        self._pending: list[e.Body] = []
        self._blobs: list[e.Blob] = []
        self._news = anyio.Event()
        self._room = anyio.Event()
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
        self._let_rent(run)
        run.results.on_room = self._wake
        if run.rows is not None and not run.state.inputs_ended:
            self._group.start_soon(self._feed, run, run.rows)
        self._start_grouping(run)
        self._group.start_soon(run.preparer.recalls.serve, run.over, self._wake)
        run.preparer.looks.bench = self._edge.settled
        self._group.start_soon(run.preparer.looks.serve, run.over, self._wake)
        self._wake()

    async def worker(self) -> Worker:
        """The worker here, brought up for what is no turn. :raises BenchError: if it can't be."""
        if (worker := await self._edge.settled()) is None:
            raise BenchError("no bench can be brought up", hint="`gx doctor` tries the engine")
        return worker

    def drain(self, run_id: str, reason: str, by: str = "") -> None:
        """Grant nothing more; when what is leased has ended, the run is interrupted."""
        self._active[run_id].drain(e.RunInterrupted(run=run_id, reason=reason, by=by), self._clock.monotonic())
        self._wake()

    def stop(self, last: scheduler.LastWord) -> None:
        """End the run now, with this last word: what is leased is lost, and costs no retry."""
        run = self._active[last.run]
        self._cancel_leased(run)
        if not isinstance(run.draining, e.RunCancelled):  # whoever gave it up for good was told so
            run.draining, run.draining_since = last, self._clock.monotonic()
        run.is_given_up = True
        self._pending.extend(outcomes.recover(run.state, epoch=self._epoch + 1))
        self._wake()

    def change(self, body: e.RunPaused | e.RunContinued | e.RunChanged) -> None:
        """Pause a live run, let it go on, or change its limits."""
        self._pending.append(body)
        self._wake()

    def steer(self, bodies: Collection[e.Body], blobs: Collection[e.Blob] = ()) -> None:
        """Change live runs by what their rules or a person decided, in one commit."""
        self._pending.extend(bodies)
        self._blobs.extend(blobs)
        self._wake()

    def attend(self, run_id: str, *, is_attended: bool) -> None:
        """Say whether anybody wants the run's results: without, it gets no grants."""
        if (run := self._active.get(run_id)) is not None:
            run.is_attended = is_attended
            self._wake()

    def cancel(self, run_id: str, reason: str, *, by: str = "", tasks: Collection[str] | None = None) -> None:
        """End tasks of the run that have not ended: some, or all."""
        run = self._active[run_id]
        chosen = [run.state.tasks[name] for name in (run.state.tasks if tasks is None else tasks)]
        self._pending.extend(outcomes.cancel(run.state, reason, by=by, tasks=chosen))
        self._wake()

    def requeue(self, run_id: str, tasks: Collection[str], by: str) -> None:
        """Take what runs of these tasks back from the workers: it runs anew."""
        run = self._active[run_id]
        leased = [run.state.leased[name] for name in tasks if name in run.state.leased]
        for task in leased:
            self._cancel_attempt(run, task)
        self._pending.extend(outcomes.take_back(run.state, leased, by))
        self._wake()

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
            with anyio.move_on_after(self._until_next_instant()):
                await self._news.wait()
            self._news = anyio.Event()

    def _wake(self) -> None:
        self._news.set()

    def _gather(self) -> tuple[list[e.Body], list[e.Blob]]:
        """All events that are to be committed now, with their blobs."""
        bodies, self._pending = [body for body in self._pending if self._is_still_meant(body)], []
        blobs, self._blobs = self._blobs, []
        room, self._room = self._room, anyio.Event()
        room.set()  # all who wait: each feeds a run of its own
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
        edge = self._edge
        inbox, edge.inbox = edge.inbox, []
        for event in inbox:
            bodies.extend(self._settling.follow(edge, event, at, blobs))
        for run in self._active.values():
            if run.renter is not None:
                bodies.extend(self._rent(run, run.renter, at, blobs))
        free = min(edge.room, scheduler.free_leases(edge.leases or 0, self._states(), inbox))
        shares, alone = self._shares(free, at)
        for run in list(self._active.values()):
            share = shares.get(run.state.id, 0)
            bodies.extend(self._advance(run, at, share, blobs, bodies, is_alone=run.state.id == alone))
        return learned(self._active, bodies, at.wall, blobs), blobs

    def _shares(self, free: int, at: scheduler.Moment) -> tuple[dict[str, int], str]:
        """How many leases each run may grant, and which run may have a task run alone, if its turn has come.

        Such a task waits until no run has any lease on this machine, and then nobody else gets one: two of them would
        each be blamed for the other.
        """
        leased = [t for run in self._states() for t in run.leased.values() if isinstance(t.lease, EdgeLease)]
        if any(task.is_alone for task in leased):
            return {}, ""
        runs = {run.state.id: run for run in self._active.values() if not run.is_held_up and run.draining is None}
        states = [run.state for run in runs.values()]
        lonely = {n for n, run in runs.items() if scheduler.wants_to_be_alone(run.state, at.wall, run.turns)}
        if lonely:
            first = next((name for name, n in self._fairness.share(min(1, free), states, at.wall).items() if n), "")
            if first in lonely:
                return ({}, "") if leased else ({first: 1}, first)
        return self._fairness.share(free, states, at.wall), ""

    def _is_still_meant(self, body: e.Body) -> bool:
        """Not so terms that were asked for while what they don't go with was written: containers of the other kind."""
        if not isinstance(body, e.BurstAllowed):
            return True
        run = self.view.runs.get(body.run)
        return run is None or can_switch(run, body.terms)

    def _rent(self, run: ActiveRun, renter: Renter, at: scheduler.Moment, blobs: list[e.Blob]) -> list[e.Body]:
        """What follows from what a run rents, and from the time."""
        station, bodies = renter.station, list[e.Body]()
        heard, station.inbox = station.inbox, []
        for event in heard:
            bodies.extend(self._settling.follow(station, event, at, blobs))
            bodies.extend(renter.settle(event))
        if missing := renter.came_up(run.turns):
            run.turns.update(run.preparer.prepare(task_id for task_id, _ in missing).turns)
            bodies.extend(renter.lose(renter.came_up(run.turns), "its node ended before it was begun"))
        may_begin = run.draining is None and not run.is_held_up
        bodies.extend(renter.move(at.wall, lending.here(run, self._edge), may_begin=may_begin))
        return bodies

    def _let_rent(self, run: ActiveRun) -> None:
        """Where the run has terms on which it may rent, see to it."""
        rent = run.state.rent
        if rent is None or run.renter is not None or self._landlord is None:
            return

        def may_travel(task_id: str) -> bool:
            return scheduler.may_travel(run.state, task_id, run.turns)

        now = self._clock.now()
        run.renter = Renter(run.state, rent, self._landlord, may_travel=may_travel, on_news=self._wake, now=now)
        self._group.start_soon(self._serve_rented, run, run.renter)

    async def _serve_rented(self, run: ActiveRun, renter: Renter) -> None:
        """Keep the run's rented worker up until the run is over; leaving it ends what is under way there."""
        async with anyio.create_task_group() as group:
            group.start_soon(renter.station.serve)
            await run.over.wait()
            group.cancel_scope.cancel()

    def _station(self, run: ActiveRun, worker: str | None) -> Station:
        """Who has what is leased to that worker."""
        return run.renter.station if run.renter is not None and worker == run.renter.station.name else self._edge

    def _moment(self) -> scheduler.Moment:
        return scheduler.Moment(self._clock.now(), self._clock.monotonic())

    def _states(self) -> Iterator[RunState]:
        return (run.state for run in self._active.values())

    def _advance(
        self,
        run: ActiveRun,
        at: scheduler.Moment,
        free: int,
        blobs: list[e.Blob],
        before: list[e.Body],
        *,
        is_alone: bool,
    ) -> list[e.Body]:
        """Do what a run does next, and return its events; `before` are those that are to be committed already."""
        edge = self._edge
        renter = run.renter
        leases = edge.leases if renter is None else (edge.leases or 0) + renter.leases
        move = scheduler.advance(run.plan, run.state, run.held(), at, leases=leases, before=before)
        if move.stop is not None:
            run.drain(move.stop, at.monotonic)
        if move.is_cut_off:
            self._cancel_leased(run)
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
            prepared = run.preparer.prepare(move.prepare)
            run.turns.update(prepared.turns)
            blobs.extend(prepared.blobs)
            bodies.extend(prepared.bodies)
            if any(task in run.state.suspects for task in prepared.turns):
                self._wake()  # it runs alone as soon as that is asked again
        if move.wants_worker:
            edge.want()
        if move.wants_worker and move.may_grant:
            lease = edge.lease()
            at_hand = lending.to_begin(run, edge, at)
            bodies.extend(
                scheduler.decide(
                    run.state, at.wall, worker=edge.name, lease=lease, free=free, at_hand=at_hand, is_alone=is_alone
                )
            )
            if renter is not None:
                granted = {body.task for body in bodies if isinstance(body, e.TaskLeased)}
                bodies.extend(lending.lend(run, renter.station, at, granted))
        elif renter is not None and move.may_grant and edge.lease() is not None and edge.room > 0:
            renter.give_back(edge.room, lending.here(run, edge), at.wall)  # this machine has nothing to do
        return bodies

    def _cancel_leased(self, run: ActiveRun) -> None:
        for task in run.state.leased.values():
            self._cancel_attempt(run, task)

    def _cancel_attempt(self, run: ActiveRun, task: TaskState) -> None:
        if run.renter is not None and isinstance(task.lease, CloudLease):
            run.renter.cancel(task.id, task.attempt)
        else:
            self._edge.cancel(task.id, task.attempt)

    def _apply(self, events: list[e.Event]) -> None:
        """Fold what was committed, unfold what follows, and act on it."""
        for event in events:
            body = event.body
            run = self._active.get(getattr(body, "run", ""))
            is_end = run is not None and outcomes.is_end(run.state, body)
            if run is not None and isinstance(body, e.TaskCancelled) and body.task in run.state.leased:
                self._cancel_attempt(run, run.state.leased[body.task])
            fold(self.view, event)
            if run is None:
                continue
            run.is_dirty |= graph.may_unfold(run.state, body)
            if run.renter is not None:
                run.renter.act(body)
            if isinstance(body, e.InputsRead):
                self._pending.extend(graph.expand(run.plan, run.state, body))
            elif isinstance(body, e.TaskLeased):
                self._submit(run, body)
            elif isinstance(body, e.BurstAllowed):
                self._let_rent(run)
            elif isinstance(body, e.RunChanged):
                run.is_attended |= body.is_detached
            elif isinstance(body, e.StepRouted):
                run.step_routed(body.step)
            elif isinstance(body, e.TaskPrepared | e.TaskRetried):
                run.task_waits(run.state.tasks[body.task])
            elif isinstance(body, graph.TASK_ENDS):
                if is_end:
                    run.task_ended(run.state.tasks[body.task])
            elif isinstance(body, e.RunFinished | e.RunCancelled):
                self._end(run)
                continue
            elif isinstance(body, e.RunStopped | e.RunInterrupted):
                if not isinstance(run.draining, e.RunCancelled):  # else it was given up meanwhile: that ends it
                    self._end(run)
                continue
        for run in self._active.values():
            run.step_ended()
            self._start_grouping(run)

    def _submit(self, run: ActiveRun, leased: e.TaskLeased) -> None:
        if run.is_given_up:  # while this lease was on its way into the log
            self._pending.extend(outcomes.give_up(run.state, [run.state.tasks[leased.task]]))
            return
        turn = scheduler.turn_of(run.state.tasks[leased.task], leased, run.turns[leased.task])
        station = self._station(run, leased.worker)
        if turn is not None and station.lease() == leased.lease:
            station.submit(turn)
        elif turn is not None and run.renter is not None and station is run.renter.station:
            name = (leased.task, leased.attempt)
            self._pending.extend(run.renter.lose([name], "nothing is rented any more"))

    def _end(self, run: ActiveRun) -> None:
        del self._active[run.state.id]
        self._pending = afterwards.kept(self._pending, run.state)
        run.end()

    def _until_next_instant(self) -> float:
        """Seconds until time alone changes something; an hour if nothing is known to."""
        now, looked = self._clock.now(), self._last.wall  # what became due since was not looked at yet
        known = (scheduler.next_instant(run.state, run.held(), looked) for run in self._active.values())
        renting = (run.renter.next_s() for run in self._active.values() if run.renter is not None)
        soonest_s = min((at - now for at in (*known, *renting) if at is not None), default=_LONGEST_SLEEP_S)
        return min(max(soonest_s, _SHORTEST_SLEEP_S), _LONGEST_SLEEP_S)

    # ── tasks beside the loop ────────────────────────────────────────────────────────────────────────────────────

    async def _feed(self, run: ActiveRun, rows: Iterator[Row]) -> None:
        async def commit(bodies: list[e.Body], blobs: list[e.Blob]) -> bool:
            while run.draining is None and (
                len(self._pending) > _PENDING_LIMIT
                or run.has_rows_enough
                or self._contents.is_outrun_by(len(run.state.unprepared) + len(run.state.parked))
            ):
                await self._room.wait()
            if run.draining is not None:  # an input without end would keep it from ending
                return False
            run.rows_given += sum(len(body.rows) for body in bodies if isinstance(body, e.InputsRead))
            self._pending.extend(bodies)
            self._blobs.extend(blobs)
            self._wake()
            return True

        try:
            await feeder.feed(run.state, rows, self._contents, commit, private=private_fields(run.plan.recipe))
        except Exception as error:  # noqa: BLE001  whatever one input does to us, the other runs go on
            self._fail(run, ours(error))

    def _start_grouping(self, run: ActiveRun) -> None:
        for wanted in graph.groupings(run.plan, run.state):
            if (wanted.step, wanted.level) not in run.is_grouping:
                run.is_grouping.add((wanted.step, wanted.level))
                self._group.start_soon(self._cut, run, wanted)

    async def _cut(self, run: ActiveRun, wanted: graph.Grouping) -> None:
        """Cut one level of a reduce into groups that fit the model's context."""
        worker = await self._edge.settled()
        if worker is None:
            return
        try:
            spans = await grouping.cut(run.plan, run.preparer, wanted, worker)
        except GxError as error:
            self._fail(run, error)
            return
        self._pending.append(e.StepGrouped(run=run.state.id, step=wanted.step, level=wanted.level, spans=spans))
        self._wake()

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
            self._pending.extend(outcomes.recover(run.state, epoch=self._epoch + 1))
        self._wake()
