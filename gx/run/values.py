"""What the templates of a task have by its names: rows, results, and what the memory gave, through `Contents`.

Each can be had whole, or as if nothing private were there: see `gx.run.labels`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from gx.core import event as e
from gx.core.message import Label
from gx.core.view import RunState, TaskState
from gx.flow import answers, graph, memories
from gx.flow.plan import Plan, StepPlan
from gx.run.contents import Contents
from gx.run.labels import Labels


class Values:
    """The values of one run's tasks. Results of a step are kept once they were read, as they don't change then."""

    def __init__(self, plan: Plan, run: RunState, contents: Contents, labels: Labels) -> None:
        self._plan, self._run, self._contents, self._labels = plan, run, contents, labels
        self._steps: dict[tuple[str, bool], Any] = {}
        self._at_hand: dict[e.Ref, bytes] = {}
        self._by_row: dict[str, dict[int, list[TaskState]]] = {}
        self._levels: dict[tuple[str, int], list[tuple[e.Ref, TaskState]]] = {}

    def bring(self, tasks: Iterable[TaskState]) -> None:
        """Have at hand what the prompts of these tasks are made from."""
        later = (self._run.tasks[task_id] for task_id in self._run.unprepared)
        self._at_hand = self._contents.bring(list(self._refs(tasks)), self._refs(later))

    def names(self, task: TaskState, step: StepPlan, *, is_whole: bool) -> dict[str, Any]:
        """All that the task's templates may use, but for what the memory gave."""
        names = self.common(step, task.matrix or {}, index=task.index, row_id=task.row_id, is_whole=is_whole)
        if task.item is not None:
            item = self._value(task.item)
            names["item"] = item if is_whole else self._labels.item(item, task, step)
        if task.input is not None:
            names["input"] = self.row(task.input, is_whole=is_whole)
        if step.answers:
            names[answers.NAME] = {
                need: self._answers(need, levels, task.index, is_whole=is_whole)
                for need, levels in step.answers.items()
            }
        if task.span is not None:
            names["items"] = self._results(self._below(step, task.level)[slice(*task.span)], is_whole=is_whole)
        return names

    def common(
        self, step: StepPlan, matrix: dict[str, Any], *, index: int, row_id: str, is_whole: bool
    ) -> dict[str, Any]:
        """What the templates of a step have for any row."""
        steps = {name: self._step(name, is_whole=is_whole) for name in step.reads_steps}
        own_id = row_id if is_whole else self._labels.row_id(row_id, step)
        return {"params": self._plan.params, "matrix": matrix, "steps": steps, "index": index, "id": own_id}

    def row(self, ref: e.Ref, *, is_whole: bool) -> Any:
        """A row of the input."""
        row = self._value(ref)
        return row if is_whole else self._labels.row(row, "input")

    def decoded(self, refs: Sequence[e.Ref]) -> list[Any]:
        """What these results are. :raises LogError: if one was erased."""
        found = self._contents.get(refs)
        return [msgspec.json.decode(found[ref]) for ref in refs]

    def found(self, found: Sequence[e.Recalled], *, is_whole: bool) -> list[Any]:
        """What was found in the memory, as templates have it; without what was forgotten since."""
        texts = self._contents.find([ref for one in found for ref in (one.body, one.heading) if ref is not None])
        stand = [one for one in found if one.body in texts]
        return [
            _entry(number, one, texts) if is_whole or one.label is Label.shared else memories.withheld()
            for number, one in enumerate(stand, 1)
        ]

    def _results(self, made: Sequence[tuple[e.Ref, TaskState]], *, is_whole: bool, path: str = "items") -> list[Any]:
        values = self.decoded([ref for ref, _ in made])
        if is_whole:
            return values
        return [self._labels.result(value, task, path) for value, (_, task) in zip(values, made, strict=True)]

    def _below(self, step: StepPlan, level: int) -> list[tuple[e.Ref, TaskState]]:
        """What a level of a reduce is made over, in order. It is complete before the level is cut."""
        if (step.id, level) not in self._levels:
            if level == 0:
                tasks = graph.results(self._plan, self._run, step.step.reduce or "")
            else:
                tasks = self._run.step(step.id).successes(level - 1)
            self._levels[step.id, level] = [(t.output, t) for t in tasks if t.output is not None]
        return self._levels[step.id, level]

    def _step(self, step_id: str, *, is_whole: bool) -> Any:
        """What `steps.x` is: the results of a fan-out as a list, that of a single task as itself."""
        if (step_id, is_whole) not in self._steps:
            tasks = graph.results(self._plan, self._run, step_id)
            made = [(t.output, t) for t in tasks if t.output is not None]
            values = self._results(made, is_whole=is_whole, path=f"steps.{step_id}")
            of = self._plan.step(step_id)
            is_list = of.step.for_each is not None or bool(of.step.matrix)
            self._steps[step_id, is_whole] = values if is_list else (values[0] if values else None)
        return self._steps[step_id, is_whole]

    def _answers(self, step_id: str, levels: tuple[str, ...], row: int, *, is_whole: bool) -> Any:
        """What `answers.x` is for that row."""
        found = []
        for task in self._of_row(step_id, row):
            value = self._value(task.output or "")
            shown = value if is_whole else self._labels.result(value, task, f"{answers.NAME}.{step_id}")
            found.append((task.matrix or {}, shown))
        return answers.nested(levels, found)

    def _of_row(self, step_id: str, row: int) -> list[TaskState]:
        """The successes of a step about that row. It has ended before any task asks."""
        if step_id not in self._by_row:
            by_row: dict[int, list[TaskState]] = {}
            for task in graph.results(self._plan, self._run, step_id):
                if task.output is not None:
                    by_row.setdefault(task.index, []).append(task)
            self._by_row[step_id] = by_row
        return self._by_row[step_id].get(row, [])

    def _refs(self, tasks: Iterable[TaskState]) -> Iterator[e.Ref]:
        """What the prompts of these tasks are made from."""
        for task in tasks:
            yield from (ref for ref in {task.item, task.input} if ref is not None)
            for need in self._plan.step(task.step).answers:
                yield from (answer.output for answer in self._of_row(need, task.index) if answer.output is not None)

    def _value(self, ref: e.Ref) -> Any:
        content = self._at_hand[ref] if ref in self._at_hand else self._contents.get((ref,))[ref]
        return msgspec.json.decode(content)


def _entry(number: int, one: e.Recalled, texts: Mapping[e.Ref, bytes]) -> dict[str, Any]:
    """A memory as a template has it. `date` is when it was so, in UTC."""
    heading = texts.get(one.heading or "", b"").decode()
    return {
        "id": f"m{number}",
        "uid": one.uid,
        "text": texts[one.body].decode(),
        "source": memories.source_of(one.path, heading, one.page, one.by),
        "file": memories.file_of(one.path),
        "path": one.path,
        "heading": heading,
        "page": one.page,
        "kind": one.kind.value,
        "date": datetime.fromtimestamp(one.at, UTC).strftime("%Y-%m-%d"),
        "score": round(one.score, 4),
    }
