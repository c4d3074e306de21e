"""State, as a fold over the log and nothing else.

`fold(view, event)` is total and deterministic: the same events give the same view, whatever they are. It owns the view
and changes it in place, with queues and counters, so that no event costs a scan. Three rules hold it together:
an event of a stale attempt changes nothing; a terminal task never changes; a second event that queues the same task is
ignored. The types are in `gx.core.view`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gx.core import event as e
from gx.core.attempts import ATTEMPTS
from gx.core.figures import plus
from gx.core.message import Counts
from gx.core.queues import enqueue
from gx.core.renting import RENTING, rent_of
from gx.core.steering import STEERING
from gx.core.view import BenchState, RunState, RunStatus, TaskState, View

_MEMORY = (e.MemoryWritten, e.MemoryForgotten, e.MemoryModelled)


def fold(view: View, event: e.Event) -> View:
    """Apply one event to `view`, in place, and return it."""
    view.seq = event.seq
    body: Any = event.body
    kind = type(body)
    if (apply_node := _NODE.get(kind)) is not None:
        apply_node(view, body)
    elif kind in _MEMORY:
        view.memory_seq = event.seq
    run_id = getattr(body, "run", None)
    if run_id is None:
        return view
    if kind is e.RunCreated and run_id not in view.runs:
        view.runs[run_id] = RunState(
            id=run_id,
            created=body,
            began_seq=event.seq,
            deadline_at=body.deadline_at,
            budget_tokens=body.budget_tokens,
            is_detached=body.is_detached,
            priority=body.priority,
            rent=None if body.burst is None else rent_of(body.burst),
        )
    run = view.runs.get(run_id)
    if run is None:
        return view
    run.seq = event.seq
    if (apply_run := _RUN.get(kind)) is not None:
        apply_run(run, body)
    elif (apply_task := ATTEMPTS.get(kind)) is not None:
        task = run.tasks.get(body.task)
        if task is not None and not task.status.is_terminal and body.attempt == task.attempt:
            apply_task(run, task, body)
    return view


# ── nodes and benches ────────────────────────────────────────────────────────────────────────────────────────────


def _node_started(view: View, body: e.NodeStarted) -> None:
    view.epoch = max(view.epoch, body.epoch)
    view.benches.clear()


def _node_stopped(view: View, body: e.NodeStopped) -> None:
    view.benches.clear()


def _bench_started(view: View, body: e.BenchStarted) -> None:
    view.benches[body.worker] = BenchState(
        worker=body.worker, epoch=body.epoch, incarnation=body.incarnation, engine=body.engine, slots=body.slots
    )


def _bench_exited(view: View, body: e.BenchExited) -> None:
    if _bench(view, body) is not None:
        del view.benches[body.worker]


def _bench_measured(view: View, body: e.BenchMeasured) -> None:
    bench = _bench(view, body)
    if bench is not None:
        bench.slots_busy, bench.threads = body.slots_busy, body.threads
        bench.lately = plus(body, Counts())


def _bench(view: View, body: e.BenchExited | e.BenchMeasured) -> BenchState | None:
    """The bench that an event is about, if it is still up: a run that is read again tells of others."""
    bench = view.benches.get(body.worker)
    is_same = bench is not None and (bench.epoch, bench.incarnation) == (body.epoch, body.incarnation)
    return bench if is_same else None


# ── runs and steps ───────────────────────────────────────────────────────────────────────────────────────────────


def _run_resumed(run: RunState, body: e.RunResumed) -> None:
    run.status = RunStatus.running
    run.is_detached = run.is_detached or body.is_detached
    run.stop_asked = None
    _limits(run, body)


def _limits(run: RunState, body: e.RunResumed | e.RunChanged) -> None:
    if body.deadline_at is not None:
        run.deadline_at = body.deadline_at
    if body.budget_tokens is not None:
        run.budget_tokens = body.budget_tokens


def _run_interrupted(run: RunState, body: e.RunInterrupted) -> None:
    run.status = RunStatus.interrupted


def _run_cancelled(run: RunState, body: e.RunCancelled) -> None:
    run.status = RunStatus.cancelled
    run.questions.clear()


def _run_paused(run: RunState, body: e.RunPaused) -> None:
    run.is_paused = True


def _run_continued(run: RunState, body: e.RunContinued) -> None:
    run.is_paused = False


def _run_changed(run: RunState, body: e.RunChanged) -> None:
    _limits(run, body)
    run.is_detached = run.is_detached or body.is_detached
    if body.concurrency is not None:
        run.concurrency = body.concurrency or None
    if body.priority is not None:
        run.priority = body.priority


def _run_stopped(run: RunState, body: e.RunStopped) -> None:
    run.status = RunStatus.stopped
    run.stopped_by = body.limit


def _clock_jumped(run: RunState, body: e.ClockJumped) -> None:
    if run.deadline_at is not None:
        run.deadline_at += body.by_s
    for task_id in run.delayed:
        run.delayed[task_id] += body.by_s
    for task_id, not_before in run.parked.items():
        run.parked[task_id] = not_before + body.by_s if not_before else 0.0


def _run_finished(run: RunState, body: e.RunFinished) -> None:
    run.status = RunStatus.finished
    run.questions.clear()


def _run_measured(run: RunState, body: e.BenchMeasured) -> None:
    run.counts = plus(run.counts, body)


def _inputs_read(run: RunState, body: e.InputsRead) -> None:
    for row in body.rows:
        if row.index >= run.next_row:
            run.rows.append(row)
            run.next_row = row.index + 1


def _inputs_ended(run: RunState, body: e.InputsEnded) -> None:
    run.inputs_ended = True


def _step_unfolded(run: RunState, body: e.StepUnfolded) -> None:
    step = run.step(body.step)
    step.is_unfolded, step.level = True, body.level


def _step_grouped(run: RunState, body: e.StepGrouped) -> None:
    step = run.step(body.step)
    if body.level == len(step.levels):
        step.levels.append(body.spans)
        step.is_unfolded = False


def _step_skipped(run: RunState, body: e.StepSkipped) -> None:
    step = run.step(body.step)
    step.is_unfolded, step.skipped = True, body.reason


def _task_queued(run: RunState, body: e.TaskQueued) -> None:
    if body.task in run.tasks:
        return
    step, row = run.step(body.step), _row_of(run, body)
    run.tasks[body.task] = task = TaskState(
        id=body.task,
        step=step.id,
        path=row.id if body.path == row.id else body.path,
        index=row.index,
        row_id=row.id,
        order=len(run.tasks),
        item=row.item,
        input=row.item if body.input == row.item else body.input,
        error=None if body.error is None else ("row", body.error),
        is_batch=body.is_batch,
        matrix=body.matrix or None,
        level=body.level,
        span=body.span,
        label=body.label,
        part_of=body.part_of,
    )
    step.tasks.append(task)
    step.live += 1
    run.live += 1
    enqueue(run, task)


def _row_of(run: RunState, body: e.TaskQueued) -> e.InputRow | e.TaskQueued:
    """The row that the task was made from, if it says the same as `body`: a log that is read holds such texts twice."""
    if 0 <= body.index < len(run.rows):
        row = run.rows[body.index]
        if (row.index, row.id, row.item) == (body.index, body.id, body.item):
            return row
    return body


def _attempt_superseded(run: RunState, body: e.AttemptSuperseded) -> None:
    run.spent_tokens += body.tok_in + body.tok_out


_NODE: dict[type, Callable[[View, Any], None]] = {
    e.NodeStarted: _node_started,
    e.NodeStopped: _node_stopped,
    e.BenchStarted: _bench_started,
    e.BenchExited: _bench_exited,
    e.BenchMeasured: _bench_measured,
}
_RUN: dict[type, Callable[[RunState, Any], None]] = {
    e.RunResumed: _run_resumed,
    e.RunInterrupted: _run_interrupted,
    e.RunCancelled: _run_cancelled,
    e.RunPaused: _run_paused,
    e.RunContinued: _run_continued,
    e.RunChanged: _run_changed,
    e.RunStopped: _run_stopped,
    e.RunFinished: _run_finished,
    e.ClockJumped: _clock_jumped,
    e.BenchMeasured: _run_measured,
    e.InputsRead: _inputs_read,
    e.InputsEnded: _inputs_ended,
    e.StepUnfolded: _step_unfolded,
    e.StepGrouped: _step_grouped,
    e.StepSkipped: _step_skipped,
    e.TaskQueued: _task_queued,
    e.AttemptSuperseded: _attempt_superseded,
    **STEERING,
    **RENTING,
}
