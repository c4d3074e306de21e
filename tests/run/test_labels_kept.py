"""What the log keeps of something private is marked as such: rows, prompts, answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from gx.core import event as e
from gx.core.message import Label
from tests.desk import open_desk

pytestmark = pytest.mark.anyio

RECIPE = """
version: 1
name: mail
models: {m: smollm2}
agents: {a: {model: m, persona: You answer.}}
private: [email]
steps:
  - {id: answer, for_each: inputs, agent: a, prompt: "Answer {{ item.email }}"}
  - {id: sort, for_each: inputs, agent: a, prompt: "Sort {{ item.topic }}"}
output: sort
"""


async def test_rows_and_answers_of_private_tasks_are_private_in_the_log(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        rows = [{"id": "1", "email": "a@b.c", "topic": "bills"}, {"id": "2", "topic": "bugs"}]
        await desk.run(RECIPE, rows)
        labels = dict(desk.log.file.ask("SELECT digest, label FROM blobs", []))
        read = [row for body in desk.bodies(e.InputsRead) for row in body.rows]
        assert [labels[row.item] for row in read] == [Label.private.value, Label.shared.value]
        queued = {body.task: body for body in desk.bodies(e.TaskQueued)}
        kept = {(queued[b.task].step, queued[b.task].index): labels[b.output] for b in desk.bodies(e.TaskSucceeded)}
        assert kept[("answer", 0)] == Label.private.value
        assert kept[("sort", 0)] == kept[("sort", 1)] == Label.shared.value
