"""A dry run says which steps are private and why, before anything ran."""

from __future__ import annotations

import json

from gx.flow.params import resolve_params
from gx.flow.parse import parse_recipe
from gx.flow.plan import make_plan
from gx.run.dryrun import Forecast, Forecaster, absent_fields
from gx.run.inputs import Row
from gx.run.rehearsal import Survey, survey

HEAD = """\
version: 1
name: mail
private: [email]
models: {m: x}
agents: {a: {}, b: {private: true}}
steps:
"""
ROWS = [
    Row(index=n, id=str(n), value=json.dumps({"text": f"text {n}", "email": f"ann{n}", "old": n % 2}).encode())
    for n in range(4)
]


def looked_at() -> Survey:
    return survey(ROWS)


def forecast(*steps: str) -> dict[str, Forecast]:
    recipe = parse_recipe(HEAD + "".join(f"  - {step}\n" for step in steps))
    forecaster = Forecaster(
        make_plan(recipe, resolve_params(recipe, {})),
        looked_at(),
        models={"m": "sha"},
        contexts={},
        find_past=lambda model, step: None,
        find_results=lambda keys: (),
    )
    return {made.step: made for made in forecaster.steps()}


def test_a_step_over_rows_is_as_private_as_the_tasks_that_were_rendered() -> None:
    made = forecast(
        '{id: open, for_each: inputs, agent: a, prompt: "{{ item.text }} {{ params | length }}"}',
        '{id: all, for_each: inputs, agent: a, prompt: "{{ item.text }} {{ item.email }}"}',
        '{id: some, for_each: inputs, agent: a, prompt: "{{ item.text }}{{ item.email if item.old else 1 }}"}',
        '{id: here, for_each: inputs, agent: b, prompt: "{{ item.text }}"}',
    )
    assert {name: step.private for name, step in made.items()} == {
        "open": "",
        "all": "reads item.email",
        "some": "reads item.email in 2 of 4 rendered",
        "here": "agent b is private",
    }
    assert made["open"].reads == ("item.text", "params")


def test_a_step_over_results_is_as_private_as_its_text_says() -> None:
    made = forecast(
        '{id: all, for_each: inputs, agent: a, prompt: "{{ item.email }}"}',
        '{id: next, for_each: all, agent: a, prompt: "{{ item }}"}',
        '{id: fine, for_each: all, agent: a, prompt: "{{ input.text }}"}',
    )
    assert made["next"].private == "reads item, made by all, which is private" and made["fine"].private == ""


def test_a_private_field_that_no_row_has_is_named() -> None:
    assert absent_fields(["email", "emial"], looked_at()) == ["emial"]
    assert absent_fields(["email"], Survey()) == []
