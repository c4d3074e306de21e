"""The turn of a task, made from its values: persona, prompt, what the memory gave, and what it is compared with.

The same values give the same turn, so a turn can be made again after a restart, or as if nothing private were there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gx.core import event as e
from gx.core.errors import GxError
from gx.core.ids import canonical
from gx.core.memory import Query
from gx.core.message import Message, Turn
from gx.core.recipe import Agent, Recall
from gx.core.view import RunState, TaskState
from gx.flow import graph, memories, templates
from gx.flow.persona import opening
from gx.flow.plan import Plan, StepPlan
from gx.flow.withheld import PrivateRead, changed
from gx.run import batchrow, calibration
from gx.run.labels import Labels, agent_of
from gx.run.long import dialogue
from gx.run.long.texts import joined, replaced, swaps
from gx.run.values import Values

DEFAULT_COMBINE = """\
These are partial answers to the same request, each made from a part of the data. Merge them into one answer.

{% for part in items %}Part {{ loop.index }}:
{{ part }}

{% endfor %}"""
"""The prompt that merges partial answers of a reduce whose step has no `combine`."""

Chat = tuple[Message, ...]


class Turns:
    """Makes the turns of one run. `models` maps a model's name in the recipe to its SHA-256.

    Where nothing `searches` the memory, as in a rehearsal, an answer may cite anything.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunState,
        models: Mapping[str, str],
        labels: Labels,
        values: Values,
        *,
        searches: bool = True,
    ) -> None:
        self._plan, self._run, self._models = plan, run, models
        self._labels, self._values, self._searches = labels, values, searches
        self._personas: dict[tuple[str, bytes], Chat] = {}
        self._baselines: dict[tuple[str, str, bytes, bool], tuple[Chat, ...]] = {}

    def turn(
        self, task: TaskState, found: Sequence[e.Recalled], *, is_whole: bool, shortened: e.Shortened | None = None
    ) -> Turn | None:
        """The turn of a task; `None` if its `when` is false. Unless it `is_whole`, as if nothing private were there.

        What `shortened` says is left out of its prompt.

        :raises GxError: if it can't be rendered.
        :raises PrivateRead: if it isn't whole, and something private is read.
        """
        step = self._plan.step(task.step)
        names = self._values.names(task, step, is_whole=is_whole)
        if not self._is_wanted(step, names):
            return None
        if shortened is not None and shortened.texts and not shortened.dropped:
            whole = names if is_whole else self._values.names(task, step, is_whole=True)
            names = replaced(names, swaps(whole, shortened.texts, self._values.decoded))
        agent = agent_of(self._plan, self._run, task)
        if (recall := step.step.recall(agent)) is not None:
            names[memories.NAME] = self._found(task, recall, found, is_whole=is_whole)
        sampling, schema = agent.sampling, agent.output
        if task.part_of is not None:
            sampling = msgspec.structs.replace(sampling, max_tokens=names["item"]["tokens"], stop=(), logprobs=None)
        head = self._persona(agent, task.matrix or {})
        level = None if task.span is None else task.level
        messages = self._messages(step, names, head, is_batch=task.is_batch, level=level)
        if shortened is not None and shortened.dropped:
            notes = self._values.decoded([ref for one in shortened.texts for ref in one.notes])
            messages = dialogue.without(messages, shortened.dropped, head, joined(map(str, notes)))
        if step.step.prompt is None and level is None:
            sampling, schema = batchrow.options(names["item"], sampling, schema, chooses=agent.choose is not None)
        choice = agent.choose if schema is agent.output else None
        if schema is not None and recall is not None:
            narrow = memories.narrowed if self._searches else _unsearched
            schema = narrow(schema, names[memories.NAME])
        return Turn(
            run=self._run.id,
            task=task.id,
            attempt=task.attempt,
            model=self._models[agent.model],
            messages=messages,
            sampling=sampling,
            output_schema=schema,
            grammar=agent.grammar if schema is None else None,  # a row of a batch file may bring its own schema
            choice=choice,
            baselines=self._compared(agent, names, head, task, is_whole=is_whole) if choice == "calibrated" else (),
            timeout_s=step.step.timeout_s,
        )

    def head(self, task: TaskState) -> Chat:
        """What the task's agent brings to each chat: its persona, with its examples."""
        return self._persona(agent_of(self._plan, self._run, task), task.matrix or {})

    def query(self, task: TaskState, recall: Recall, *, is_whole: bool) -> Query | None:
        """What the task's search asks for; `None` if its `when` is false, or there is nothing to ask. As `turn`."""
        step = self._plan.step(task.step)
        names = self._values.names(task, step, is_whole=is_whole)
        if not self._is_wanted(step, names):
            return None
        text = templates.render(recall.query or step.step.prompt or "", names | {memories.NAME: []})
        if not text.strip():
            return None
        return Query(
            text=text,
            namespace=templates.render(recall.namespace, names).strip(),
            k=recall.k,
            kinds=recall.kinds,
            min_score=recall.min_score,
            min_similarity=recall.min_similarity,
            rerank=recall.rerank,
            upto_seq=None if recall.live else self._run.began_seq,
        )

    def chats(self, step: StepPlan, level: int, below: Sequence[e.Ref], spans: Iterable[tuple[int, int]]) -> list[Chat]:
        """The prompts that a reduce would make of these spans over `below`, to be counted. :raises GxError: if none."""
        agent = self._plan.recipe.agents[step.agents[0]]
        prompt = _reduce_prompt(step, level)
        names = self._values.common(step, {}, index=0, row_id=step.id, is_whole=True)
        head = self._persona(agent, {})
        chats = []
        for start, stop in spans:
            text = templates.render(prompt, names | {"items": self._values.decoded(below[start:stop])})
            chats.append((*head, Message(role="user", content=text)))
        return chats

    def _is_wanted(self, step: StepPlan, names: Mapping[str, Any]) -> bool:
        """Whether the step's `when` is true of a task with these names."""
        if step.filter is None:
            return True
        return templates.holds(step.filter, {**names, **graph.status_names(self._plan, self._run, step)})

    def _found(self, task: TaskState, recall: Recall, found: Sequence[e.Recalled], *, is_whole: bool) -> Any:
        """What was found for the task. All of it is private where the question is: its answer tells of it."""
        if not is_whole:
            try:
                asked = self.query(task, recall, is_whole=False)
            except (PrivateRead, GxError):
                return memories.withheld()
            if asked != self.query(task, recall, is_whole=True):
                return memories.withheld()
        return self._values.found(found, is_whole=is_whole)

    def _messages(
        self, step: StepPlan, names: dict[str, Any], head: Chat, *, is_batch: bool, level: int | None = None
    ) -> Chat:
        """The chat that a step makes of these names; at that `level` of a reduce. :raises GxError: if it can't."""
        if step.step.prompt is None and level is None:
            if not is_batch:
                raise GxError("the step has no prompt, and this row brings no messages", code="template")
            return batchrow.messages(names["item"], head)
        prompt = step.step.prompt or "" if level is None else _reduce_prompt(step, level)
        text = templates.render(prompt, names)
        if memories.NAME in names:
            text = memories.before(prompt, names[memories.NAME]) + text
        user = Message(role="user", content=text)
        return (*head, user)

    def _persona(self, agent: Agent, matrix: dict[str, Any]) -> Chat:
        place = (agent.name, canonical(matrix) if matrix else b"")
        if place not in self._personas:
            self._personas[place] = opening(agent, self._plan.params, matrix)
        return self._personas[place]

    # ── calibrated choices ───────────────────────────────────────────────────────────────────────────────────────

    def _compared(
        self, agent: Agent, names: dict[str, Any], head: Chat, task: TaskState, *, is_whole: bool
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

    def _first_chats(self, step: StepPlan, names: dict[str, Any], head: Chat, *, is_whole: bool) -> Iterator[Chat]:
        """Those of the input's first rows, as many as can be rendered."""
        for row in calibration.first_rows(step.step, self._run):
            try:
                item = self._values.row(row.item or "", is_whole=is_whole)
                row_id = row.id if is_whole else self._labels.row_id(row.id, step)
                own = names | {"item": item, "input": item, "index": row.index, "id": row_id}
                yield self._messages(step, own, head, is_batch=row.is_batch)
            except GxError:
                continue


def _unsearched(schema: dict[str, Any], found: Any) -> dict[str, Any]:
    made: dict[str, Any] = memories.unsearched(schema)
    return made


def _about_nothing(names: Mapping[str, Any], nothing: str) -> dict[str, Any]:
    """What a prompt says of its row where that holds nothing: of a withheld one, nothing of what may be known."""
    rows = {name: names[name] for name in ("item", "input") if name in names}
    return {
        name: changed(row, lambda known: calibration.about_nothing({"item": known}, nothing)["item"])
        for name, row in rows.items()
    }


def _reduce_prompt(step: StepPlan, level: int) -> str:
    return (step.step.prompt or "") if level == 0 else (step.step.combine or DEFAULT_COMBINE)
