"""What follows from a worker's last word: a result, a retry, a failure, or a lease that is void.

`settle` follows an attempt that ended, `bench_up` and `bench_down` a bench, `recover` a node, `cancel` somebody's wish.
They return events and change nothing: the dispatcher commits the events, and only the fold acts on them.

Retries back off exponentially with jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/);
the jitter is drawn from the task's id, so that a replay decides the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from gx.core import event as e
from gx.core.ids import digest
from gx.core.message import Answer, Calls, Failure, Outcome
from gx.core.ports import AttemptEnded, AttemptGone, BenchDown, BenchUp
from gx.core.recipe import Retry
from gx.core.task import CloudLease, EdgeLease, Lease, Status
from gx.core.view import RunState, TaskState

LOSSES_ALONE_BEFORE_FAILED = 2
"""A task that was lost alone this often fails as `crashed` (DESIGN §3)."""
MOST_LOSSES = 6
"""And one that runs alone and was lost this often, be it beside questions that nobody holds back."""


def content_of(outcome: Outcome) -> bytes | None:
    """What is to be kept of an outcome beside its event: an answer, or a failure's detail; `None` if nothing is."""
    if isinstance(outcome, Answer):
        return bytes(outcome.value)
    return outcome.detail.encode() or None if isinstance(outcome, Failure) else None


def is_stale(run: RunState, ended: AttemptEnded) -> bool:
    """Whether a worker speaks of an attempt that counts no more."""
    task = run.tasks[ended.task]
    return task.status is not Status.leased or ended.attempt != task.attempt


def is_end(run: RunState, body: e.Body) -> bool:
    """Whether the fold, as it stands, will end a task by that event: not where it has ended, or by a stale attempt."""
    if not isinstance(body, e.TaskSucceeded | e.TaskFailed | e.TaskCancelled | e.TaskSkipped):
        return False
    task = run.tasks.get(body.task)
    return task is not None and not task.status.is_terminal and body.attempt == task.attempt


def settle(
    run: RunState,
    ended: AttemptEnded,
    now: float,
    *,
    worker: str,
    retry: Retry,
    kept: e.Ref | None,
    told: e.Ref | None = None,
    max_tokens: int | None = None,
) -> list[e.Body]:
    """What follows from a worker's last word on an attempt. `kept` is where its `content_of` was put.

    `told` is where its likelihoods were put, `max_tokens` what the attempt might have written.
    """
    task, outcome = run.tasks[ended.task], ended.outcome
    usage = outcome.usage
    if is_stale(run, ended):
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
    if isinstance(outcome, Answer) and kept is not None:
        is_short = max_tokens is not None and usage.tokens_out < max_tokens
        finish = "context" if outcome.finish == "length" and is_short else outcome.finish
        return [
            e.TaskSucceeded(
                run=run.id,
                task=task.id,
                attempt=task.attempt,
                key=task.key or "",
                output=kept,
                worker=worker,
                ms=ended.ms,
                tok_in=usage.tokens_in,
                tok_out=usage.tokens_out,
                tok_cached=usage.tokens_cached,
                finish=finish,
                likelihoods=told,
            ),
            *_followers(run, task, Known(task.id, kept, finish, told)),
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
        detail=kept,
        ms=ended.ms,
        tok_in=usage.tokens_in,
        tok_out=usage.tokens_out,
    )
    if failure.retryable and task.failures < retry.limit:
        wait = _backoff(retry, task.failures + 1, f"{task.id}/{task.attempt}")
        return [failed, e.TaskRetried(run=run.id, task=task.id, attempt=task.attempt, not_before=now + wait)]
    return [failed, _failed(run, task, failure.code, failure.message)]


def _followers(run: RunState, leader: TaskState, known: Known) -> list[e.Body]:
    """Tasks with an equal key have their result with the leader's."""
    waiting = (run.tasks[task_id] for task_id in run.followers.get(leader.id, ()))
    live = [task for task in waiting if not task.status.is_terminal]
    return [answered(run, task, leader.key or "", known) for task in live]


class Known(NamedTuple):
    """A result that is there already: the task that has it, its output, how it ended, and how likely it was."""

    task: str
    output: e.Ref
    finish: str = "stop"
    likelihoods: e.Ref | None = None


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
        likelihoods=known.likelihoods,
    )


def _backoff(retry: Retry, failures: int, salt: str) -> float:
    wait = min(retry.max_backoff_s, retry.backoff_s * 2.0 ** min(failures - 1, 32))
    return wait * (0.5 + int(digest(salt.encode())[:8], 16) / 0xFFFFFFFF)


def _failed(run: RunState, task: TaskState, code: str, message: str) -> e.TaskFailed:
    return e.TaskFailed(run=run.id, task=task.id, attempt=task.attempt, code=code, message=message)


# ── benches and nodes ────────────────────────────────────────────────────────────────────────────────────────────


