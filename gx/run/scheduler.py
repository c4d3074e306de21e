"""What happens next, as a pure function of the view and the time.

`decide` grants leases; `settle` says what follows from a worker's last word; `lose` voids the leases of a bench that
ended, `recover` those of a node that ended; `limit` and `finish` end a run. They return events and change nothing: the
dispatcher commits the events, and only the fold acts on them.

Retries back off exponentially with jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/);
the jitter is drawn from the task's id, so that a replay decides the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain
from typing import NamedTuple

from gx.core import event as e
from gx.core.ids import digest
from gx.core.message import Answer, Calls, Failure
from gx.core.ports import AttemptEnded
from gx.core.recipe import Retry
from gx.core.task import EdgeLease, Lease, Status
from gx.core.view import RunState, TaskState

LOSSES_ALONE_BEFORE_FAILED = 2
"""A task that was lost alone this often fails as `crashed` (DESIGN §3)."""


def decide(
    run: RunState, now: float, *, worker: str, lease: Lease | None, free: int, at_hand: Collection[str]
) -> list[e.Body]:
    """The leases to grant now: at most `free`, and only to tasks whose turn is `at_hand`.

    A task that was lost too often runs alone: it waits until nothing runs, and nothing is granted beside it.
    """
    if lease is None or free <= 0 or any(task.is_alone for task in run.leased.values()):
        return []
    chosen: list[TaskState] = []
    for task_id in chain(due(run, now), run.ready):
        if task_id in at_hand:
            chosen.append(run.tasks[task_id])
            if len(chosen) == free:
                break
    alone = False
    if not chosen and not run.leased:
        chosen = [run.tasks[task_id] for task_id in run.suspects if task_id in at_hand][:1]
        alone = True
    return [
        e.TaskLeased(run=run.id, task=task.id, attempt=task.attempt, worker=worker, lease=lease, alone=alone)
        for task in chosen
    ]


def due(run: RunState, now: float) -> list[str]:
    """The delayed tasks that may run by now."""
    return [task_id for task_id, not_before in run.delayed.items() if not_before <= now]


def next_due(run: RunState) -> float | None:
    """The first instant at which a delayed task may run; `None` if none waits."""
    return min(run.delayed.values(), default=None)


def settle(
    run: RunState,
    ended: AttemptEnded,
    now: float,
    *,
    worker: str,
    retry: Retry,
    output: e.Ref | None,
    detail: e.Ref | None,
    max_tokens: int | None = None,
) -> list[e.Body]:
    """What follows from a worker's last word on an attempt, given where its answer or failure detail was put.

    `max_tokens` is what the attempt might have written.
    """
    task, outcome = run.tasks[ended.task], ended.outcome
    usage = outcome.usage
    if task.status is not Status.leased or ended.attempt != task.attempt:
        return [
            e.AttemptSuperseded(
                run=run.id,
                task=task.id,
                attempt=ended.attempt,
                worker=worker,
                outcome=outcome.code if isinstance(outcome, Failure) else "answer",
                ms=ended.ms,
                tok_in=usage.tokens_in,
                tok_out=usage.tokens_out,
            )
        ]
    if isinstance(outcome, Answer) and output is not None:
        is_short = max_tokens is not None and usage.tokens_out < max_tokens
        finish = "context" if outcome.finish == "length" and is_short else outcome.finish
        return [
            e.TaskSucceeded(
                run=run.id,
                task=task.id,
                attempt=task.attempt,
                key=task.key or "",
                output=output,
                worker=worker,
                ms=ended.ms,
                tok_in=usage.tokens_in,
                tok_out=usage.tokens_out,
                tok_cached=usage.tokens_cached,
                finish=finish,
            ),
            *_followers(run, task, output, finish),
        ]
    if isinstance(outcome, Failure) and outcome.code == "cancelled":
        return [_lost(run, task, worker, outcome.message, is_suspect=False)]
    if isinstance(outcome, Failure):
        failure = outcome
    else:
        asked = ", ".join(call.tool for call in outcome.calls) if isinstance(outcome, Calls) else "nothing"
        failure = Failure(code="unsupported", message=f"the model asked for calls ({asked})", retryable=False)
    failed = e.AttemptFailed(
        run=run.id,
        task=task.id,
        attempt=task.attempt,
        worker=worker,
        code=failure.code,
        message=failure.message,
        detail=detail,
        ms=ended.ms,
        tok_in=usage.tokens_in,
        tok_out=usage.tokens_out,
    )
    if failure.retryable and task.failures < retry.limit:
        wait = _backoff(retry, task.failures + 1, f"{task.id}/{task.attempt}")
        return [failed, e.TaskRetried(run=run.id, task=task.id, attempt=task.attempt, not_before=now + wait)]
    return [failed, _failed(run, task, failure.code, failure.message)]


def _followers(run: RunState, leader: TaskState, output: e.Ref, finish: str) -> list[e.Body]:
    """Tasks with an equal key have their result with the leader's."""
    waiting = (run.tasks[task_id] for task_id in run.followers.get(leader.id, ()))
    live = [task for task in waiting if not task.status.is_terminal]
    return [answered(run, task, leader.key or "", Known(leader.id, output, finish)) for task in live]


