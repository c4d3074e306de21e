"""The published schema and the parser agree: what one refuses, the other refuses too."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gx.core.errors import RecipeError
from gx.flow.grammar import RECIPE
from gx.flow.parse import parse_recipe
from gx.flow.schema import recipe_schema
from gx.flow.yamltree import read_yaml

SLOW = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


def in_python(schema: Any) -> Any:
    """The same schema with `$` as ECMAScript means it: the end of the text, and not before a last newline."""
    if isinstance(schema, dict):
        return {
            key: part.replace("$", r"\Z") if key == "pattern" and isinstance(part, str) else in_python(part)
            for key, part in schema.items()
        }
    return [in_python(part) for part in schema] if isinstance(schema, list) else schema


SCHEMA = in_python(recipe_schema())
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """JSON that fits a schema, for the part of draft-07 that the published schema uses."""
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema and "type" not in schema:
        return st.one_of([values(part) for part in schema["anyOf"]])
    if isinstance(schema["type"], list):
        return st.one_of([values(schema | {"type": kind}) for kind in schema["type"]])
    made = _KINDS[schema["type"]](schema)
    return made.filter(jsonschema.Draft7Validator(schema).is_valid) if "allOf" in schema else made


def _texts(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 200)
    if "pattern" in schema:
        return st.from_regex(schema["pattern"]).filter(lambda text: least <= len(text) <= most)
    return st.text(min_size=least, max_size=min(most, 20))


def _numbers(schema: dict[str, Any]) -> st.SearchStrategy[float]:
    least, above, most = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    floats = st.floats(least if above is None else above, most, exclude_min=above is not None, allow_nan=False)
    return st.one_of(floats.filter(lambda number: abs(number) < 1e300), _whole(schema))


def _whole(schema: dict[str, Any]) -> st.SearchStrategy[int]:
    least = schema.get("minimum", schema.get("exclusiveMinimum", -2))
    return st.integers(least, schema.get("maximum")).filter(lambda number: number != schema.get("exclusiveMinimum"))


def _lists(schema: dict[str, Any]) -> st.SearchStrategy[list[Any]]:
    if "items" not in schema:
        return st.lists(st.integers(), max_size=2)
    items = st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=2)
    return items.filter(jsonschema.Draft7Validator(schema).is_valid)


def _objects(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    if {"minProperties": 1, "maxProperties": 1} in schema.get("allOf", ()):
        return st.one_of([st.fixed_dictionaries({key: values(part)}) for key, part in schema["properties"].items()])
    if "properties" in schema:
        parts = {key: values(part) for key, part in schema["properties"].items()}
        required = {key: parts[key] for key in schema.get("required", ())}
        optional = {key: part for key, part in parts.items() if key not in required}
        return st.fixed_dictionaries(required, optional=optional)
    if "additionalProperties" not in schema:
        return st.dictionaries(st.text(max_size=4), st.integers(), max_size=3)
    names = _texts(schema["propertyNames"])
    return st.dictionaries(
        names, values(schema["additionalProperties"]), min_size=schema.get("minProperties", 0), max_size=2
    )


_KINDS = {
    "string": _texts,
    "number": _numbers,
    "integer": _whole,
    "boolean": lambda _: st.booleans(),
    "array": _lists,
    "object": _objects,
}
RECIPES = values(SCHEMA)


def as_yaml(value: Any) -> str:
    """The value as JSON, which is YAML too. DEL is the one character that JSON leaves as it is and YAML refuses."""
    return json.dumps(value, indent=1).replace("\x7f", "\\u007f")


def plain(value: Any) -> Any:
    """The same, with texts that are no templates."""
    if isinstance(value, str):
        return value.replace("{", "x")
    if isinstance(value, list):
        return [plain(part) for part in value]
    return {key: plain(part) for key, part in value.items()} if isinstance(value, dict) else value


def repaired(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with its references made good: names that exist, ids that differ, templates without names."""
    recipe = json.loads(json.dumps(recipe))
    model, agent = next(iter(recipe["models"])), next(iter(recipe["agents"]))
    for one in recipe["agents"].values():
        one["model"] = model
        one.pop("output", None)
        one.pop("choose", None)
        one.pop("grammar", None)
        one |= {key: plain(one[key]) for key in ("memory",) if key in one}
        if "persona" in one:
            one["persona"] = "You are kind."
    for name, param in recipe.get("params", {}).items():
        if isinstance(param, dict):
            recipe["params"][name] = {"default": param.get("default", "x")}
    done: list[str] = []
    for number, step in enumerate(recipe["steps"]):
        step["id"], step["agent"] = f"s{number}", agent
        step |= {key: "Hello" for key in ("prompt", "combine") if key in step}
        step |= {key: plain(step[key]) for key in ("memory", "remember") if key in step}
        for key in ("agents", "needs", "reduce", "for_each", "when", "matrix", "share"):
            step.pop(key, None)
        if "combine" in step:
            if done and "memory" not in step and "memory" not in recipe["agents"][agent]:
                step["reduce"] = done[-1]
            else:
                del step["combine"]
        if "prompt" not in step:
            step["prompt"] = "Hello"
        done.append(step["id"])
    for number, rule in enumerate(recipe.get("rules", ())):
        rule |= {"id": f"r{number}", "query": "SELECT $run = ''"}
        rule["do"] |= {key: "s0" for key in ("pause", "continue") if key in rule["do"]}
        if "route" in rule["do"]:
            rule["do"]["route"] = {"step": "s0", "agent": agent}
        if isinstance(rule["do"].get("ask"), dict):
            rule["do"]["ask"] = {"text": "Well?"}
    recipe.pop("output", None)
    return recipe


