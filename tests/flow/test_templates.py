"""Templates that would eat the machine, or give what is no text, fail with a reason; a `when` is decided early."""

from __future__ import annotations

import time

import pytest

from gx.core.errors import RecipeError, UsageError
from gx.flow.parse import plan_recipe
from gx.flow.templates import MAX_CPU_S, TemplateFailure, render


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{{ 'x'.zfill(99999999999) }}", "unsafe"),
        ("{{ item.text.ljust(99999999999) }}", "unsafe"),
        ("{{ 'x' * 99999999999 }}", "repetition"),
        ("{{ '\\ud800' }}", "surrogate"),
        ("{{ item.text[::0] }}", "slice step"),
        ("{{ item.text | truncate(2) }}", "expected length >= 3"),
        ("{{ item.nothing }}", "lacks"),
    ],
)
def test_a_template_that_goes_wrong_is_a_failure_with_a_reason(template: str, reason: str) -> None:
    with pytest.raises(TemplateFailure) as caught:
        render(template, {"item": {"text": "a text"}})
    assert reason in caught.value.message


MANY = {"item": {"text": "a text", "list": list(range(2_000)), "tree": [{"c": [1, 2]}]}}
ENDLESS = [
    "{% for a in item.list %}{% for b in item.list %}{{ a }}{% endfor %}{% endfor %}",
    "{% for a in item.list %}{% for b in item.list %}{% endfor %}{% endfor %}",
    "{% for a in item.list if item.list | select('gt', a) | list %}{% for b in item.list %}{% endfor %}{% endfor %}",
    "{% for a in item.text * 1000000 %}{% endfor %}",
    "{% for a in item.text * 100000 %}{% for b in item.text * 100000 %}{% endfor %}{% endfor %}",
    "{% for a in item.list | map('string') %}{% for b in item.list | reverse %}{% endfor %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{% set a = m(n - 1) ~ m(n - 1) %}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% for a in item.list recursive %}{% if loop.depth < 9 %}{{ loop(item.list) }}{% endif %}{% endfor %}",
    "{% for a in item.list %}{% block b scoped %}{% for b in item.list %}{% endfor %}{% endblock %}{% endfor %}",
    "{% for a in item.list %}{% set x = ('x' * 8000000) | upper | lower | title %}{% endfor %}",
]


@pytest.mark.parametrize("template", ENDLESS)
def test_a_template_that_would_take_for_ever_is_given_up(template: str) -> None:
    began_s = time.thread_time()
    with pytest.raises(TemplateFailure, match="more work than") as caught:
        render(template, MANY)
    assert caught.value.code == "template.too_long" and time.thread_time() - began_s < 3 * MAX_CPU_S


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (
            "{% for a in item.list[:3] %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% endfor %}",
            "1/3,2/3,3/3",
        ),
        ("{% for a in item.none %}{{ a }}{% else %}nothing{% endfor %}", "nothing"),
        ("{% for k, v in item.pair.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"),
        ("{% for a in [1, 2, 3] if a != 2 %}{{ loop.index }}{{ a }}{% endfor %}", "1123"),
        ("{% for a in [[1, [2]], 3] recursive %}{{ loop(a) if a is iterable else a }};{% endfor %}", "1;2;;;3;"),
    ],
)
def test_loops_are_what_they_were(template: str, text: str) -> None:
    names = {"item": {"text": "a text", "list": [7, 8, 9, 10], "none": [], "pair": {"a": 1}}}
    assert render(template, names) == text


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
    with pytest.raises(RecipeError, match="the `when` of step `second`: ") as caught:
        plan_recipe(GATE.replace("WHEN", when), {}, file="gate.yaml")
    assert caught.value.place == "gate.yaml:9:50" and when in caught.value.snippet


def test_a_when_that_reads_a_parameter_yet_to_be_given_is_decided_when_it_is() -> None:
    text = GATE.replace("WHEN", "params.most > 2").replace("{most: 3}", "{most: {type: integer, required: true}}")
    assert plan_recipe(text, None).step("second").gate == "params.most > 2"
    with pytest.raises(UsageError, match="`most` has no default"):
        plan_recipe(text, {})
    assert plan_recipe(text, {"most": "1"}).params == {"most": 1}


def test_a_when_that_can_be_decided_either_way_is_planned() -> None:
    plan = plan_recipe(GATE.replace("WHEN", "all_ok() and params.most > 2"), {})
    assert plan.step("second").gate == "all_ok() and params.most > 2"
