"""The parts of texts that are condensed for a run's prompts: the tasks that do it, and what has come of them.

A prompt whose texts are condensed waits, among those that aren't prepared, until the tasks of its parts have ended.
What is known of them is in the run's state, so a restart goes on with the parts that are there, however it would cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from gx.core import event as e
from gx.core.errors import GxError
from gx.core.ids import canonical, task_id
from gx.core.message import Label, Value
from gx.core.task import Status
from gx.core.view import RunState, TaskState
from gx.flow.long import PARTS, is_part
from gx.run.contents import Contents, blob_of

Place = tuple[str | int, ...]


class Part(Value, frozen=True, kw_only=True):
    """What a part's task is made from: its text, where that stands in the prompt, and what the notes are for.

    `number` counts from 1; `tokens` are the most that its notes may have, and `words` what it is told.
    """

    field: tuple[str | int, ...]
    number: int
    of: int
    part: str
    request: str
    words: int
    tokens: int


class Note(NamedTuple):
    """The notes on a part: where its text stands in the prompt, and what they say."""

    field: Place
    ref: e.Ref
    text: str


class Condensing:
    """The parts of one run's prompts, by the prompt's task and by level: notes on notes are the second."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        self._known: dict[str, dict[int, list[TaskState]]] = {}
        self._n_read: dict[str, int] = {}

    def queued(self, task: TaskState, parts: Sequence[Part], label: Label) -> tuple[list[e.Body], list[e.Blob]]:
        """The tasks of a further level of parts, with what they are made from."""
        level, bodies, blobs = len(self._levels(task)), list[e.Body](), list[e.Blob]()
        for part in parts:
            path = f"{task.path}/{level}.{part.number}"
            blob = blob_of(canonical(part), label)
            blobs.append(blob)
            bodies.append(
                e.TaskQueued(
                    run=self._run.id,
                    task=task_id(self._run.id, task.step + PARTS, path),
                    step=task.step + PARTS,
                    path=path,
                    index=task.index,
                    id=f"{task.row_id}/{level}.{part.number}",
                    item=blob.digest,
                    input=task.input,  # whoever erases the row erases its parts
                    matrix=task.matrix or {},
                    level=level,
                    label=label,
                    part_of=task.id,
                )
            )
        return bodies, blobs

    def waits(self, task: TaskState) -> bool:
        """Whether parts of the task's prompt are being condensed."""
        if is_part(task.step):
            return False
        return any(not part.status.is_terminal for level in self._levels(task).values() for part in level)

    def last(self, task: TaskState) -> list[TaskState]:
        """The parts of the last level, all of which have ended; none where nothing was condensed.

        :raises GxError: if notes are missing.
        """
        levels = {} if is_part(task.step) else self._levels(task)
        parts = sorted(levels[max(levels)], key=lambda part: part.order) if levels else []
        for number, part in enumerate(parts, 1):
            if part.status is not Status.succeeded:
                why = part.error[1] if part.error is not None else f"it was {part.status.value}"
                message = f"part {number} of {len(parts)} of its text has no notes: {why}"
                raise GxError(message, code=part.error[0] if part.error is not None else "part")
        return parts

    def _levels(self, task: TaskState) -> dict[int, list[TaskState]]:
        """The parts of the task by level; what was made since is read first."""
        step = task.step + PARTS
        if (state := self._run.steps.get(step)) is not None:
            for part in state.tasks[self._n_read.get(step, 0) :]:
                self._known.setdefault(part.part_of or "", {}).setdefault(part.level, []).append(part)
            self._n_read[step] = len(state.tasks)
        return self._known.get(task.id, {})


def notes(parts: Sequence[TaskState], contents: Contents) -> list[Note]:
    """What has come of the parts, in order. :raises GxError: if a content was erased."""
    found = contents.get([ref for part in parts for ref in (part.item, part.output) if ref is not None])
    return [
        Note(
            field=msgspec.json.decode(found[part.item or ""], type=Part).field,
            ref=part.output or "",
            text=str(msgspec.json.decode(found[part.output or ""])),
        )
        for part in parts
    ]
