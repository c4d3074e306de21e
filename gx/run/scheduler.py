"""What a run does next, as a pure function of the view, of what this process holds beside it, and of the time.

`advance` says whether the run ends, stops, or goes on, and which tasks are prepared; `decide` grants leases. They
change nothing: the dispatcher commits the events and does the rest, and only the fold acts on what was committed. What
follows from a worker's word is in `gx.run.outcomes`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import chain, islice
from typing import NamedTuple

from gx.core import event as e
from gx.core.ids import mix_seed
from gx.core.message import Label, Turn
from gx.core.ports import AttemptEnded, WorkerEvent
from gx.core.task import CloudLease, Lease, Status
from gx.core.view import RunState, TaskState
from gx.flow import graph
from gx.flow.plan import Plan
from gx.run.egress import PrivateTurn

CLOCK_JUMP_S = 5.0
"""A smaller step of the wall clock is taken for drift: time servers slew by less."""
HANG_GRACE_S = 10.0
"""How long after its time an attempt may take to end before its worker is taken for hung."""
PREPARE_BATCH = 256
"""Tasks prepared between two commits."""
LEASES_BEFORE_WORKER = 2
"""What a worker is taken to hold until there is one, so that the first turns are at hand when it comes."""
WATCH_EVERY_S = 2.0
"""How often attempts that run are compared with their time-outs."""

LastWord = e.RunInterrupted | e.RunStopped | e.RunCancelled


class Moment(NamedTuple):
    """The time, by the wall for what stands in the log, and by the monotonic clock for what this process does."""

    wall: float
    monotonic: float


class Begun(NamedTuple):
    """Since when, as a monotonic instant, a bench computes an attempt of a task."""

    attempt: int
    monotonic: float


class Held(NamedTuple):
    """What this process holds of a run beside its state.

    `at_hand` are the tasks whose turn is there, `begun_at` those that a bench computes.
    `draining` is the run's last word, once what is leased has ended; `None` as long as it goes on. A run that
    `is_held_up` gets nothing new: its client leaves its results untaken or is gone, somebody paused it, or a person is
    asked.
    What came `home` from containers is for this machine alone.
    """

    at_hand: Collection[str]
    begun_at: Mapping[str, Begun]
    draining: LastWord | None
    draining_since: float
    is_held_up: bool
    home: Collection[str] = ()


class Move(NamedTuple):
    """What a run does next. `last` ends it, and is all that it commits; `stop` is a limit that it has reached just now.

    `is_cut_off` says that what is leased must be cancelled, `hung` why the worker is to be restarted (empty if not).
    `prepare` are the tasks to prepare. Where it `wants_worker`, there is something to run, and where it `may_grant`,
    leases may be granted.
    """

    last: e.Body | None = None
    stop: e.RunStopped | None = None
    is_cut_off: bool = False
    hung: str = ""
    prepare: Collection[str] = ()
    wants_worker: bool = False
    may_grant: bool = False


def advance(
    plan: Plan, run: RunState, held: Held, at: Moment, *, leases: int | None, before: Collection[e.Body]
) -> Move:
    """The next move of a run. `leases` is what the worker holds, `None` without one.

    `before` are the events that are to be committed first; a run ends only when there are none, since they may change
    what is left to do.
    """
    if not before and is_done(plan, run):
        return Move(last=finish(run))
    stop = limit(run, at.wall, before) if held.draining is None else None
    if stop is not None:
        held = held._replace(draining=stop, draining_since=at.monotonic)
    hung = "" if leases is None else overdue(plan, run, held, at.monotonic)
    if held.draining is not None:
        is_cut_off = stop is not None and stop.limit == "deadline"
        last = held.draining if not before and not run.leased else None
        return Move(last=last, stop=stop, is_cut_off=is_cut_off, hung=hung)
    return Move(
        hung=hung,
        prepare=() if held.is_held_up else next_to_prepare(run, held, at.wall, leases or LEASES_BEFORE_WORKER),
        wants_worker=bool(run.ready or run.delayed or run.suspects),
        may_grant=not held.is_held_up,
    )


# ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────


def decide(
    run: RunState,
    now: float,
    *,
    worker: str,
    lease: Lease | None,
    free: int,
    at_hand: Collection[str],
    is_alone: bool = True,
) -> list[e.Body]:
    """The leases to grant now: at most `free`, and only to tasks whose turn is `at_hand`.

    A task that was lost too often runs alone: it waits until nothing runs, also of other runs (`is_alone`), and nothing
    is granted beside it.
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
    if is_alone and not chosen and not run.leased:
        chosen = [run.tasks[task_id] for task_id in run.suspects if task_id in at_hand][:1]
        alone = True
    return [
        e.TaskLeased(run=run.id, task=task.id, attempt=task.attempt, worker=worker, lease=lease, alone=alone)
        for task in chosen
    ]


def wants_to_be_alone(run: RunState, now: float, at_hand: Collection[str]) -> bool:
    """Whether what the run would be granted next is a task that runs alone, whose turn is `at_hand`."""
    if run.leased or run.ready or due(run, now):
        return False
    return any(task in at_hand for task in run.suspects)


def may_travel(run: RunState, task_id: str, at_hand: Mapping[str, Turn]) -> bool:
    """Whether a task may leave this machine: nothing private is in it, nor in its turn, where that is `at_hand`.

    Of one that is not prepared it is known only whether its step or agent is private.
    """
    return run.tasks[task_id].label is Label.shared and not isinstance(at_hand.get(task_id), PrivateTurn)


