"""A turn that chooses is compared with its step's first rows, or where they are few, with prompts about nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import anyio.lowlevel
import pytest

from gx.core.task import Status
from gx.flow.params import resolve_params
from gx.flow.parse import parse_recipe
from gx.flow.plan import make_plan
from gx.run.calibration import BATCH_ROWS, LEAST_ROWS
from gx.run.inputs import Row
from gx.run.rehearsal import Rehearsal
from tests.desk import open_desk, rows_of
from tests.fakes import ScriptedWorker

pytestmark = pytest.mark.anyio
RECIPE = """
version: 1
name: sort
models: {m: smollm2}
agents: {a: {model: m, persona: You sort., output: {enum: [x, y]}, choose: calibrated}}
steps:
  - {id: s, for_each: inputs, agent: a, prompt: "Ticket {{ item.id }} of {{ item.year }}: {{ item.text }}"}
"""


async def test_few_rows_are_compared_with_prompts_about_nothing(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ScriptedWorker()) as desk:
        await desk.run(RECIPE, [{"id": "a", "year": 2031, "text": "one"}, {"id": "b", "year": 2031, "text": "two"}])
        first, second = desk.worker.submitted
    assert first.choice == "calibrated" and first.baselines == second.baselines
    assert [chat[-1].content for chat in first.baselines] == [
        "Ticket N/A of 2031: N/A",
        "Ticket  of 2031: ",
        "Ticket [MASK] of 2031: [MASK]",
    ]
    assert all(chat[0].content == "You sort." for chat in first.baselines)
    assert first.key() != second.key()


def tickets(count: int) -> list[dict[str, str | int]]:
    return [{"id": f"t{n}", "year": 2031, "text": f"text {n}"} for n in range(count)]


async def test_many_rows_are_compared_with_the_first_of_them(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ScriptedWorker()) as desk:
        await desk.run(RECIPE, tickets(BATCH_ROWS + 8))
    turns = desk.worker.submitted
    assert len(turns) == BATCH_ROWS + 8 and len({turn.baselines for turn in turns}) == 1
    asked = [chat[-1].content for chat in turns[0].baselines]
    assert asked == [f"Ticket t{n} of 2031: text {n}" for n in range(BATCH_ROWS)]
    assert all(chat[0].content == "You sort." for chat in turns[0].baselines)


async def test_as_many_rows_as_there_are_will_do_from_16_on(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ScriptedWorker()) as desk:
        await desk.run(RECIPE, tickets(LEAST_ROWS))
    assert {len(turn.baselines) for turn in desk.worker.submitted} == {LEAST_ROWS}


async def test_rows_that_come_one_by_one_are_compared_with_the_same_as_those_that_come_at_once(tmp_path: Path) -> None:
    is_read = Event()

    def slowly() -> Iterator[Row]:
        rows = list(rows_of(tickets(BATCH_ROWS + 2)))
        yield from rows[:5]
        is_read.wait(60)
        yield from rows[5:]

    for name in ("slow", "fast"):
        (tmp_path / name).mkdir()
    async with open_desk(tmp_path / "slow", ScriptedWorker()) as desk:
        active = await desk.begin(RECIPE, slowly())
        while len(active.state.rows) < 5:
            await anyio.lowlevel.checkpoint()
        assert not desk.worker.submitted
        is_read.set()
        await desk.finish(active)
        slow = {turn.key() for turn in desk.worker.submitted}
    async with open_desk(tmp_path / "fast", ScriptedWorker()) as desk:
        await desk.run(RECIPE, tickets(BATCH_ROWS + 2))
        assert slow == {turn.key() for turn in desk.worker.submitted}


async def test_an_answer_is_not_reused_under_another_calibration(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ScriptedWorker()) as desk:
        await desk.run(RECIPE, tickets(40), run="one")
        _, same = await desk.run(RECIPE, tickets(40), run="two")
        _, other = await desk.run(RECIPE, tickets(40)[1:], run="three")
    assert all(record["cached"] for record in same)
    assert not any(record["cached"] for record in other)


async def test_rows_without_a_usable_prompt_are_left_out(tmp_path: Path) -> None:
    rows: list[Any] = [ValueError("not JSON"), {"id": "no year", "text": "x"}, *tickets(20)]
    async with open_desk(tmp_path, ScriptedWorker()) as desk:
        state, _ = await desk.run(RECIPE, rows)
    assert state.count(Status.failed) == 2
    assert {len(turn.baselines) for turn in desk.worker.submitted} == {20}


def test_a_rehearsal_compares_with_the_rows_of_its_sample() -> None:
    recipe = parse_recipe(RECIPE)
    plan = make_plan(recipe, resolve_params(recipe, {}))
    rehearsal = Rehearsal(plan, plan.steps[0], list(rows_of(tickets(50))), {"m": "sha-m"})
    assert len(rehearsal.turns) == 50 and len(rehearsal.turns[0].baselines) == BATCH_ROWS
