"""The loop: decide, commit, fold, hand out leases, publish.

It holds no rules. What follows from what is in `gx.flow.graph` and `gx.run.scheduler`; this file gathers their events,
commits them in one batch, folds them, and only then acts. A turn reaches a worker only after its lease is durable; a
result reaches the client only after its success is.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from gx.core import event as e
from gx.core.errors import BenchError, GxError
from gx.core.ids import mix_seed
from gx.core.message import Answer, Failure, Signal
from gx.core.ports import AttemptEnded, BenchDown, BenchUp, Clock, Worker, WorkerEvent
from gx.core.projection import fold
from gx.core.task import EdgeLease
from gx.core.view import View
from gx.flow import graph
from gx.run import feeder, grouping, scheduler
from gx.run.active import ActiveRun
from gx.run.contents import Contents
from gx.run.inputs import Row

_PENDING_LIMIT = 8192
"""Events that may wait for a commit before the input is read on."""
CLOCK_JUMP_S = 5.0
"""A smaller step of the wall clock is taken for drift: time servers slew by less."""
_CUT_TRIES = 3
"""How many benches may be lost while prompts are counted, which is nobody's turn."""
VIEW_GC = (100_000, 50, 100)
"""How seldom the collector looks for cycles: a view of a million small values holds none, and a look walks them all."""
WATCH_EVERY_S = 2.0
"""How often attempts that run are compared with their time-outs."""
_ENDS = (e.TaskSucceeded, e.TaskFailed, e.TaskCancelled, e.TaskSkipped)

MakeWorker = Callable[[], AbstractAsyncContextManager[Worker]]


class Log(Protocol):
    """What the dispatcher needs of the event log."""

    async def append(self, bodies: list[e.Body], blobs: list[e.Blob], *, source: str) -> list[e.Event]: ...