class Known(NamedTuple):
    """A result that is there already: the task that has it, its output, and how it ended."""

    task: str
    output: e.Ref
    finish: str = "stop"


def answered(run: RunState, task: TaskState, key: str, known: Known) -> e.TaskSucceeded:
    """A success that costs nothing: another task, of an equal key, has the result already."""
    return e.TaskSucceeded(
        run=run.id,
        task=task.id,
        attempt=task.attempt,
        key=key,
        output=known.output,
        cached=known.task,
        finish=known.finish,
    )


def _backoff(retry: Retry, failures: int, salt: str) -> float:
    wait = min(retry.max_backoff_s, retry.backoff_s * 2.0 ** min(failures - 1, 32))
    return wait * (0.5 + int(digest(salt.encode())[:8], 16) / 0xFFFFFFFF)


def _failed(run: RunState, task: TaskState, code: str, message: str) -> e.TaskFailed:
    return e.TaskFailed(run=run.id, task=task.id, attempt=task.attempt, code=code, message=message)


def lose(run: RunState, *, worker: str, lease: Lease, reason: str, is_suspect: bool) -> list[e.Body]:
    """The leases bound to a bench that ended. A task that was lost alone too often fails as `crashed`."""
    made: list[e.Body] = []
    for task in run.leased.values():
        if task.lease != lease:
            continue
        if is_suspect and task.is_alone and task.losses_alone + 1 >= LOSSES_ALONE_BEFORE_FAILED:
            message = f"the bench died each time it ran this task, {task.losses + 1} times in all; last: {reason}"
            made.append(_failed(run, task, "crashed", message))
        else:
            made.append(_lost(run, task, worker, reason, is_suspect))
    return made


def recover(run: RunState, *, epoch: int) -> list[e.Body]:
    """The leases that an earlier owner of the workspace left behind: void, and nobody's fault."""
    stale = (t for t in run.leased.values() if isinstance(t.lease, EdgeLease) and t.lease.epoch < epoch)
    return [_lost(run, task, task.worker or "", "its node ended", False) for task in stale]


def _lost(run: RunState, task: TaskState, worker: str, reason: str, is_suspect: bool) -> e.AttemptLost:
    return e.AttemptLost(
        run=run.id,
        task=task.id,
        attempt=task.attempt,
        worker=worker,
        reason=reason,
        is_suspect=is_suspect,
        alone=task.is_alone,
    )


def cancel(run: RunState, reason: str) -> list[e.Body]:
    """Everything that has not ended, ended at somebody's wish."""
    live = (task for task in run.tasks.values() if not task.status.is_terminal)
    return [e.TaskCancelled(run=run.id, task=task.id, attempt=task.attempt, reason=reason) for task in live]


def limit(run: RunState, now: float, unfolded: Iterable[e.Body] = ()) -> e.RunStopped | None:
    """The limit that the run has reached, with what `unfolded` events, about to be committed, say was spent."""
    if run.deadline_at is not None and now >= run.deadline_at:
        return e.RunStopped(run=run.id, limit="deadline", reason="the deadline passed")
    if run.budget_tokens is None:
        return None
    spending = (b for b in unfolded if isinstance(b, e.TaskSucceeded | e.AttemptFailed) and b.run == run.id)
    spent = run.spent_tokens + sum(body.tok_in + body.tok_out for body in spending)
    if spent >= run.budget_tokens:
        reason = f"{spent:,} of {run.budget_tokens:,} tokens are spent"
        return e.RunStopped(run=run.id, limit="budget", reason=reason)
    return None


def finish(run: RunState) -> e.RunFinished:
    """The last event of a run whose tasks have all ended."""
    return e.RunFinished(
        run=run.id,
        succeeded=run.count(Status.succeeded),
        failed=run.count(Status.failed),
        skipped=run.count(Status.skipped),
        cancelled=run.count(Status.cancelled),
    )
