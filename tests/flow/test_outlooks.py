"""What is said of a step beforehand: it may leave, it stays here, or that depends on which memories are found."""

from __future__ import annotations

import pytest

from gx.cli.leave import leaves_told
from gx.flow.params import resolve_params
from gx.flow.parse import parse_recipe
from gx.flow.plan import make_plan
from gx.flow.privacy import Outlook, steps_private

RECIPE = """\
version: 1
name: t
private: [email]
models: {m: ./m.gguf}
agents:
  a: {model: m, memory: {namespace: docs, k: 2, query: "{{ item.text }}"}}
  b: {model: m}
steps:
  - {id: found, for_each: inputs, agent: a, prompt: "{{ item.text }}"}
  - {id: plain, for_each: inputs, agent: b, prompt: "{{ item.text }}"}
  - {id: after, for_each: found, agent: b, prompt: "{{ item }}"}
  - {id: secret, for_each: inputs, agent: a, prompt: "{{ item.email }}"}
"""


def outlooks() -> dict[str, Outlook]:
    recipe = parse_recipe(RECIPE)
    return steps_private(make_plan(recipe, resolve_params(recipe, {})))


def test_a_step_that_reads_memories_and_what_is_made_of_it_may_leave_if_those_that_are_found_are_shared() -> None:
    found = outlooks()
    assert {name: (bool(one.reason), one.depends) for name, one in found.items()} == {
        "found": (True, True),
        "plain": (False, False),
        "after": (True, True),
        "secret": (True, False),
    }
    assert "item.email" in found["secret"].reason


def test_nobody_is_told_that_a_step_stays_here_which_a_shared_memory_would_send_away(
    capsys: pytest.CaptureFixture[str],
) -> None:
    leaves_told(outlooks())
    said = capsys.readouterr().err.splitlines()
    unless = ", unless a memory is in them that is not shared"
    assert any(f"may leave this machine: prompts of step found{unless} (it reads " in line for line in said), said
    assert any("may leave this machine: prompts of step plain (it reads" in line for line in said)
    assert [line for line in said if "stays here" in line] == ["stays here: step secret: reads item.email"]
