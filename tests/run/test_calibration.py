"""A turn that chooses is compared with the same prompt about nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.desk import open_desk
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


async def test_the_baselines_are_the_steps_own_prompt_without_content(tmp_path: Path) -> None:
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
