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
from gx.core.figures import plus
from gx.core.message import Counts
from gx.core.queues import enqueue, leave_queues
from gx.core.renting import RENTING, call_made, rent_of
from gx.core.steering import STEERING
from gx.core.task import Status
from gx.core.view import BenchState, LeftOut, RunState, RunStatus, TaskState, View

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
    elif (apply_task := _TASK.get(kind)) is not None:
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


# ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _task_prepared(run: RunState, task: TaskState, body: e.TaskPrepared) -> None:
    """A task of a step that was routed since is prepared again, under another key."""
    if task.status in (Status.queued, Status.prepared):
        task.label = body.label
        task.found = task.found if body.found is None else body.found
        _shorten(run, task, body.shortened)
    is_again = task.status is Status.prepared and task.key not in (None, body.key)
    if task.status is not Status.queued and not is_again:
        return
    if is_again:
        _forget_key(run, task)
    leader = run.leaders.setdefault(body.key, task.id)
    if run.tasks[leader].status is Status.succeeded:
        if is_again:
            task.status = Status.queued
            enqueue(run, task)
        return  # its result came in the same commit: the task is prepared again, and finds it
    task.status, task.key = Status.prepared, body.key
    if leader == task.id:
        enqueue(run, task)
    else:
        leave_queues(run, task)
        run.followers.setdefault(leader, []).append(task.id)


def _shorten(run: RunState, task: TaskState, shortened: e.Shortened | None) -> None:
    """Note what was left out of a prompt; a task that is prepared again for another model counts again."""
    is_new = shortened is not None and shortened != task.shortened
    task.shortened = shortened
    if shortened is None or not is_new:
        return
    step = run.step(task.step)
    if step.left_out is None:
        step.left_out = LeftOut()
    total = step.left_out
    total.prompts += 1
    cut = [one for one in shortened.texts if not one.notes]
    total.of += sum(one.of for one in cut)
    total.parts += sum(one.of - sum(one.left_out) for one in cut)
    total.condensed += sum(len(one.notes) for one in shortened.texts)
    total.dropped, total.messages = total.dropped + shortened.dropped, total.messages + shortened.messages
    total.tokens, total.tokens_kept = total.tokens + shortened.tokens, total.tokens_kept + shortened.tokens_kept
    total.context_tokens = shortened.context_tokens
    total.without |= dict.fromkeys(shortened.without)


def _forget_key(run: RunState, task: TaskState) -> None:
    """Nobody waits for the task's result under its key any more, nor it for that of another."""
    leader = run.leaders.get(task.key or "")
    if leader == task.id:
        _promote(run, task)
    elif leader is not None and task.id in run.followers.get(leader, ()):
        run.followers[leader].remove(task.id)
    task.key = None


def _task_leased(run: RunState, task: TaskState, body: e.TaskLeased) -> None:
    task.status, task.worker, task.lease, task.is_alone = Status.leased, body.worker, body.lease, body.alone
    leave_queues(run, task)
    run.leased[task.id] = task


def _requeue(run: RunState, task: TaskState, not_before: float) -> None:
    run.leased.pop(task.id, None)
    task.status, task.worker, task.lease = Status.prepared, None, None
    enqueue(run, task, not_before)


def _attempt_lost(run: RunState, task: TaskState, body: e.AttemptLost) -> None:
    task.attempt += 1
    task.losses += body.is_suspect
    task.losses_alone += body.is_suspect and body.alone
    _requeue(run, task, 0.0)


def _attempt_failed(run: RunState, task: TaskState, body: e.AttemptFailed) -> None:
    run.leased.pop(task.id, None)
    task.status, task.worker, task.lease = Status.prepared, None, None
    task.failures += 1
    task.error = (body.code, body.message)
    _spend(run, task, body)


def _spend(run: RunState, task: TaskState, body: e.TaskSucceeded | e.AttemptFailed) -> None:
    task.tokens_in += body.tok_in
    task.tokens_out += body.tok_out
    task.ms += body.ms or 0.0
    run.tokens_in += body.tok_in
    run.tokens_out += body.tok_out
    run.spent_tokens += body.tok_in + body.tok_out


def _task_retried(run: RunState, task: TaskState, body: e.TaskRetried) -> None:
    task.attempt += 1
    _requeue(run, task, body.not_before)


def _end(run: RunState, task: TaskState, status: Status) -> None:
    step = run.step(task.step)
    run.leased.pop(task.id, None)
    leave_queues(run, task)
    task.status, task.worker, task.lease = status, None, None
    task.found = task.shortened = None
    step.live -= 1
    step.ended[status] = step.ended.get(status, 0) + 1
    run.live -= 1
    if status is Status.succeeded:
        _let_follow(run, task)
    elif task.key is not None and run.leaders.get(task.key) == task.id:
        _promote(run, task)


def _let_follow(run: RunState, leader: TaskState) -> None:
    """The tasks of an equal key needn't wait any more. Most end in the same batch; who doesn't is prepared anew."""
    for task_id in run.followers.pop(leader.id, ()):
        if not run.tasks[task_id].status.is_terminal:
            enqueue(run, run.tasks[task_id])


def _promote(run: RunState, leader: TaskState) -> None:
    """The leader of an equal key ended without a result: the next task of that key takes its place."""
    waiting = [task_id for task_id in run.followers.pop(leader.id, []) if not run.tasks[task_id].status.is_terminal]
    key = leader.key or ""
    if not waiting:
        run.leaders.pop(key, None)
        return
    first, rest = waiting[0], waiting[1:]
    run.leaders[key] = first
    enqueue(run, run.tasks[first])
    if rest:
        run.followers[first] = rest


def _task_succeeded(run: RunState, task: TaskState, body: e.TaskSucceeded) -> None:
    task.output, task.error, task.cached, task.finish = body.output, None, body.cached, body.finish
    task.likelihoods = body.likelihoods
    if task.key != body.key:
        task.key = body.key
    if body.cached is None:
        _spend(run, task, body)
    else:
        run.reused += 1
    run.leaders.setdefault(body.key, task.id)
    _end(run, task, Status.succeeded)


def _task_failed(run: RunState, task: TaskState, body: e.TaskFailed) -> None:
    task.error = (body.code, body.message)
    _end(run, task, Status.failed)


def _task_cancelled(run: RunState, task: TaskState, body: e.TaskCancelled) -> None:
    task.error = ("cancelled", body.reason)
    _end(run, task, Status.cancelled)


def _task_skipped(run: RunState, task: TaskState, body: e.TaskSkipped) -> None:
    task.error = ("skipped", body.reason)
    _end(run, task, Status.skipped)


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
_TASK: dict[type, Callable[[RunState, TaskState, Any], None]] = {
    e.TaskPrepared: _task_prepared,
    e.TaskLeased: _task_leased,
    e.CallMade: call_made,
    e.AttemptLost: _attempt_lost,
    e.AttemptFailed: _attempt_failed,
    e.TaskRetried: _task_retried,
    e.TaskSucceeded: _task_succeeded,
    e.TaskFailed: _task_failed,
    e.TaskCancelled: _task_cancelled,
    e.TaskSkipped: _task_skipped,
}
