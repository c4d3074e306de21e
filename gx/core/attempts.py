"""What an event makes of a task that it is about: prepared, leased, lost, retried, ended.

The tasks' part of the fold, which has made sure that the attempt is the task's own and that the task has not ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gx.core import event as e
from gx.core.queues import enqueue, leave_queues
from gx.core.renting import call_made
from gx.core.task import Status
from gx.core.view import LeftOut, RunState, TaskState


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


ATTEMPTS: dict[type, Callable[[RunState, TaskState, Any], None]] = {
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
"""Whom the fold asks, by the kind of event."""
