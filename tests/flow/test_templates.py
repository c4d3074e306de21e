"""Templates that would eat the machine, or give what is no text, fail with a reason; a `when` is decided early."""

from __future__ import annotations

import pytest

from gx.core.errors import RecipeError
from gx.flow.parse import parse_recipe, resolve_params
from gx.flow.plan import make_plan
from gx.flow.templates import TemplateFailure, render


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{{ 'x'.zfill(99999999999) }}", "unsafe"),
        ("{{ item.text.ljust(99999999999) }}", "unsafe"),
        ("{{ 'x' * 99999999999 }}", "repetition"),
        ("{{ '\\ud800' }}", "surrogate"),
        ("{{ item.text[::0] }}", "slice step"),
        ("{{ item.nothing }}", "lacks"),
    ],
)
def test_a_template_that_goes_wrong_is_a_failure_with_a_reason(template: str, reason: str) -> None:
    with pytest.raises(TemplateFailure) as caught:
        render(template, {"item": {"text": "a text"}})
    assert reason in caught.value.message


GATE = """
version: 1
name: gate
params: {most: 3}
models: {m: smollm2}
agents: {a: {model: m}}
steps:
  - {id: first, agent: a, prompt: Say it.}
  - {id: second, needs: [first], agent: a, when: "WHEN", prompt: Say it again.}
"""


@pytest.mark.parametrize(
    "when", ["params.most > 'x'", "all_ok() or params.most.x.y", "any_ok() and params.most / 0 > 1"]
)
def test_a_when_that_cannot_be_decided_is_refused_before_anything_runs(when: str) -> None:
    recipe = parse_recipe(GATE.replace("WHEN", when))
    with pytest.raises(RecipeError, match="the `when` of step `second`: "):
        make_plan(recipe, resolve_params(recipe, {}))


def test_a_when_that_can_be_decided_either_way_is_planned() -> None:
    recipe = parse_recipe(GATE.replace("WHEN", "all_ok() and params.most > 2"))
    assert make_plan(recipe, resolve_params(recipe, {})).step("second").gate == "all_ok() and params.most > 2"
