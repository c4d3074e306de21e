"""Why a run or an event is as it is: from events to sentences, and from nothing else. `history.whytask` is for tasks.

Pure: who calls brings the events, in order, and the figures of the run at that moment. Other events may be among them;
each function takes those that it is about. What state follows from events, the fold says, here as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from gx.core import event as e
from gx.core.event import Event
from gx.core.message import Value
from gx.core.projection import fold
from gx.core.view import RunState, RunStatus, View
from gx.core.words import counted
from gx.run.history.telling import Benches, by, clock, told

T = TypeVar("T")


class Figures(Value, frozen=True, kw_only=True):
    """How many tasks of a run stood where at some moment, what was spent, and the codes of its failures.

    `ahead` are those that were queued before the task that is asked about and hadn't ended.
    """

    queued: int = 0
    prepared: int = 0
    running: int = 0
    ended: int = 0
    ahead: int = 0
    tokens: int = 0
    failures: dict[str, int] = {}

    @property
    def left(self) -> int:
        """Tasks that had not ended."""
        return self.queued + self.prepared + self.running


class Line(Value, frozen=True, kw_only=True):
    """One event in words; `at` is µs since 1970."""

    seq: int
    at: int
    text: str


class Why(Value, frozen=True, kw_only=True):
    """An answer: in a sentence or a few, and the events that it rests on."""

    kind: str
    subject: str
    run: str
    status: str
    answer: str
    lines: tuple[Line, ...]


# ── a run ────────────────────────────────────────────────────────────────────────────────────────────────────────


def of_run(run: str, events: Sequence[Event], figures: Figures) -> Why:
    """Why the run ended or stands as it does. `events` hold its own, but for those of its tasks, and those of nodes
    and benches.
    """
    state = folded(run, events)
    own = [event for event in events if getattr(event.body, "run", None) == run and not hasattr(event.body, "task")]
    first = own[0].seq if own else 0
    others = (e.NodeStarted, e.NodeStopped, e.BenchExited)
    last = own[-1].seq if state.status is not RunStatus.running else None
    around = [ev for ev in events if isinstance(ev.body, others) and ev.seq > first and (last is None or ev.seq < last)]
    shown = [event for event in own if not isinstance(event.body, e.BenchMeasured | e.InputsRead)]
    status = "paused" if state.is_paused and state.status is RunStatus.running else state.status.value
    return Why(
        kind="run",
        subject=run,
        run=run,
        status=status,
        answer=standing(state, events, figures),
        lines=lines_of(sorted([*shown, *around], key=lambda event: event.seq), benches_of(events)),
    )


def standing(state: RunState, events: Sequence[Event], figures: Figures) -> str:
    """Why a run stands as it does, in a sentence or two."""
    left = f"{counted(figures.left, 'task')} {'was' if figures.left == 1 else 'were'} left"
    bodies = [ev for ev in events if getattr(ev.body, "run", None) == state.id and not hasattr(ev.body, "task")]
    if state.status is RunStatus.stopped:
        why = bodies_of(bodies, e.RunStopped)[-1]
        if why.limit == "rule":
            return f"It was stopped by a rule: {why.reason}. {left}{_codes(figures)}."
        return f"It stopped at its {why.limit}: {_limit(why, state, figures)}. {left}{_codes(figures)}."
    if state.status is RunStatus.interrupted:
        cause = bodies_of(bodies, e.RunInterrupted)[-1]
        if state.questions:
            return f"It waits for a person{_asking(state)}. {left}{_codes(figures)}."
        return (
            f"It was interrupted{by(cause)}: {cause.reason}. {left}; `gx resume {state.id}` goes on{_codes(figures)}."
        )
    if state.status is RunStatus.cancelled:
        given_up = bodies_of(bodies, e.RunCancelled)[-1]
        return f"It was cancelled{by(given_up)}: {given_up.reason}. {left}{_codes(figures)}."
    if state.status is RunStatus.finished:
        return f"It {told(bodies_of(bodies, e.RunFinished)[-1], 0, {})}{_codes(figures)}."
    if state.is_paused:
        paused = [event for event in bodies if isinstance(event.body, e.RunPaused)][-1]
        return (
            f"It was paused{by(paused.body)} at {clock(paused.ts / 1e6)}; `gx resume {state.id}` lets it go on. {left}."
        )
    if state.questions:
        return f"It waits for a person{_asking(state)}. {left}{_codes(figures)}."
    last = max(ev.seq for ev in bodies)
    if any(isinstance(event.body, e.NodeStarted | e.NodeStopped) and event.seq > last for event in events):
        return f"It is neither over nor live: its node ended, and nobody came back for it. {left}."
    return (
        f"It is not over: {figures.running:,} of its tasks run, {figures.prepared:,} are prepared, {figures.queued:,} "
        f"queued, {figures.ended:,} ended{_codes(figures)}."
    )


def _asking(state: RunState) -> str:
    """What is asked, and how it is answered."""
    asked = next(iter(state.questions.values()))
    return f", who is asked{by(asked)}: {asked.text} Answer with `gx answer {state.id}`"


def _limit(stop: e.RunStopped, state: RunState, figures: Figures) -> str:
    """The limit with its figures."""
    if stop.limit == "deadline" and state.deadline_at is not None:
        after_s = state.deadline_at - state.created.started_at
        return f"the deadline was {clock(state.deadline_at)}, {after_s:,.0f} s after its beginning"
    if stop.limit == "budget" and state.budget_tokens is not None:
        spent = f"{figures.tokens:,} tokens are spent by now, with what was running then"
        return f"{stop.reason}" + (f" ({spent})" if figures.tokens > state.budget_tokens else "")
    return stop.reason


def _codes(figures: Figures) -> str:
    """What failed: `; 3 tasks failed (2 timeout, 1 template)`."""
    if not figures.failures:
        return ""
    codes = ", ".join(f"{n:,} {code}" for code, n in sorted(figures.failures.items(), key=lambda item: -item[1]))
    return f"; {counted(sum(figures.failures.values()), 'task')} failed ({codes})"


# ── an event ─────────────────────────────────────────────────────────────────────────────────────────────────────


def of_event(event: Event, events: Sequence[Event], figures: Figures | None) -> Why:
    """What an event says, and what went before it of the same task or run; `figures` are those of its run then."""
    run, task = getattr(event.body, "run", None) or "", getattr(event.body, "task", None) or ""
    benches = benches_of(events)
    answer = told(event.body, event.ts, benches)
    if isinstance(event.body, e.TaskFailed | e.TaskRetried):
        failed = [b for b in bodies_of(events, e.AttemptFailed) if b.task == task]
        answer += "".join(f"; before that, {told(body, event.ts, benches)}" for body in failed[-1:])
    if figures is not None:
        counts = f"{figures.queued:,} queued, {figures.prepared:,} prepared, {figures.running:,} running"
        answer += (
            f". Then its run had {counts} and {figures.ended:,} ended tasks, and had spent {figures.tokens:,} tokens"
        )
    before = [
        other
        for other in events
        if other.seq < event.seq
        if (getattr(other.body, "task", "") == task if task else getattr(other.body, "run", "") == run != "")
    ]
    return Why(
        kind="event",
        subject=task or run or event.source,
        run=run,
        status=e.tag_of(event.body),
        answer=f"{answer[0].upper()}{answer[1:]}.",
        lines=lines_of([*before, event], benches),
    )


# ── what they share ──────────────────────────────────────────────────────────────────────────────────────────────


def folded(run: str, events: Sequence[Event]) -> RunState:
    """The run as these events leave it."""
    view = View()
    for event in events:
        fold(view, event)
    return view.runs[run]


def benches_of(events: Sequence[Event]) -> Benches:
    """The benches that came up."""
    return {(b.epoch, b.incarnation): b for b in bodies_of(events, e.BenchStarted)}


def bodies_of(events: Sequence[Event], kind: type[T]) -> list[T]:
    """What the events of one kind say, in order."""
    return [event.body for event in events if isinstance(event.body, kind)]


def lines_of(events: Sequence[Event], benches: Benches, *, subject: str = "") -> tuple[Line, ...]:
    """The events in words; those of its run say so, where they stand among a task's own."""
    found = []
    for event in events:
        text = told(event.body, event.ts, benches)
        is_of_run = subject and isinstance(event.body, _OF_RUN)
        found.append(Line(seq=event.seq, at=event.ts, text=f"its run was {text}" if is_of_run else text))
    return tuple(found)


_OF_RUN = (e.RunPaused, e.RunContinued, e.RunStopped, e.RunInterrupted, e.RunCancelled)