def due(run: RunState, now: float) -> list[str]:
    """The delayed tasks that may run by now."""
    return [task_id for task_id, not_before in run.delayed.items() if not_before <= now]


def next_due(run: RunState) -> float | None:
    """The first instant at which a delayed task may run; `None` if none waits."""
    return min(run.delayed.values(), default=None)


def free_leases(leases: int, runs: Iterable[RunState], ended: Iterable[WorkerEvent]) -> int:
    """How many of the leases of this machine's worker may be granted.

    Those whose end is about to be committed count as free, and those of containers not at all.
    """
    settled = sum(isinstance(event, AttemptEnded) for event in ended)
    return leases - sum(len(run.leased) - rented(run) for run in runs) + settled


def rented(run: RunState) -> int:
    """How many of the run's leases are those of containers."""
    return 0 if run.rent is None else sum(isinstance(task.lease, CloudLease) for task in run.leased.values())


def turn_of(task: TaskState, leased: e.TaskLeased, turn: Turn) -> Turn | None:
    """The turn to submit for a lease; `None` if something that was committed with the lease ended the task."""
    if task.lease is not leased.lease or task.attempt != leased.attempt:
        return None
    return own_turn(task, turn)


def own_turn(task: TaskState, turn: Turn) -> Turn:
    """The turn of the task's present attempt.

    A retry's seed mixes in how often the task failed, or it would fail alike.
    """
    if turn.attempt == task.attempt and not task.failures:
        return turn
    return turn.for_attempt(task.attempt, mix_seed(turn.sampling.seed, task.failures))


def overdue(plan: Plan, run: RunState, held: Held, monotonic: float) -> str:
    """Why the worker must be taken for hung: an attempt in it outlived its time-out, or its cancellation. Else empty.

    A time-out counts from when the bench began an attempt: before, it waits for a slot or a model, however long, and so
    it does between two fields of a choice.
    A bench ends what is late itself: one that takes twice the time and a grace does nothing any more.
    """
    for task_id, begun in held.begun_at.items():
        task = run.leased.get(task_id)
        timeout_s = None if task is None else plan.step(task.step).step.timeout_s
        if task is None or task.attempt != begun.attempt or timeout_s is None:
            continue
        if (took_s := monotonic - begun.monotonic) > 2 * timeout_s + HANG_GRACE_S:
            return f"an attempt with a time-out of {timeout_s:g} s did not end in {took_s:.0f} s"
    is_cancelled = isinstance(held.draining, e.RunStopped) and held.draining.limit == "deadline"
    if is_cancelled and run.leased and monotonic > held.draining_since + HANG_GRACE_S:
        return "cancelled attempts did not end"
    return ""


# ── preparing ────────────────────────────────────────────────────────────────────────────────────────────────────


def next_to_prepare(run: RunState, held: Held, now: float, leases: int) -> list[str]:
    """Which tasks to prepare now, so that the window of what may run stays full and no fuller.

    Tasks that may run and whose turns are not at hand (after a restart, a back-off, or the end of a leader) come
    first; then queued ones, in order. What came home takes no room from what containers may have.
    """
    window = max(4 * leases, 64) + sum(task_id in run.ready for task_id in held.home)
    runnable = (*run.suspects, *due(run, now), *islice(run.ready, window))
    chosen = [task_id for task_id in runnable if task_id not in held.at_hand][:PREPARE_BATCH]
    room = min(window - len(run.ready), PREPARE_BATCH) - len(chosen)
    if room > 0:
        chosen.extend(islice(run.unprepared, room))
    return chosen


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def clock_jump(before: Moment, at: Moment) -> float | None:
    """How far the wall clock moved beside the time that passed; `None` for the usual drift."""
    by_s = (at.wall - at.monotonic) - (before.wall - before.monotonic)
    return by_s if abs(by_s) > CLOCK_JUMP_S else None


def next_instant(run: RunState, held: Held, now: float) -> float | None:
    """The next instant at which time alone changes what the run does; `None` if none is known."""
    is_watched = bool(held.begun_at) or (held.draining is not None and bool(run.leased))
    instants = [now + WATCH_EVERY_S] if is_watched else []
    if held.draining is None:
        instants.extend(at for at in run.delayed.values() if at > now)  # those that are due wait for room
        instants.extend(() if run.deadline_at is None else (run.deadline_at,))
    return min(instants, default=None)


# ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def is_done(plan: Plan, run: RunState) -> bool:
    """Whether nothing more can come of the run: its input is read, where it takes one, and every step is complete."""
    return (run.inputs_ended or not plan.reads_inputs) and graph.is_finished(plan, run)


def limit(run: RunState, now: float, unfolded: Iterable[e.Body] = ()) -> e.RunStopped | None:
    """The limit that the run has reached, with what `unfolded` events, about to be committed, say was spent.

    That a rule or a person wants it stopped is one too.
    """
    if run.stop_asked is not None:
        by = f" (asked by {run.stop_asked.by})" if run.stop_asked.by else ""
        return e.RunStopped(run=run.id, limit="rule", reason=run.stop_asked.reason + by)
    if run.deadline_at is not None and now >= run.deadline_at:
        return e.RunStopped(run=run.id, limit="deadline", reason="the deadline passed")
    if (rent := run.rent) is not None and rent.capped is not None and rent.capped.then == "stop":
        gone = f"${rent.capped.usd:.4f} of ${rent.capped.cap_usd:.4f} are spent"
        reason = f"the cap is reached: {gone}, and a container more could cost ${rent.capped.reserve_usd:.4f}"
        return e.RunStopped(run=run.id, limit="cap", reason=reason)
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
