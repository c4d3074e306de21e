"""A run as the monitor shows it: a fold over its events into arrays and counters, some 200 bytes a task.

It follows the three rules of `gx.core.projection`: a stale attempt changes nothing, a task that ended never changes,
and a task is queued once; so its counts are those of the projection. It knows no clock, no node and no widget.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from gx.core import event as e
from gx.run.history.telling import told
from gx.tui.causes import Causes
from gx.tui.lines import Brief, Line, body_of, second_of
from gx.tui.rented import WORKER, Rented
from gx.tui.series import Series
from gx.tui.states import State

KEPT_EVENTS = 5_000
"""The newest events that the raw stream shows."""
KEPT_DECISIONS = 2_000
MOST_ATTEMPTS = 65_535
MOST_STEPS = 255
"""Steps that tasks are told apart by; what comes after is counted with the last."""
_COUNTED = ("task.", "attempt.", "inputs.", "egress.", "bench.measured", "call.", "container.seen", "containers.")
"""Kinds that come by the thousand, or tell nothing: they are no decisions."""


class Decision(NamedTuple):
    """Something that was decided about the run, in words; `at_s` is when, in wall-clock seconds."""

    seq: int
    at_s: float
    kind: str
    text: str


class StepModel:
    """A step: how many of its tasks are in each state. `total` is None until all of its tasks are made."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts = [0] * len(State)
        self.total: int | None = None
        self.note = ""


