"""What successes leave in the memory, where their steps say so: written in the commit that has the success.

So what is remembered and what succeeded can't come apart, however a node ends. A result that can't be remembered as its
step says is a failure of its task, with the reason. Labels are inherited: what came of something private is private.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from gx.core import event as e
from gx.core import memorycheck
from gx.core.errors import GxError
from gx.core.memory import Draft, Kind, Source
from gx.core.message import Label
from gx.core.recipe import Remember
from gx.core.view import RunState, TaskState
from gx.flow import templates
from gx.flow.plan import Plan, StepPlan
from gx.flow.withheld import PrivateRead, result_without
from gx.run.memory import remembering
from gx.run.values import Values

RESULT = "memory.result"
"""The code of a task whose result can't be remembered."""


class Learner:
    """Makes memories of the results of one run. `is_wanted` says whether any step has something remembered."""

    def __init__(self, plan: Plan, run: RunState, values: Values) -> None:
        self._plan, self._run, self._values = plan, run, values
        self.is_wanted = any(step.step.remember is not None for step in plan.steps)

    def draft(self, task: TaskState, output: e.Ref, label: Label) -> Draft | None:
        """What is remembered of a result with that label; `None` if nothing is. :raises GxError: if it can't be."""
        step = self._plan.step(task.step)
        if (remember := step.step.remember) is None:
            return None
        (result,) = self._values.decoded((output,))
        namespace, text = self._rendered(remember, task, step, result, is_whole=True)
        if not text.strip():
            return None
        draft = Draft(
            body=text,
            namespace=namespace,
            kind=remember.kind,
            source=Source(
                by=f"{self._plan.recipe.name}/{step.id}",
                run=self._run.id,
                # A fact is one however many tasks say it, and the task is part of a memory's name.
                task=task.id if remember.kind is Kind.episode else "",
            ),
            label=self._label(remember, task, step, result, label, text),
        )
        memorycheck.check_draft(draft)
        return draft

    def _rendered(
        self, remember: Remember, task: TaskState, step: StepPlan, result: Any, *, is_whole: bool
    ) -> tuple[str, str]:
        names = self._values.names(task, step, is_whole=is_whole) | {"output": result}
        namespace = templates.render(remember.namespace, names).strip() if is_whole else ""
        return namespace, templates.render(remember.text, names)

    def _label(
        self, remember: Remember, task: TaskState, step: StepPlan, result: Any, label: Label, text: str
    ) -> Label:
        """Shared, if the text comes out the same where nothing private is."""
        share = step.step.share
        known = result
        if label is Label.private and share is not True:
            known = result_without(result, share or (), "output")
        try:
            is_open = self._rendered(remember, task, step, known, is_whole=False)[1] == text
        except (PrivateRead, GxError):
            is_open = False
        return Label.shared if is_open else Label.private


class Learning(Protocol):
    """A live run, as far as its memories go."""

    @property
    def state(self) -> RunState: ...
    @property
    def learner(self) -> Learner: ...


def learned(runs: Mapping[str, Learning], bodies: Iterable[e.Body], now: float, blobs: list[e.Blob]) -> list[e.Body]:
    """The events that are about to be committed, with what their successes have remembered, and its `blobs`."""
    made = list(bodies)
    if not any(run.learner.is_wanted for run in runs.values()):
        return made
    labels = {body.task: body.label for body in made if isinstance(body, e.TaskPrepared)}
    return [new for body in made for new in _with_memory(runs, body, labels, now, blobs)]


def _with_memory(
    runs: Mapping[str, Learning], body: e.Body, labels: Mapping[str, Label], now: float, blobs: list[e.Blob]
) -> Iterator[e.Body]:
    if not isinstance(body, e.TaskSucceeded) or (run := runs.get(body.run)) is None:
        yield body
        return
    task = run.state.tasks[body.task]
    if task.status.is_terminal or task.attempt != body.attempt:  # it changes nothing any more
        yield body
        return
    try:
        draft = run.learner.draft(task, body.output, labels.get(task.id, task.label))
    except GxError as error:
        yield from _failed(body, error)
        return
    yield body
    if draft is not None:
        events, contents = remembering.written([draft], by=f"task {task.id}", now=now)
        blobs.extend(contents)
        yield from events


def _failed(body: e.TaskSucceeded, error: GxError) -> Iterator[e.Body]:
    """A success that can't be remembered: what it took counts, and its task fails."""
    message = f"its result can't be remembered: {error.message}"
    if body.cached is None:
        yield e.AttemptFailed(
            run=body.run,
            task=body.task,
            attempt=body.attempt,
            worker=body.worker or "",
            code=RESULT,
            message=message,
            detail=body.output,
            ms=body.ms,
            tok_in=body.tok_in,
            tok_out=body.tok_out,
        )
    yield e.TaskFailed(run=body.run, task=body.task, attempt=body.attempt, code=RESULT, message=message)
