"""`memory`, `remember` and `x-from` in a recipe: what they mean, and what is refused with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gx.core.errors import RecipeError
from gx.core.memory import Kind
from gx.core.recipe import Recall, Recipe, Remember
from gx.flow.memories import NothingFound, before, cited, narrowed, source_of, unsearched
from gx.flow.parse import load_recipe, parse_recipe
from gx.flow.plan import make_plan
from gx.flow.privacy import steps_private
from gx.flow.withheld import PrivateRead, Withheld

TEXT = """\
version: 1
name: n
models: {m: x}
agents: {a: {model: m%s}}
steps:
  - {id: s, agent: a, for_each: inputs, prompt: "{{ item.q }}"%s}
"""


def parsed(agent: str = "", step: str = "") -> Recipe:
    return parse_recipe(TEXT % (agent, step))


def test_a_namespace_stands_for_a_search_in_it_and_a_step_goes_before_its_agent() -> None:
    recipe = parsed(", memory: notes", ", remember: facts")
    assert recipe.steps[0].recall(recipe.agents["a"]) == Recall(namespace="notes")
    assert recipe.steps[0].remember == Remember(namespace="facts")
    asked = "{namespace: '{{ item.who }}', k: 9, kinds: [fact, chunk], min_score: 0.2, live: true, query: '{{ id }}'}"
    recipe = parsed(", memory: notes", f", memory: {asked}")
    assert recipe.steps[0].recall(recipe.agents["a"]) == Recall(
        namespace="{{ item.who }}", k=9, kinds=(Kind.fact, Kind.chunk), min_score=0.2, live=True, query="{{ id }}"
    )


@pytest.mark.parametrize(
    "agent, step, line, said",
    [
        ("", ", memory: {k: 0}", 6, "at least 1"),
        ("", ", memory: {namespce: x}", 6, "namespace"),
        ("", ", memory: {kinds: [chapter]}", 6, "chapter"),
        ("", ", memory: {query: '{{ memories }}'}", 6, "memories"),
        ("", ", memory: '{{ itm.x }}'", 6, "itm"),
        (", memory: '{{ itm.x }}'", "", 4, "itm"),
        ("", ", remember: {kind: chunk}", 6, "chunk"),
        ("", ", remember: {text: '{{ outputs }}'}", 6, "outputs"),
        (", persona: '{{ memories }}', memory: n", "", 4, "memories"),
        (", output: {properties: {c: {x-from: memories.id}}}", "", 4, "expected a `memory` to cite from"),
        (", memory: n, output: {properties: {c: {x-from: memory.id}}}", "", 4, "memory.id"),
        (", memory: n, choose: calibrated, output: {enum: [a, b]}", "", 4, "calibrated"),
    ],
)
def test_what_cannot_be_searched_cited_or_remembered_is_refused_where_it_stands(
    agent: str, step: str, line: int, said: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parsed(agent, step)
    assert caught.value.line == line and said in caught.value.message + caught.value.hint


def test_a_prompt_may_name_what_was_found_only_where_something_is_searched_for() -> None:
    prompt = TEXT.replace("{{ item.q }}", "{{ memories }}")
    with pytest.raises(RecipeError, match="memories"):
        parse_recipe(prompt % ("", ""))
    assert parse_recipe(prompt % (", memory: n", ""))


def test_a_reduce_and_a_row_without_a_prompt_search_for_nothing() -> None:
    reduce = "  - {id: t, agent: a, reduce: s, prompt: '{{ items }}', memory: n}\n"
    with pytest.raises(RecipeError, match="no memory in a reduce"):
        parse_recipe(TEXT % ("", "") + reduce)
    bare = TEXT.replace(', prompt: "{{ item.q }}"', "")
    with pytest.raises(RecipeError, match="`prompt`"):
        parse_recipe(bare % (", memory: n", ""))


def test_a_step_that_searches_is_forecast_to_stay_and_says_what_it_reads() -> None:
    found = steps_private(make_plan(parsed(", memory: {query: '{{ item.z }}'}"), {}))
    assert found["s"].reads == ("item.q", "item.z", "memories") and "memories" in found["s"].reason


ONE = {"id": "m1", "path": "/a/b.md", "file": "b.md", "source": "b.md: H", "uid": "00", "text": "T"}
CITE = {"x-from": "memories.id"}
LIST: dict[str, Any] = {"type": "array", "items": {"type": "string", "x-from": "memories.file"}}


def of(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields}


@pytest.mark.parametrize(
    "schema, some, none",
    [
        (of(c=LIST), of(c={"type": "array", "items": {"enum": ["b.md"]}}), of(c={"type": "array", "maxItems": 0})),
        (of(c={"x-from": "memories.id", "title": "t"}), of(c={"enum": ["m1"], "title": "t"}), of()),
        (
            of(c={"anyOf": [{"x-from": "memories.id"}, {"type": "null"}]}),
            of(c={"anyOf": [{"enum": ["m1"]}, {"type": "null"}]}),
            of(c={"anyOf": [{"type": "null"}]}),
        ),
        (of(c=LIST | {"minItems": 1}) | {"required": ["c"]}, None, None),
        (
            {"$defs": {"c": CITE, "d": {"$ref": "#/$defs/c"}}} | of(c={"$ref": "#/$defs/d"}),
            {"$defs": {"c": {"enum": ["m1"]}, "d": {"$ref": "#/$defs/c"}}} | of(c={"$ref": "#/$defs/d"}),
            {"$defs": {}} | of(),
        ),
        ({"$defs": {"c": CITE}, "required": ["c"]} | of(c={"$ref": "#/$defs/c"}), None, None),
        (of(c={"allOf": [CITE]}), of(c={"allOf": [{"enum": ["m1"]}]}), of()),
        (
            of(c={"prefixItems": [{"type": "null"}, CITE]}),
            of(c={"prefixItems": [{"type": "null"}, {"enum": ["m1"]}]}),
            of(c={"prefixItems": [{"type": "null"}], "maxItems": 1}),
        ),
        (
            of() | {"additionalProperties": CITE, "patternProperties": {"^c": CITE}},
            of() | {"additionalProperties": {"enum": ["m1"]}, "patternProperties": {"^c": {"enum": ["m1"]}}},
            of() | {"additionalProperties": False, "patternProperties": {"^c": False}},
        ),
        ({"type": "string"}, {"type": "string"}, {"type": "string"}),
    ],
)
def test_a_citation_is_one_of_what_was_found(schema: Any, some: Any, none: Any) -> None:
    if some is not None:
        assert narrowed(schema, [ONE, ONE]) == some
        assert narrowed(schema, []) == none
    else:
        assert narrowed(schema, [ONE])
        with pytest.raises(NothingFound):
            narrowed(schema, [])


def test_before_anything_is_searched_for_any_text_may_be_cited() -> None:
    assert unsearched(of(c=LIST) | {"required": ["c"]}) == {
        **of(c={"type": "array", "items": {"type": "string"}}),
        "required": ["c"],
    }


def test_what_is_withheld_can_be_neither_cited_nor_put_before_a_prompt() -> None:
    for found in (Withheld("memories"), [ONE, Withheld("memories")]):
        with pytest.raises(PrivateRead):
            narrowed(of(c=LIST), found)
        with pytest.raises(PrivateRead):
            before("", found)


def test_a_source_has_no_folders() -> None:
    assert source_of("/home/ada/a.pdf", "", 3, "ada") == "a.pdf: page 3"
    assert source_of("/a/b.md", "b.md", None, "") == "b.md"
    assert source_of("", "", None, "learns/s") == "learns/s"


RECIPES = Path(__file__).parents[2] / "recipes"


def test_the_recipes_that_come_with_gx_search_cite_and_remember() -> None:
    asking, research = (load_recipe(RECIPES / f"{name}.yaml") for name in ("ask-the-docs", "researcher"))
    assert list(cited(asking.agents["librarian"].output)) == ["memories.file"]
    read, report = research.steps
    assert read.remember is not None and report.memory is not None and report.memory.live
    assert read.remember.namespace == report.memory.namespace