class Dispatcher:
    """Drives the live runs of one node. Use as `async with`; every method is called from its event loop."""

    def __init__(
        self, *, log: Log, view: View, contents: Contents, make_worker: MakeWorker, clock: Clock, epoch: int
    ) -> None:
        self.view = view
        self._log, self._contents, self._make_worker, self._clock = log, contents, make_worker, clock
        self._epoch, self._source = epoch, f"node:{epoch}"
        self._active: dict[str, ActiveRun] = {}
        self._incarnation = 0
        self._hung: set[int] = set()
        self._clock_offset = clock.now() - clock.monotonic()
        self._pending: list[e.Body] = []
        self._blobs: list[e.Blob] = []
        self._inbox: list[WorkerEvent] = []
        self._worker: Worker | None = None
        self._wants_worker = anyio.Event()
        self._has_worker = anyio.Event()
        self._news = anyio.Event()
        self._room = anyio.Event()
        self.on_signal: Callable[[Signal], None] = lambda signal: None

    # ── what clients ask for ─────────────────────────────────────────────────────────────────────────────────────

    async def commit(self, bodies: list[e.Body], blobs: list[e.Blob] | None = None) -> None:
        """Append and fold at once, outside the loop: the first events of a run."""
        for event in await self._log.append(bodies, blobs or [], source=self._source):
            fold(self.view, event)

    async def activate(self, run: ActiveRun) -> None:
        """Take up a run that is in the view: void what an earlier node left leased, unfold what is missing."""
        await self.commit(scheduler.recover(run.state, epoch=self._epoch))
        self._active[run.state.id] = run
        self._group.start_soon(run.publish, self._wake)
        if run.rows is not None and not run.state.inputs_ended:
            self._group.start_soon(self._feed, run, run.rows)
        self._wake()

    def drain(self, run_id: str, reason: str) -> None:
        """Grant nothing more; when what is leased has ended, the run is interrupted."""
        self._drain(self._active[run_id], e.RunInterrupted(run=run_id, reason=reason))
        self._wake()

    def cancel(self, run_id: str, reason: str) -> None:
        """End every task of the run that has not ended."""
        run = self._active[run_id]
        for task in run.state.leased.values():
            if self._worker is not None:
                self._worker.cancel(task.id, task.attempt)
        self._pending.extend(scheduler.cancel(run.state, reason))
        self._wake()

    def leftovers(self) -> list[e.Body]:
        """What is to be written of runs that were still going when the dispatcher was left: stopped now."""
        made: list[e.Body] = []
        for run_id, run in self._active.items():
            made.extend(scheduler.recover(run.state, epoch=self._epoch + 1))
            made.append(run.draining or e.RunInterrupted(run=run_id, reason="stopped at once"))
        return made

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Dispatcher:
        self._thresholds = gc.get_threshold()
        gc.set_threshold(*VIEW_GC)
        self._group: TaskGroup = await anyio.create_task_group().__aenter__()
        self._group.start_soon(self._loop)
        self._group.start_soon(self._serve_worker)
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
        bodies, self._pending = self._pending, []
        blobs, self._blobs = self._blobs, []
        self._room.set()
        if not bodies:
            for run in self._active.values():
                if run.is_dirty:
                    run.is_dirty = False
                    bodies.extend(graph.unfold(run.plan, run.state))
        now = self._clock.now()
        if (jump_s := self._jump(now)) is not None:
            bodies.extend(e.ClockJumped(run=run_id, by_s=jump_s) for run_id in self._active)
            return bodies, blobs
        inbox, self._inbox = self._inbox, []
        for event in inbox:
            bodies.extend(self._settle(event, now, blobs))
        free = self._free(settled=sum(isinstance(event, AttemptEnded) for event in inbox))
        for run in list(self._active.values()):
            made = self._advance(run, now, free, blobs, bodies)
            free -= sum(isinstance(body, e.TaskLeased) for body in made)
            bodies.extend(made)
        return bodies, blobs

    def _jump(self, now: float) -> float | None:
        """How far the wall clock moved since the last time beside the time that passed; `None` for the usual drift."""
        offset = now - self._clock.monotonic()
        by_s, self._clock_offset = offset - self._clock_offset, offset
        return by_s if abs(by_s) > CLOCK_JUMP_S else None

    def _free(self, *, settled: int) -> int:
        """Leases that may be granted, counting those whose end is about to be committed."""
        if self._worker is None:
            return 0
        return self._worker.capacity().leases - sum(len(r.state.leased) for r in self._active.values()) + settled

    def _advance(
        self, run: ActiveRun, now: float, free: int, blobs: list[e.Blob], before: list[e.Body]
    ) -> list[e.Body]:
        """What one run does next, `before` being what is to be committed already: end, stop, prepare, grant."""
        state, bodies = run.state, list[e.Body]()
        if not before and self._is_done(run):
            return [scheduler.finish(state)]
        if run.draining is None and (stop := scheduler.limit(state, now, before)) is not None:
            self._drain(run, stop)
            for task in state.leased.values() if stop.limit == "deadline" else ():
                if self._worker is not None:
                    self._worker.cancel(task.id, task.attempt)
        if self._worker is not None and (why := run.overdue(self._clock.monotonic())) is not None:
            run.leased_at.clear()
            run.draining_since = self._clock.monotonic()
            self._hung.add(self._incarnation)
            self._worker.restart(why)
        if run.draining is not None:
            return [run.draining] if not before and not state.leased else []
        capacity = self._worker.capacity().leases if self._worker is not None else 2
        if chosen := run.next_to_prepare(capacity, now):
            prepared = run.preparer.prepare(chosen)
            run.turns.update(prepared.turns)
            blobs.extend(prepared.blobs)
            bodies.extend(prepared.bodies)
        if state.ready or state.delayed or state.suspects:
            self._wants_worker.set()
            if self._worker is not None and not run.is_slow:
                worker, lease = self._worker.name, self._worker.lease()
                bodies.extend(scheduler.decide(state, now, worker=worker, lease=lease, free=free, at_hand=run.turns))
        return bodies

    def _drain(self, run: ActiveRun, last: e.Body) -> None:
        """Grant nothing more; `last` is the run's last word here, once what is leased has ended."""
        if run.draining is None:
            run.draining, run.draining_since = last, self._clock.monotonic()

    def _is_done(self, run: ActiveRun) -> bool:
        needs_rows = run.plan.reads_inputs and not run.state.inputs_ended
        return not needs_rows and graph.is_finished(run.plan, run.state)

    def _settle(self, event: WorkerEvent, now: float, blobs: list[e.Blob]) -> Iterator[e.Body]:
        """What follows from a worker's event."""
        worker = self._worker.name if self._worker is not None else ""
        if isinstance(event, AttemptEnded):
            run = next((r for r in self._active.values() if event.task in r.state.tasks), None)
            if run is None:
                return
            output = detail = None
            if isinstance(event.outcome, Answer):
                output = self._put(bytes(event.outcome.value), blobs)
            elif isinstance(event.outcome, Failure) and event.outcome.detail:
                detail = self._put(event.outcome.detail.encode(), blobs)
            retry = run.plan.step(run.state.tasks[event.task].step).step.retry
            turn = run.turns.get(event.task)
            yield from scheduler.settle(
                run.state,
                event,
                now,
                worker=worker,
                retry=retry,
                output=output,
                detail=detail,
                max_tokens=turn.sampling.max_tokens if turn is not None else None,
            )
        elif isinstance(event, BenchUp):
            self._incarnation = event.incarnation
            yield e.BenchStarted(
                worker=worker,
                epoch=self._epoch,
                incarnation=event.incarnation,
                pid=event.pid,
                slots=event.slots,
                engine=event.engine,
            )
        elif isinstance(event, BenchDown):
            yield e.BenchExited(worker=worker, epoch=self._epoch, incarnation=event.incarnation, reason=event.reason)
            lease = EdgeLease(epoch=self._epoch, incarnation=event.incarnation)
            for run in self._active.values():
                is_suspect = not event.is_expected or event.incarnation in self._hung
                yield from scheduler.lose(
                    run.state, worker=worker, lease=lease, reason=event.reason, is_suspect=is_suspect
                )
        else:
            self.on_signal(event)

    def _put(self, content: bytes, blobs: list[e.Blob]) -> e.Ref:
        blob = self._contents.put(content)
        blobs.append(blob)
        return blob.digest

    def _apply(self, events: list[e.Event]) -> None:
        """Fold what was committed, unfold what follows, and act on it."""
        for event in events:
            fold(self.view, event)
            body = event.body
            run = self._active.get(getattr(body, "run", ""))
            if run is None:
                continue
            run.is_dirty |= graph.may_unfold(run.state, body)
            if isinstance(body, e.InputsRead):
                self._pending.extend(graph.expand(run.plan, run.state, body))
            elif isinstance(body, e.TaskLeased):
                self._submit(run, body)
            elif isinstance(body, e.TaskPrepared | e.TaskRetried):
                run.task_waits(run.state.tasks[body.task])
            elif isinstance(body, _ENDS):
                run.task_ended(run.state.tasks[body.task])
            elif isinstance(body, e.RunFinished | e.RunStopped | e.RunInterrupted):
                self._end(run)
                continue
        for run in self._active.values():
            run.step_ended()
            self._start_grouping(run)

    def _submit(self, run: ActiveRun, lease: e.TaskLeased) -> None:
        task = run.state.tasks[lease.task]
        if task.lease is not lease.lease or task.attempt != lease.attempt:
            return  # something that was committed with the lease ended the task
        turn = run.turns[lease.task]
        if turn.attempt != lease.attempt or task.failures:
            turn = turn.for_attempt(lease.attempt, mix_seed(turn.sampling.seed, task.failures))
        if self._worker is not None and self._worker.lease() == lease.lease:
            run.leased_at[task.id] = self._clock.monotonic()
            self._worker.submit(turn)

    def _end(self, run: ActiveRun) -> None:
        del self._active[run.state.id]
        run.end()

    def _until_next_instant(self) -> float:
        """Seconds until a delayed task is due or a deadline passes; an hour if neither is known."""
        now = self._clock.now()
        instants = [now + 3600.0]
        for run in self._active.values():
            if run.leased_at:
                instants.append(now + WATCH_EVERY_S)
            if run.draining is None:
                instants.extend(at for at in (scheduler.next_due(run.state), run.state.deadline_at) if at is not None)
        return max(0.001, min(instants) - now)

    # ── tasks beside the loop ────────────────────────────────────────────────────────────────────────────────────

    async def _serve_worker(self) -> None:
        """Bring up the worker when the first task is ready for it, and take its events."""
        await self._wants_worker.wait()
        try:
            async with self._make_worker() as worker:
                self._worker = worker
                self._has_worker.set()
                self._wake()
                while True:
                    got = await worker.events()
                    self._inbox.extend(got)
                    self._wake()
        except GxError as error:
            self._worker = None
            self._has_worker.set()
            for run in list(self._active.values()):
                self._fail(run, error)

    async def _feed(self, run: ActiveRun, rows: Iterator[Row]) -> None:
        async def commit(bodies: list[e.Body], blobs: list[e.Blob]) -> bool:
            while run.draining is None and (
                len(self._pending) > _PENDING_LIMIT or self._contents.is_outrun_by(len(run.state.unprepared))
            ):
                self._room = anyio.Event()
                await self._room.wait()
            if run.draining is not None:  # an input without end would keep it from ending
                return False
            self._pending.extend(bodies)
            self._blobs.extend(blobs)
            self._wake()
            return True

        try:
            await feeder.feed(run.state, rows, self._contents, commit)
        except GxError as error:
            self._fail(run, error)

    def _start_grouping(self, run: ActiveRun) -> None:
        for wanted in graph.groupings(run.plan, run.state):
            if (wanted.step, wanted.level) not in run.is_grouping:
                run.is_grouping.add((wanted.step, wanted.level))
                self._group.start_soon(self._cut, run, wanted)

    async def _cut(self, run: ActiveRun, wanted: graph.Grouping) -> None:
        """Cut one level of a reduce into groups that fit the model's context."""
        self._wants_worker.set()
        await self._has_worker.wait()
        if self._worker is None:
            return
        tries = 0
        while True:
            try:
                spans = await grouping.cut(run.plan, run.preparer, wanted, self._worker)
                break
            except GxError as error:
                tries += 1
                if not isinstance(error, BenchError) or tries == _CUT_TRIES:
                    self._fail(run, error)
                    return
        self._pending.append(e.StepGrouped(run=run.state.id, step=wanted.step, level=wanted.level, spans=spans))
        self._wake()

    def _fail(self, run: ActiveRun, error: GxError) -> None:
        """The run can't go on here; what is finished stays, and its client is told why."""
        run.error = run.error or error
        self._drain(run, e.RunInterrupted(run=run.state.id, reason=error.message))
        if self._worker is None:
            self._pending.extend(scheduler.recover(run.state, epoch=self._epoch + 1))
        self._wake()
