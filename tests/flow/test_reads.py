"""The names of what a template reads: never fewer than it does."""

from __future__ import annotations

import pytest

from gx.flow.params import resolve_params
from gx.flow.parse import parse_recipe
from gx.flow.plan import make_plan
from gx.flow.privacy import private_fields, steps_private
from gx.flow.reads import fields_in


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        ("Hello", set()),
        ("{{ item.id }}: {{ item['text'] }}", {"item.id", "item.text"}),
        ("{% for t in items %}{{ t.summary }}{% endfor %}", {"items.summary"}),
        ("{% for t in items %}x{% endfor %}", {"items"}),
        ("{% for t in items %}{{ t }}{% endfor %}", {"items"}),
        ("{% for t in items if t.ok %}{{ t.a }}{% else %}{{ id }}{% endfor %}", {"items.ok", "items.a", "id"}),
        ("{% for a in items %}{% for b in a.parts %}{{ b.x }}{{ a.y }}{% endfor %}{% endfor %}",
         {"items.parts.x", "items.y"}),
        ("{{ steps.triage.summary }}{{ steps.x[0].y }}", {"steps.triage.summary", "steps.x.y"}),
        ("{{ items | map(attribute='a') | join }}", {"items"}),
        ("{{ item | tojson }}{{ item.text | upper }}", {"item", "item.text"}),
        ("{{ item.get('email') }}{{ item.text.upper() }}", {"item", "item.text"}),
        ("{% for k, v in item.items() %}{{ v }}{% endfor %}", {"item"}),
        ("{{ item[params.field] }}", {"item", "params.field"}),
        ("{% set t = item %}{{ t.text }}", {"item"}),
        ("{% if params.x %}{% set item = 1 %}{% endif %}{{ item.text }}", {"params.x", "item.text"}),
        ("{% macro m(x) %}{{ x.email }}{% endmacro %}{{ m(item) }}", {"item"}),
        ("{{ item.a if matrix.b else item.c }}", {"item.a", "item.c", "matrix.b"}),
        ("{% for item in items %}{{ item.n }}{% endfor %}{{ item.m }}", {"items.n", "item.m"}),
    ],
)  # fmt: skip
def test_the_fields_of_a_template_are_read_off_its_text(template: str, fields: set[str]) -> None:
    assert fields_in(template) == fields


RECIPE = """\
version: 1
name: mail
private: [email]
models: {m: x}
agents:
  reader:
    output: {type: object, required: [topic, name], properties: {topic: {type: string}, name: {type: string}}}
  writer: {}
  local: {private: true}
steps:
  - {id: read, for_each: inputs, agent: reader, prompt: "{{ item.text }} from {{ item.email }}", share: [topic]}
  - {id: plain, for_each: inputs, agent: writer, prompt: "{{ item.text }}"}
  - {id: all, for_each: inputs, agent: writer, prompt: "{{ item }}"}
  - {id: topics, reduce: read, agent: writer, prompt: "{% for t in items %}{{ t.topic }}{% endfor %}"}
  - {id: names, reduce: read, agent: writer, prompt: "{% for t in items %}{{ t.name }}{% endfor %}"}
  - {id: after, needs: [names], agent: writer, prompt: "{{ steps.names }}"}
  - {id: again, for_each: plain, agent: writer, prompt: "{{ item }}", when: "input.email != ''"}
  - {id: here, agent: local, prompt: Hello}
  - {id: kept, agent: writer, prompt: Hello, private: true}
"""


def test_what_a_recipe_says_of_its_privacy_is_known_before_it_runs_with_the_reason() -> None:
    recipe = parse_recipe(RECIPE)
    found = steps_private(make_plan(recipe, resolve_params(recipe, {})))
    assert {step: outlook.reason for step, outlook in found.items()} == {
        "read": "reads item.email",
        "plain": "",
        "all": "reads item",
        "topics": "",
        "names": "reads items.name, made by read, which is private",
        "after": "reads steps.names, made by names, which is private",
        "again": "reads input.email",
        "here": "agent local is private",
        "kept": "step kept is private",
    }
    assert found["topics"].reads == ("items.topic",)  # what its higher levels read are its own answers


def test_an_id_that_an_input_makes_of_a_private_field_is_private_too() -> None:
    assert private_fields(parse_recipe(RECIPE.replace("[email]", "[custom_id]"))) == {"custom_id", "id"}
    assert private_fields(parse_recipe(RECIPE.replace("[email]", "[path]"))) == {"path", "id"}