def test_the_schema_is_a_draft_7_schema_whose_keys_all_teach() -> None:
    jsonschema.Draft7Validator.check_schema(recipe_schema())

    def keys(schema: Any) -> list[tuple[str, Any]]:
        if isinstance(schema, list):
            return [pair for part in schema for pair in keys(part)]
        if not isinstance(schema, dict):
            return []
        own = list(schema["properties"].items()) if "additionalProperties" in schema and "properties" in schema else []
        return own + [pair for part in schema.values() for pair in keys(part)]

    found = keys(recipe_schema())
    assert len(found) > 40
    assert [name for name, part in found if not part.get("description", "").endswith(".")] == []


def test_what_is_not_built_yet_is_not_in_the_schema() -> None:
    text = json.dumps(recipe_schema())
    for word in ('"tool"', '"swarm"', '"tools"', '"evolve"'):
        assert word not in text


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in parts for place in places(part, (*path, key)))]


def spoilt(recipe: dict[str, Any], data: st.DataObject) -> Any:
    """The recipe with something else in one of its places."""
    recipe = json.loads(json.dumps(recipe))
    place = data.draw(st.sampled_from(places(recipe)))
    new = data.draw(st.sampled_from([None, True, -1, 0, 3, 1.5, "", "x", "a b", {}, [], ["x"], {"x": 1}]))
    if not place or not data.draw(st.booleans()):
        return recipe | {str(place[0]): new} if place else new
    owner: Any = recipe
    for part in place[:-1]:
        owner = owner[part]
    if isinstance(owner, dict) and data.draw(st.booleans()):
        owner["nmae"] = new
    elif isinstance(owner, dict) and data.draw(st.booleans()):
        del owner[place[-1]]
    else:
        owner[place[-1]] = new
    return recipe


@SLOW
@given(RECIPES, st.data())
def test_the_parser_takes_what_the_schema_allows_and_nothing_else(recipe: dict[str, Any], data: st.DataObject) -> None:
    assert set(RECIPE.read(read_yaml(as_yaml(recipe), file="recipe.yaml"))) <= set(recipe)
    good = repaired(recipe)  # its references: the schema knows nothing of those
    VALIDATOR.validate(good)
    assert len(parse_recipe(as_yaml(good)).steps) == len(good["steps"])
    for _ in range(8):
        bad = spoilt(good, data)
        if not VALIDATOR.is_valid(bad):
            with pytest.raises(RecipeError):
                parse_recipe(as_yaml(bad))


@pytest.mark.parametrize(
    "seconds", ["1s", "500ms", "1h30m", "0s", "", "1 s", "5x", "30", "1s\n", "1m1h", 0, 1, -1, 0.5, 2e9, True]
)
def test_durations_are_the_same_to_both(seconds: object) -> None:
    recipe = {
        "version": 1, "name": "n", "models": {"m": "x"}, "agents": {"a": {}}, "deadline": seconds,
        "steps": [{"id": "s", "agent": "a", "prompt": "p"}],
    }  # fmt: skip
    is_valid = VALIDATOR.is_valid(recipe)
    try:
        parse_recipe(as_yaml(recipe))
    except RecipeError:
        assert not is_valid
    else:
        assert is_valid
