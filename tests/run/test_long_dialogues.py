"""Dialogues that are longer than the context: their oldest turns go, or notes stand in their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gx.core import event as e
from gx.core.message import Answer, Turn
from gx.run.inputs import Row
from gx.run.long.telling import words_of
from tests.desk import open_desk
from tests.fakes import ScriptedWorker
from tests.run.test_long_runs import FILLER, LONG, new, tokens

pytestmark = pytest.mark.anyio

BATCH = """
version: 1
name: batch
models: {m: x}
agents: {a: {model: m, persona: Be kind., sampling: {max_tokens: 100}}}
steps: [{id: s, for_each: inputs, agent: a%s}]
"""


def batch_rows(*chats: list[dict[str, str]]) -> Any:
    for index, messages in enumerate(chats):
        value = json.dumps({"messages": messages, "body": {}, "text": ""}).encode()
        yield Row(index=index, line=index + 1, id=str(index), value=value, error=None, is_batch=True)


def said(turns: int) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": f"{n}: " + FILLER * 12} for n in range(turns)]


async def test_a_dialogue_that_is_too_long_loses_its_oldest_turns(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        await desk.run(BATCH % "", batch_rows(said(25)))
        (turn,), (prepared,) = desk.worker.submitted, desk.bodies(e.TaskPrepared)
    assert [m.role for m in turn.messages][:3] == ["system", "user", "assistant"]
    assert turn.messages[0].content == "Be kind." and turn.messages[-1].content.startswith("24: ")
    assert tokens(turn.messages) <= 2048 - 100
    dropped = prepared.shortened.dropped
    assert turn.messages[1].content.startswith(f"{dropped}: ") and prepared.shortened.messages == 26
    # No more than need be: with the turn before, and its answer, it would be too long.
    assert tokens(turn.messages) + 2 * len("10: " + FILLER * 12) // 4 > 2048 - 100


@pytest.mark.parametrize("turns", [25, 121])
async def test_a_dialogue_that_is_too_long_has_notes_in_the_place_of_its_oldest_turns(
    tmp_path: Path, turns: int
) -> None:
    def answer(turn: Turn) -> Answer:
        text = turn.messages[-1].content
        note = "word " * (turn.sampling.max_tokens * 3 // 5) if turns > 25 else "they talked of " + text[-400:-390]
        return Answer(value=msgspec.Raw(msgspec.json.encode(note if text.endswith("Notes:") else "fine")))

    async with open_desk(tmp_path, ScriptedWorker(answer)) as desk:
        _, (record,) = await desk.run(BATCH % ", long: {dialogue: summarise}", batch_rows(said(turns)))
        assert record["status"] == "succeeded"
        *parts, turn = desk.worker.submitted
        (prepared,) = [body for body in desk.bodies(e.TaskPrepared) if body.shortened is not None]
        levels = {body.level for body in desk.bodies(e.TaskQueued) if body.part_of is not None}
        assert len(parts) >= 1 and (max(levels) > 0) == (turns > 25)
        assert all(tokens(one.messages) <= 2048 - 16 for one in parts) and tokens(turn.messages) <= 2048 - 100
    dropped = prepared.shortened.dropped
    notes, rest = turn.messages[1].content.split(f"\n\n{dropped}: ")
    assert notes.startswith("Notes on what was said before:\n") and rest.startswith(FILLER)
    assert [m.role for m in turn.messages[:3]] == ["system", "user", "assistant"]
    assert turn.messages[-1].content.startswith(f"{turns - 1}: ")
    assert "part" in words_of(prepared.shortened) and f"{dropped} oldest" in words_of(prepared.shortened)


async def test_a_dialogue_whose_last_message_is_too_long_is_left_to_the_bench(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        await desk.run(BATCH % "", batch_rows([*said(4), {"role": "user", "content": LONG}]))
        assert len(desk.worker.submitted[0].messages) == 6


async def test_a_dialogue_is_refused_where_the_recipe_says_so(tmp_path: Path) -> None:
    for number, more in enumerate((", long: refuse", ", long: {dialogue: refuse}")):
        async with open_desk(new(tmp_path, number)) as desk:
            await desk.run(BATCH % more, batch_rows(said(25)))
            assert len(desk.worker.submitted[0].messages) == 26