def bench_up(event: BenchUp, *, worker: str, epoch: int) -> e.BenchStarted:
    """A bench that is ready, as the log has it."""
    return e.BenchStarted(
        worker=worker,
        epoch=epoch,
        incarnation=event.incarnation,
        pid=event.pid,
        slots=event.slots,
        engine=event.engine,
    )


def bench_down(
    event: BenchDown, runs: Iterable[RunState], *, worker: str, epoch: int, hung: Collection[int]
) -> list[e.Body]:
    """A bench that ended, and the leases that were bound to it.

    Its tasks are suspects, unless it was told to end for another reason than that it `hung` (by incarnations).
    """
    ended = e.BenchExited(worker=worker, epoch=epoch, incarnation=event.incarnation, reason=event.reason)
    lease = EdgeLease(epoch=epoch, incarnation=event.incarnation)
    is_suspect = not event.is_expected or event.incarnation in hung
    lost = (
        lose(
            run,
            worker=worker,
            lease=lease,
            reason=event.reason,
            is_suspect=is_suspect,
            had_company=event.had_questions,
        )
        for run in runs
    )
    return [ended, *(body for bodies in lost for body in bodies)]


def lose(
    run: RunState, *, worker: str, lease: Lease, reason: str, is_suspect: bool, had_company: bool = False
) -> list[e.Body]:
    """The leases bound to a bench that ended. A task that was lost alone too often fails as `crashed`.

    With company that has no lease, nobody was alone; but a task whose bench died so often is to blame all the same.
    """
    made: list[e.Body] = []
    for task in run.leased.values():
        if task.lease != lease:
            continue
        alone = task.is_alone and not had_company
        is_to_blame = alone and task.losses_alone + 1 >= LOSSES_ALONE_BEFORE_FAILED
        if is_suspect and (is_to_blame or (task.is_alone and task.losses + 1 >= MOST_LOSSES)):
            message = f"the bench died each time it ran this task, {task.losses + 1} times in all; last: {reason}"
            made.append(_failed(run, task, "crashed", message))
        else:
            made.append(_lost(run, task, worker, reason, is_suspect, had_company=had_company))
    return made


def gone(run: RunState, event: AttemptGone, *, worker: str) -> list[e.Body]:
    """An attempt that will have no outcome. One that was lost alone too often fails as `crashed`."""
    task = run.leased.get(event.task)
    if task is None or task.attempt != event.attempt:
        return []
    if event.is_suspect and event.alone and task.losses_alone + 1 >= LOSSES_ALONE_BEFORE_FAILED:
        message = f"a bench died each time it ran this task, {task.losses + 1} times in all; last: {event.reason}"
        return [_failed(run, task, "crashed", message)]
    return [
        e.AttemptLost(
            run=run.id,
            task=task.id,
            attempt=task.attempt,
            worker=worker,
            reason=event.reason,
            is_suspect=event.is_suspect,
            alone=event.alone,
        )
    ]


def lose_rented(run: RunState, reason: str, *, worker: str) -> list[e.Body]:
    """What containers had, when nobody can ask them any more: it runs anew, and costs no retry."""
    rented = (task for task in run.leased.values() if isinstance(task.lease, CloudLease))
    return [_lost(run, task, worker, reason, False) for task in rented]


def recover(run: RunState, *, epoch: int) -> list[e.Body]:
    """The leases that an earlier owner of the workspace left behind: void, and nobody's fault."""
    stale = (t for t in run.leased.values() if isinstance(t.lease, EdgeLease) and t.lease.epoch < epoch)
    return [_lost(run, task, task.worker or "", "its node ended", False) for task in stale]


def take_back(run: RunState, tasks: Iterable[TaskState], by: str) -> list[e.Body]:
    """Leases that somebody wants void: nobody's fault, and what they may say yet counts no more."""
    return [_lost(run, task, task.worker or "", f"taken back by {by or 'somebody'}", False) for task in tasks]


def give_up(run: RunState, tasks: Iterable[TaskState]) -> list[e.Body]:
    """Leases of a run that somebody ended: no worker is to begin them."""
    return [_lost(run, task, task.worker or "", "its run was given up", False) for task in tasks]


def _lost(
    run: RunState, task: TaskState, worker: str, reason: str, is_suspect: bool, *, had_company: bool = False
) -> e.AttemptLost:
    return e.AttemptLost(
        run=run.id,
        task=task.id,
        attempt=task.attempt,
        worker=worker,
        reason=reason,
        is_suspect=is_suspect,
        alone=task.is_alone and not had_company,
    )


def cancel(run: RunState, reason: str, *, by: str = "", tasks: Iterable[TaskState] | None = None) -> list[e.Body]:
    """Tasks that have not ended, ended at somebody's wish: all, or some with the parts of their prompts."""
    names = {task.id for task in (run.tasks.values() if tasks is None else tasks)}
    meant = (task for task in run.tasks.values() if task.id in names or task.part_of in names)
    live = (task for task in meant if not task.status.is_terminal)
    return [e.TaskCancelled(run=run.id, task=t.id, attempt=t.attempt, reason=reason, by=by) for t in live]
