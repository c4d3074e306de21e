"""`answers.x`: what a step before made of a task's own row, by the names of its matrix, with its label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gx.core.message import Answer, Failure, Outcome, Turn, Usage
from gx.run.egress import PrivateTurn
from tests.desk import open_desk
from tests.fakes import ScriptedWorker

pytestmark = pytest.mark.anyio

HEAD = """\
version: 1
name: panel
MARKS
models: {m: x}
agents:
  careful: &reader
    persona: careful
    output: {type: object, required: [x, y], properties: {x: {type: string}, y: {type: string}}}
  bold: {<<: *reader, persona: bold}
  judge: {persona: judge}
steps:
"""
ROWS = [{"id": f"T{n}", "email": f"ann{n}@example.org", "text": f"text {n}"} for n in range(2)]
OPINIONS = "  - {id: read, for_each: inputs, agents: [careful, bold], prompt: 'PROMPT'}\n"


def as_asked(turn: Turn) -> Outcome:
    """What was asked, said by who was asked; the bold one has nothing to say of row 1."""
    who, asked = turn.messages[0].content, turn.messages[-1].content
    if who == "bold" and asked.endswith("1"):
        return Failure(code="none", message="no answer", retryable=False)
    value: Any = {"x": f"{who} x {asked}", "y": f"{who} y"} if turn.output_schema is not None else asked
    return Answer(value=msgspec.Raw(json.dumps(value).encode()), usage=Usage(tokens_in=1, tokens_out=1))


async def asked(
    folder: Path,
    prompt: str,
    *,
    more: str = "",
    reads: str = "{{ item.text }}",
    marks: str = "",
    before: str = OPINIONS,
) -> tuple[list[str], set[bool]]:
    """What the judge is asked of each row, and whether any of it may not leave."""
    judge = "  - {id: judge, for_each: inputs, needs: read, agent: judge, prompt: " + json.dumps(prompt) + more + "}\n"
    recipe = HEAD.replace("MARKS", marks) + before.replace("PROMPT", reads) + judge
    async with open_desk(folder, ScriptedWorker(as_asked)) as desk:
        await desk.run(recipe, ROWS)
        turns = [turn for turn in desk.worker.submitted if turn.messages[0].content == "judge"]
    turns.sort(key=lambda turn: turn.messages[-1].content.rpartition("#")[2])
    return [turn.messages[-1].content for turn in turns], {isinstance(turn, PrivateTurn) for turn in turns}


async def test_a_row_has_the_answers_about_itself_by_the_agents_that_gave_one(tmp_path: Path) -> None:
    every = "{% for who, said in answers.read.items() %}{{ who }}: {{ said.x }}; {% endfor %}#{{ index }}"
    assert (await asked(tmp_path, every))[0] == [
        "careful: careful x text 0; bold: bold x text 0; #0",
        "careful: careful x text 1; #1",
    ]


async def test_several_names_in_a_matrix_are_mappings_of_mappings(tmp_path: Path) -> None:
    by_tone = OPINIONS.replace("prompt:", "matrix: {n: [1.5, true]}, prompt:")
    told, _ = await asked(
        tmp_path, "{{ answers.read.careful['true'].y }} {{ answers.read.bold | length }}", before=by_tone
    )
    assert told == ["careful y 2"]  # of row 1 there is no bold one, so its task fails


async def test_the_answer_of_a_step_without_a_matrix_is_itself_and_null_where_there_is_none(tmp_path: Path) -> None:
    alone = OPINIONS.replace("agents: [careful, bold]", "agent: bold")
    told, _ = await asked(tmp_path, "{{ answers.read }}#{{ index }}", before=alone, more=", when: always()")
    assert told == ['{"x": "bold x text 0", "y": "bold y"}#0', "null#1"]


async def test_a_when_may_ask_for_answers_row_by_row(tmp_path: Path) -> None:
    told, _ = await asked(tmp_path, "{{ index }}", more=", when: answers.read | length > 1")
    assert told == ["0"]


@pytest.mark.parametrize(
    ("prompt", "reads", "share", "is_private"),
    [
        ("{{ answers.read.careful.y }}", "{{ item.text }}", "", False),
        ("{{ answers.read.careful.y }}", "{{ item.email }}", "", True),
        ("{{ answers.read.careful.y }}", "{{ item.email }}", ", share: [y]", False),
        ("{{ answers.read.careful.x }}", "{{ item.email }}", ", share: [y]", True),
        ("{{ answers.read }}", "{{ item.email }}", ", share: [y]", True),
        ("{{ answers.read }}", "{{ item.email }}", ", share: true", False),
        ("{{ answers.read | length }}", "{{ item.email }}", "", False),
    ],
)
async def test_an_answer_is_as_private_as_what_it_was_made_from(
    tmp_path: Path, prompt: str, reads: str, share: str, is_private: bool
) -> None:
    before = OPINIONS.replace("}\n", share + "}\n")
    _, private = await asked(tmp_path, prompt, reads=reads, marks="private: [email]", before=before)
    assert private == {is_private}
