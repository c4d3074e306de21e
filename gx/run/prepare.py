"""From a queued task to a turn that a worker can run: reads what it depends on, renders, computes the key.

The only stage with I/O before a grant, and that through `Contents`. What can't be rendered fails as a task, with the
reason; it never stops the run. Equal keys are noticed here: a result that is in the log is taken, not computed again.

A turn without a private label was made whole from values that hold nothing private: see `gx.run.labels`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gx.core import event as e
from gx.core.errors import GxError
from gx.core.ids import canonical
from gx.core.message import Label, Message, Turn
from gx.core.recipe import Agent
from gx.core.task import Status
from gx.core.view import RunState, TaskState
from gx.flow import graph, templates
from gx.flow.plan import Plan, StepPlan
from gx.flow.privacy import marked
from gx.flow.withheld import PrivateRead, changed
from gx.run import batchrow, calibration, outcomes
from gx.run.contents import Contents, blob_of
from gx.run.egress import PrivateTurn
from gx.run.labels import Labels, agent_of

DEFAULT_COMBINE = """\
These are partial answers to the same request, each made from a part of the data. Merge them into one answer.

{% for part in items %}Part {{ loop.index }}:
{{ part }}

{% endfor %}"""
"""The prompt that merges partial answers of a reduce whose step has no `combine`."""

Chat = tuple[Message, ...]
FindResults = Callable[[Collection[str]], Mapping[str, tuple[str, e.Ref, str, e.Ref | None]]]
"""Keys → (task, output, finish, likelihoods) of results that the log had before this run began."""


class Prepared(msgspec.Struct):
    """What one batch of preparing gave: events, their blobs, and the turns at hand by task.

    A turn that may not leave is a `PrivateTurn`; `private` says why, by task.
    """

    bodies: list[e.Body] = []
    blobs: list[e.Blob] = []
    turns: dict[str, Turn] = {}
    private: dict[str, str] = {}


class Preparer:
    """Prepares the tasks of one run. `models` maps a model's name in the recipe to its SHA-256."""

    def __init__(
        self, plan: Plan, run: RunState, contents: Contents, models: dict[str, str], find_results: FindResults
    ) -> None:
        self._plan, self._run, self._contents = plan, run, contents
        self._models, self._find_results = models, find_results
        self._personas: dict[tuple[str, bytes], Message | None] = {}
        self._labels = Labels(plan, run)
        self._steps: dict[tuple[str, bool], Any] = {}
        self._at_hand: dict[e.Ref, bytes] = {}
        self._levels: dict[tuple[str, int], list[tuple[e.Ref, TaskState]]] = {}
        self._baselines: dict[tuple[str, str, bytes, bool], tuple[Chat, ...]] = {}
        self._known: set[tuple[e.Ref, Label]] = set()

    def prepare(self, task_ids: Iterable[str]) -> Prepared:
        """The events that bring these tasks from queued to prepared, answered, skipped or failed.

        A task that the log knows as prepared (before a restart) gets its turn again, and no second event, unless it
        goes another way by now. One that is to be compared with rows that aren't read yet stays as it is.
        """
        made = Prepared()
        tasks = [self._run.tasks[task_id] for task_id in task_ids]
        tasks = [task for task in tasks if not task.status.is_terminal and not self._waits(task)]
        later = (self._run.tasks[task_id] for task_id in self._run.unprepared)
        self._at_hand = self._contents.bring(list(_refs(tasks)), _refs(later))
        turns: list[tuple[TaskState, Turn, str]] = []
        for task in tasks:
            if task.status is Status.queued and task.error is not None:
                made.bodies.append(self._failed(task, *task.error))
                continue
            try:
                turn = self._turn(task, is_whole=True)
            except GxError as error:
                made.bodies.append(self._failed(task, error.code, error.message))
                continue
            if turn is None:
                reason = f"when: {self._plan.step(task.step).step.when}"
                made.bodies.append(e.TaskSkipped(run=self._run.id, task=task.id, attempt=task.attempt, reason=reason))
                continue
            if reason := self._why_private(task, turn):
                made.private[task.id], turn = reason, PrivateTurn.of(turn)
            turns.append((task, turn, turn.key()))
        answers = self._answers({key: turn for _, turn, key in turns})
        for task, turn, key in turns:
            is_relabelled = task.label is not _label(turn)
            if (answer := answers.get(key)) is not None:
                if is_relabelled:  # what is made from the answer asks for the label of this task
                    made.bodies.append(self._prepared(task, turn, key, made.blobs))
                made.bodies.append(outcomes.answered(self._run, task, key, answer))
                continue
            made.turns[task.id] = turn
            # The key or the label of a prepared task changes where its step was routed since.
            if task.status is Status.queued or task.key != key or is_relabelled:
                made.bodies.append(self._prepared(task, turn, key, made.blobs))
        return made

    def digests(self) -> list[str]:
        """The digests of all models that the run may use."""
        return list(self._models.values())

    def model_of(self, agent: Agent) -> str:
        """The SHA-256 of the agent's model."""
        return self._models[agent.model]

    def chats(
        self, step: StepPlan, level: int, below: Sequence[e.Ref], spans: Iterable[tuple[int, int]]
    ) -> list[tuple[Message, ...]]:
        """The prompts that a reduce would make of these spans over `below`, to be counted. :raises GxError: if none."""
        agent = self._plan.recipe.agents[step.agents[0]]
        prompt = _reduce_prompt(step, level)
        names = self._names(step, {}, index=0, row_id=step.id, is_whole=True)
        head = self._persona(agent, {})
        chats = []
        for start, stop in spans:
            text = templates.render(prompt, names | {"items": self._values(below[start:stop])})
            chats.append(tuple(m for m in (head, Message(role="user", content=text)) if m is not None))
        return chats

    # ── one task ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _why_private(self, task: TaskState, turn: Turn) -> str:
        """Why the task's turn may not leave, in words; empty if it comes out the same without anything private."""
        if not self._labels.is_marked:
            return ""
        if reason := marked(self._plan.step(task.step).step, agent_of(self._plan, self._run, task)):
            return reason
        try:
            again = self._turn(task, is_whole=False)
        except PrivateRead as read:
            return f"reads {read.path}"
        except GxError:
            again = None
        return "" if again == turn else "reads something private"

    def _turn(self, task: TaskState, *, is_whole: bool) -> Turn | None:
        """The turn of a task; `None` if its `when` is false. Unless it `is_whole`, as if nothing private were there.

        :raises GxError: if it can't be rendered.
        :raises PrivateRead: if it isn't whole, and something private is read.
        """
        step = self._plan.step(task.step)
        matrix = task.matrix or {}
        names = self._names(step, matrix, index=task.index, row_id=task.row_id, is_whole=is_whole)
        if task.item is not None:
            item = self._value(task.item)
            names["item"] = item if is_whole else self._labels.item(item, task, step)
        if task.input is not None:
            names["input"] = self._input(task.input, is_whole=is_whole)
        if task.span is not None:
            names["items"] = self._items(self._below(step, task.level)[slice(*task.span)], is_whole=is_whole)
        if step.filter is not None:
            status = graph.status_names(self._plan, self._run, step)
            if not templates.holds(step.filter, names | status):
                return None
        agent = agent_of(self._plan, self._run, task)
        sampling, schema = agent.sampling, agent.output
        head = self._persona(agent, matrix)
        level = None if task.span is None else task.level
        messages = self._messages(step, names, head, is_batch=task.is_batch, level=level)
        if step.step.prompt is None and level is None:
            sampling, schema = batchrow.options(names["item"], sampling, schema, chooses=agent.choose is not None)
        choice = agent.choose if schema is agent.output else None
        return Turn(
            run=self._run.id,
            task=task.id,
            attempt=task.attempt,
            model=self._models[agent.model],
            messages=messages,
            sampling=sampling,
            output_schema=schema,
            choice=choice,
            baselines=self._compared(agent, names, head, task, is_whole=is_whole) if choice == "calibrated" else (),
            timeout_s=step.step.timeout_s,
        )

    def _messages(
        self, step: StepPlan, names: dict[str, Any], head: Message | None, *, is_batch: bool, level: int | None = None
    ) -> Chat:
        """The chat that a step makes of these names; at that `level` of a reduce. :raises GxError: if it can't."""
        if step.step.prompt is None and level is None:
            if not is_batch:
                raise GxError("the step has no prompt, and this row brings no messages", code="template")
            return batchrow.messages(names["item"], head)
        prompt = step.step.prompt or "" if level is None else _reduce_prompt(step, level)
        user = Message(role="user", content=templates.render(prompt, names))
        return (user,) if head is None else (head, user)

    # ── calibrated choices ───────────────────────────────────────────────────────────────────────────────────────

    def _waits(self, task: TaskState) -> bool:
        """Whether rows that the task is compared with may still come; not where what waits fills the memory."""
        step = self._plan.step(task.step)
        if agent_of(self._plan, self._run, task).choose != "calibrated":
            return False
        is_outrun = self._contents.is_outrun_by(len(self._run.unprepared))
        return calibration.waits(step.step, self._run) and not is_outrun

    def _compared(
        self, agent: Agent, names: dict[str, Any], head: Message | None, task: TaskState, *, is_whole: bool
    ) -> tuple[Chat, ...]:
        """The chats that a turn is compared with: those of the first rows; if they are few, its own about nothing."""
        step = self._plan.step(task.step)
        place = (step.id, agent.name, canonical(task.matrix or {}), is_whole)
        if place not in self._baselines:
            self._baselines[place] = tuple(dict.fromkeys(self._first_chats(step, names, head, is_whole=is_whole)))
        if len(self._baselines[place]) >= calibration.LEAST_ROWS:
            return self._baselines[place]
        if step.step.prompt is None or task.span is not None:
            return ()
        empties = (names | _about_nothing(names, nothing) for nothing in calibration.CONTENT_FREE)
        return tuple(dict.fromkeys(self._messages(step, empty, head, is_batch=False) for empty in empties))

    def _first_chats(
        self, step: StepPlan, names: dict[str, Any], head: Message | None, *, is_whole: bool
    ) -> Iterator[Chat]:
        """Those of the input's first rows, as many as can be rendered."""
        for row in calibration.first_rows(step.step, self._run):
            try:
                item = self._input(row.item or "", is_whole=is_whole)
                row_id = row.id if is_whole else self._labels.row_id(row.id, step)
                own = names | {"item": item, "input": item, "index": row.index, "id": row_id}
                yield self._messages(step, own, head, is_batch=row.is_batch)
            except GxError:
                continue

    def _names(
        self, step: StepPlan, matrix: dict[str, Any], *, index: int, row_id: str, is_whole: bool
    ) -> dict[str, Any]:
        steps = {name: self._step_value(name, is_whole=is_whole) for name in step.reads_steps}
        own_id = row_id if is_whole else self._labels.row_id(row_id, step)
        return {"params": self._plan.params, "matrix": matrix, "steps": steps, "index": index, "id": own_id}

    def _persona(self, agent: Agent, matrix: dict[str, Any]) -> Message | None:
        if not agent.persona:
            return None
        place = (agent.name, canonical(matrix) if matrix else b"")
        if place not in self._personas:
            text = templates.render(agent.persona, {"params": self._plan.params, "matrix": matrix})
            self._personas[place] = Message(role="system", content=text) if text.strip() else None
        return self._personas[place]

    def _prepared(self, task: TaskState, turn: Turn, key: str, blobs: list[e.Blob]) -> e.TaskPrepared:
        parts, label = [], _label(turn)
        for message in turn.messages:
            blob = blob_of(message.content.encode("utf-8", "surrogatepass"))
            if message.role != "system" or (blob.digest, label) not in self._known:
                self._known.add((blob.digest, label)) if message.role == "system" else None
                blobs.append(msgspec.structs.replace(blob, label=label))
            parts.append(e.PromptPart(role=message.role, content=blob.digest))
        return e.TaskPrepared(
            run=self._run.id,
            task=task.id,
            attempt=task.attempt,
            key=key,
            model=turn.model,
            prompt=tuple(parts),
            seed=turn.sampling.seed,
            label=label,
        )

    def _failed(self, task: TaskState, code: str, message: str) -> e.TaskFailed:
        return e.TaskFailed(run=self._run.id, task=task.id, attempt=task.attempt, code=code, message=message)

    # ── what is there already ────────────────────────────────────────────────────────────────────────────────────

    def _answers(self, turns: Mapping[str, Turn]) -> dict[str, outcomes.Known]:
        """Results of equal keys: of this run, or of the log before it (unless the run is `fresh`).

        One of the log is left where logprobs are asked for and it has none: older logs did not keep them.
        """
        found: dict[str, outcomes.Known] = {}
        for key in turns:
            leader = self._run.tasks.get(self._run.leaders.get(key, ""))
            if leader is not None and leader.output is not None:
                found[key] = outcomes.Known(leader.id, leader.output, leader.finish, leader.likelihoods)
        if not self._run.created.fresh and (rest := [key for key in turns if key not in found]):
            for key, known in self._find_results(rest).items():
                answer, turn = outcomes.Known(*known), turns[key]
                if answer.likelihoods is not None or turn.sampling.logprobs is None or turn.choice is not None:
                    found[key] = answer
        return found

    def _below(self, step: StepPlan, level: int) -> list[tuple[e.Ref, TaskState]]:
        """What a level of a reduce is made over, in order. It is complete before the level is cut."""
        if (step.id, level) not in self._levels:
            if level == 0:
                tasks = graph.results(self._plan, self._run, step.step.reduce or "")
            else:
                tasks = self._run.step(step.id).successes(level - 1)
            self._levels[step.id, level] = [(t.output, t) for t in tasks if t.output is not None]
        return self._levels[step.id, level]

    def _items(self, made: Sequence[tuple[e.Ref, TaskState]], *, is_whole: bool, path: str = "items") -> list[Any]:
        """The results of tasks."""
        values = self._values([ref for ref, _ in made])
        if is_whole:
            return values
        return [self._labels.result(value, task, path) for value, (_, task) in zip(values, made, strict=True)]

    def _step_value(self, step_id: str, *, is_whole: bool) -> Any:
        """What `steps.x` is: the results of a fan-out as a list, that of a single task as itself."""
        if (step_id, is_whole) not in self._steps:
            tasks = graph.results(self._plan, self._run, step_id)
            made = [(t.output, t) for t in tasks if t.output is not None]
            values = self._items(made, is_whole=is_whole, path=f"steps.{step_id}")
            of = self._plan.step(step_id)
            is_list = of.step.for_each is not None or bool(of.step.matrix)
            self._steps[step_id, is_whole] = values if is_list else (values[0] if values else None)
        return self._steps[step_id, is_whole]

    def _input(self, ref: e.Ref, *, is_whole: bool) -> Any:
        """A row of the input."""
        row = self._value(ref)
        return row if is_whole else self._labels.row(row, "input")

    def _value(self, ref: e.Ref) -> Any:
        content = self._at_hand[ref] if ref in self._at_hand else self._contents.get((ref,))[ref]
        return msgspec.json.decode(content)

    def _values(self, refs: Sequence[e.Ref]) -> list[Any]:
        found = self._contents.get(refs)
        return [msgspec.json.decode(found[ref]) for ref in refs]


def _refs(tasks: Iterable[TaskState]) -> Iterator[e.Ref]:
    """What the prompts of these tasks are made from."""
    return (ref for task in tasks for ref in {task.item, task.input} if ref is not None)


def _label(turn: Turn) -> Label:
    return Label.private if isinstance(turn, PrivateTurn) else Label.shared


def _about_nothing(names: Mapping[str, Any], nothing: str) -> dict[str, Any]:
    """What a prompt says of its row where that holds nothing: of a withheld one, nothing of what may be known."""
    rows = {name: names[name] for name in ("item", "input") if name in names}
    return {
        name: changed(row, lambda known: calibration.about_nothing({"item": known}, nothing)["item"])
        for name, row in rows.items()
    }


def _reduce_prompt(step: StepPlan, level: int) -> str:
    return (step.step.prompt or "") if level == 0 else (step.step.combine or DEFAULT_COMBINE)
