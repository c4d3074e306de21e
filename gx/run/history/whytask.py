"""Why a task has the state that it has: from events to sentences, and from nothing else.

Pure, as `gx.run.history.why` is. There is a sentence for each status, with the figures that it rests on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gx.core import event as e
from gx.core.event import Event
from gx.core.task import Status
from gx.core.view import RunState, RunStatus, TaskState
from gx.core.words import counted
from gx.run.history.telling import Benches, by, clock, cut, told
from gx.run.history.why import Figures, Why, benches_of, bodies_of, folded, lines_of, standing


class _Known(NamedTuple):
    """What the sentences about one task rest on."""

    task: TaskState
    own: list[Event]
    run: RunState
    events: Sequence[Event]
    figures: Figures
    benches: Benches


def of_task(task: str, events: Sequence[Event], figures: Figures) -> Why:
    """Why the task has its state. `events` hold its own, its run's, those of benches, and those of the task whose
    result it has or waits for.
    """
    own = [event for event in events if getattr(event.body, "task", None) == task]
    queued = next(event.body for event in own if isinstance(event.body, e.TaskQueued))
    run = folded(queued.run, [ev for ev in events if getattr(ev.body, "task", task) == task])
    known = _Known(run.tasks[task], own, run, events, figures, benches_of(events))
    others = (e.BenchExited, e.RunPaused, e.RunContinued, e.RunStopped, e.RunInterrupted, e.RunCancelled)
    first, last = own[0].seq, own[-1].seq
    is_over = known.task.status.is_terminal
    around = [
        event
        for event in events
        if isinstance(event.body, others) and event.seq > first and not (is_over and event.seq > last)
        if getattr(event.body, "run", queued.run) == queued.run
    ]
    return Why(
        kind="task",
        subject=task,
        run=queued.run,
        status=known.task.status.value,
        answer=_ANSWERS[known.task.status](known),
        lines=lines_of(sorted([*own, *around], key=lambda event: event.seq), known.benches, subject=task),
    )


def _succeeded(known: _Known) -> str:
    done = next(b for b in bodies_of(known.own, e.TaskSucceeded) if b.attempt == known.task.attempt)
    if done.cached is None:
        return f"It succeeded at attempt {done.attempt}{_setbacks(known)}{cut(done)}."
    other = next((b for b in bodies_of(known.events, e.TaskQueued) if b.task == done.cached), None)
    at = next((ev.ts for ev in known.events if isinstance(ev.body, e.TaskSucceeded) and ev.body.task == done.cached), 0)
    place = "" if other is None else f" (row {other.id} of step {other.step}, {_run_of(other, known.run)})"
    when = f" at {clock(at / 1e6)}" if at else ""
    return (
        f"It was answered from the result that task {done.cached}{place} got{when}. Both have the same key, that is "
        f"the same model, messages, sampling, seed and schema: it was computed once, and cost nothing more{cut(done)}."
    )


def _run_of(other: e.TaskQueued, run: RunState) -> str:
    return "of the same run" if other.run == run.id else f"run {other.run}"


def _failed(known: _Known) -> str:
    code, message = known.task.error or ("", "")
    if not any(isinstance(event.body, e.TaskLeased) for event in known.own):
        what = "Its row can't be used" if code == "row" else "It could not be prepared, so no model was asked"
        return f"{what}: {message} ({code})."
    tries = known.task.failures
    if code == "crashed":
        return f"It failed: {message}."
    again = "no further attempt was due: its step's retries were used up, or such a failure is not tried again"
    return f"It failed with {code}: {message}. {counted(tries, 'attempt')} failed, and {again}."


def _cancelled(known: _Known) -> str:
    body = bodies_of(known.own, e.TaskCancelled)[-1]
    return f"It was cancelled{by(body)}: {body.reason}."


def _skipped(known: _Known) -> str:
    reason = bodies_of(known.own, e.TaskSkipped)[-1].reason
    condition = reason.removeprefix("when: ")
    if condition == reason:
        return f"It was skipped: {reason}."
    return f"It was skipped: the `when` of step {known.task.step} was false for it: {condition}."


def _leased(known: _Known) -> str:
    leased = [event for event in known.own if isinstance(event.body, e.TaskLeased)][-1]
    words = told(leased.body, leased.ts, known.benches)
    return f"It runs: {words}{_setbacks(known)}. {counted(known.figures.running, 'task')} of its run run now."


def _prepared(known: _Known) -> str:
    task, figures = known.task, known.figures
    if (not_before := known.run.delayed.get(task.id)) is not None:
        code, message = task.error or ("", "")
        last = f"the last one failed with {code}: {message}"
        return f"It waits for its next attempt, not before {clock(not_before)}: {last}."
    if task.id in known.run.suspects:
        return f"It waits until nothing else runs: it was lost {counted(task.losses, 'time')}, so it runs alone next."
    if (leader := _leader(known)) is not None:
        return f"It waits for the result of task {leader}, whose key is equal: only one of them is computed."
    if (stop := _standing(known)) is not None:
        return f"It is prepared and doesn't begin{_setbacks(known)}, since its run doesn't go on: {stop}"
    return (
        f"It is prepared and waits for a slot{_setbacks(known)}: {figures.running:,} of its run run now, and "
        f"{counted(figures.ahead, 'task')} that were queued before it haven't ended. {_slots(known)}"
    ).rstrip()


def _queued(known: _Known) -> str:
    figures = known.figures
    if (stop := _standing(known)) is not None:
        return f"It is queued, and its run doesn't go on: {stop}"
    return (
        f"It is queued: {counted(figures.ahead, 'task')} of its run that were queued before it haven't ended; "
        f"{figures.running:,} of its run run now, {figures.prepared:,} are prepared. {_slots(known)}"
    ).rstrip()


_ANSWERS: dict[Status, Callable[[_Known], str]] = {
    Status.queued: _queued,
    Status.prepared: _prepared,
    Status.leased: _leased,
    Status.waiting: _prepared,
    Status.succeeded: _succeeded,
    Status.failed: _failed,
    Status.cancelled: _cancelled,
    Status.skipped: _skipped,
}


def _setbacks(known: _Known) -> str:
    """What went wrong before: `, after 1 failure (timeout) and 2 losses`."""
    failures, losses = bodies_of(known.own, e.AttemptFailed), bodies_of(known.own, e.AttemptLost)
    parts = []
    if failures:
        parts.append(f"{counted(len(failures), 'failure')} ({', '.join(dict.fromkeys(b.code for b in failures))})")
    if losses:
        parts.append(f"{counted(len(losses), 'lost attempt')} ({', '.join(dict.fromkeys(b.reason for b in losses))})")
    return f", after {' and '.join(parts)}" if parts else ""


def _leader(known: _Known) -> str | None:
    """The task of an equal key that was prepared first, if it has not ended and is another one."""
    same = [b.task for b in bodies_of(known.events, e.TaskPrepared) if b.key == known.task.key]
    ended = {getattr(ev.body, "task", "") for ev in known.events if isinstance(ev.body, _ENDS)}
    first = next((task for task in same if task not in ended), None)
    return None if first == known.task.id else first


_ENDS = (e.TaskSucceeded, e.TaskFailed, e.TaskCancelled, e.TaskSkipped)


def _slots(known: _Known) -> str:
    if not known.benches:
        return ""
    bench = list(known.benches.values())[-1]
    return f"The bench has {counted(bench.slots, 'slot')}. "


def _standing(known: _Known) -> str | None:
    """Why nothing of its run goes on; `None` if it does."""
    is_going = known.run.status is RunStatus.running and not known.run.is_paused
    return None if is_going else standing(known.run, known.events, known.figures)