class RunModel:
    """The run `run`, as of the event `seq`. A task is known by its place in the order of coming, from 0.

    `ids`, `rows`, `states`, `steps_of` and `attempts` have an element a task.
    """

    def __init__(self, run: str) -> None:
        self.run, self.name, self.seq = run, "", -1
        self.status = ""
        self.recipe: str | None = None
        self.began_s: float | None = None
        self.last_s = 0.0
        self.budget_tokens: int | None = None
        self.deadline_s: float | None = None
        self.concurrency: int | None = None
        self.ids: list[str] = []
        self.rows: list[str] = []
        self.states = bytearray()
        self.steps_of = bytearray()
        self.attempts = array("H")
        self.places: dict[str, int] = {}
        self.running: dict[int, tuple[str, float]] = {}
        self.steps: list[StepModel] = []
        self.counts = [0] * len(State)
        self.tokens_in = self.tokens_out = 0
        self.series = Series()
        self.causes = Causes()
        self.rented = Rented()
        self.decisions: deque[Decision] = deque(maxlen=KEPT_DECISIONS)
        self.questions: dict[str, e.QuestionAsked] = {}
        self.events: deque[Line] = deque(maxlen=KEPT_EVENTS)
        self._step_places: dict[str, int] = {}
        self._time = ""
        self._has_moved, self._ended, self._tokens = False, 0, 0

    @property
    def total(self) -> int:
        return len(self.states)

    @property
    def done(self) -> int:
        return sum(self.counts[State.succeeded :])

    @property
    def backlog(self) -> int:
        """Tasks that are not leased and have not ended."""
        return self.counts[State.queued] + self.counts[State.prepared]

    @property
    def is_over(self) -> bool:
        return self.status in ("finished", "cancelled")

    def apply(self, lines: Iterable[Line]) -> None:
        """Fold the events that are of this run. One that was folded before is passed over, as after a reconnection."""
        for line in lines:
            if line.seq > self.seq and line.run == self.run:
                self.seq = line.seq
                if line.time != self._time:  # events that were committed together have one
                    self._mark()
                    self._time, self.last_s = line.time, second_of(line)
                self.events.append(line)
                self._apply(line)
        self._mark()

    def _apply(self, line: Line) -> None:
        kind = line.type
        if kind == "task.queued":
            self._queue(line)
        elif kind == "attempt.superseded":
            self._spend(line.data)
        elif line.task is None:
            self._of_run(kind, line, self.last_s)
        elif (place := self.places.get(line.task)) is not None:
            self._of_task(kind, line, place)

    def _mark(self) -> None:
        """Count in the series what happened at the last instant, once for all of its events."""
        if self._has_moved:
            self.series.mark(self.last_s, self.backlog, ended=self._ended, tokens=self._tokens)
            self._has_moved, self._ended, self._tokens = False, 0, 0

    # ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _queue(self, line: Line) -> None:
        task = line.task or ""
        if task in self.places:
            return
        step = self.step_place(line.data.step)
        self.places[task] = len(self.ids)
        self.ids.append(task)
        self.rows.append(line.data.id)
        self.states.append(State.queued)
        self.steps_of.append(step)
        self.attempts.append(1)
        self._has_moved = True
        self.counts[State.queued] += 1
        self.steps[step].counts[State.queued] += 1

    def step_place(self, name: str) -> int:
        """Where the step stands in `steps`; it is added if it is new."""
        if (place := self._step_places.get(name)) is None:
            if len(self.steps) > MOST_STEPS:
                return MOST_STEPS
            place = self._step_places[name] = len(self.steps)
            self.steps.append(StepModel(name))
        return place

    def _of_task(self, kind: str, line: Line, place: int) -> None:
        brief, state = line.data, self.states[place]
        if state >= _TERMINAL or line.attempt != self.attempts[place]:
            return
        self._has_moved = True
        if brief.tok_in or brief.tok_out:
            self._spend(brief)
            self._tokens += brief.tok_in + brief.tok_out
        if kind == "task.leased":
            self.running[place] = line.worker or "", self.last_s
            self._move(place, State.running)
        elif kind == "task.prepared":
            if state == State.queued:
                self._move(place, State.prepared)
        elif (end := _ENDS.get(kind)) is not None:
            self._ended += 1
            if line.worker == WORKER and brief.cached is None:
                self.rented.answered(self.last_s, brief.tok_in + brief.tok_out)
            if end is State.failed:
                self.causes.failed(brief.code, brief.message, place)
            self._move(place, State.reused if end is State.succeeded and brief.cached is not None else end)
        elif kind in ("attempt.lost", "task.retried"):
            self.attempts[place] = min(self.attempts[place] + 1, MOST_ATTEMPTS)
            self._move(place, State.prepared)
        elif kind == "attempt.failed":
            self.causes.attempt(brief.code, brief.message)
            if line.worker == WORKER:
                self.rented.answered(self.last_s, brief.tok_in + brief.tok_out)
            self._move(place, State.prepared)

    def _spend(self, brief: Brief) -> None:
        self.tokens_in += brief.tok_in
        self.tokens_out += brief.tok_out

    def _move(self, place: int, state: State) -> None:
        before = self.states[place]
        if before == State.running and state is not State.running:
            self.running.pop(place, None)
        self.states[place] = state
        counts = self.steps[self.steps_of[place]].counts
        self.counts[before] -= 1
        self.counts[state] += 1
        counts[before] -= 1
        counts[state] += 1

    # ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _of_run(self, kind: str, line: Line, at_s: float) -> None:
        if kind == "step.unfolded":
            self.steps[self.step_place(line.data.step)].total = line.data.tasks
        if kind.startswith(_COUNTED) and kind != "container.seen":
            return
        try:
            body = body_of(line)
        except (msgspec.MsgspecError, RecursionError):  # of a newer gx: it is shown as it is, and counts for nothing
            return
        self.rented.apply(body)
        if (apply := _RUN.get(type(body))) is not None:
            apply(self, body)
        if kind != "container.seen":
            self.decisions.append(Decision(line.seq, at_s, kind, told(body, round(at_s * 1e6), {})))

    def begin(self, body: e.RunCreated) -> None:
        self.name, self.status, self.recipe = body.name, "running", body.recipe
        self.began_s = body.started_at or self.last_s
        self.limit(body)

    def limit(self, body: e.RunCreated | e.RunResumed | e.RunChanged) -> None:
        if body.budget_tokens is not None:
            self.budget_tokens = body.budget_tokens
        if body.deadline_at is not None:
            self.deadline_s = body.deadline_at
        if isinstance(body, e.RunChanged) and body.concurrency is not None:
            self.concurrency = body.concurrency or None
        if isinstance(body, e.RunResumed):
            self.status = "running"

    def note(self, step: str, text: str) -> None:
        """Say of a step why it stands as it does; an empty text says nothing."""
        self.steps[self.step_place(step)].note = text

    def stand(self, status: str) -> None:
        self.status = status


_TERMINAL = State.succeeded
_ENDS = {
    "task.succeeded": State.succeeded,
    "task.failed": State.failed,
    "task.cancelled": State.cancelled,
    "task.skipped": State.skipped,
}
_RUN: dict[type, Callable[[RunModel, Any], object]] = {
    e.RunCreated: lambda run, body: run.begin(body),
    e.RunResumed: lambda run, body: run.limit(body),
    e.RunChanged: lambda run, body: run.limit(body),
    e.RunInterrupted: lambda run, body: run.stand("interrupted"),
    e.RunCancelled: lambda run, body: run.stand("cancelled"),
    e.RunStopped: lambda run, body: run.stand("stopped"),
    e.RunFinished: lambda run, body: run.stand("finished"),
    e.RunPaused: lambda run, body: run.stand("paused"),
    e.RunContinued: lambda run, body: run.stand("running"),
    e.StepPaused: lambda run, body: run.note(body.step, "paused"),
    e.StepContinued: lambda run, body: run.note(body.step, ""),
    e.StepSkipped: lambda run, body: run.note(body.step, f"skipped: {body.reason}"),
    e.QuestionAsked: lambda run, body: run.questions.__setitem__(body.question, body),
    e.QuestionAnswered: lambda run, body: run.questions.pop(body.question, None),
}
