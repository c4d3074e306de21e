"""An output schema that no answer can be constrained to is refused at its place, and llguidance has the same list."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher

from gx.core.errors import RecipeError
from gx.flow.parse import parse_recipe

RECIPE = """\
version: 1
name: n
models: {m: x}
agents:
  a:
    output: SCHEMA
steps:
  - {id: s, agent: a, prompt: p}
"""

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("uniqueItems", {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
    ("uniqueItems", {"type": "array", "items": {"type": "string"}, "uniqueItems": False}),
    ("not", {"not": {"type": "string"}}),
    ("if", {"type": "object", "if": {}}),
    ("then", {"type": "object", "then": {}}),
    ("else", {"type": "object", "else": {}}),
    ("contains", {"type": "array", "contains": {"type": "string"}}),
    ("minContains", {"type": "array", "minContains": 1}),
    ("maxContains", {"type": "array", "maxContains": 1}),
    ("propertyNames", {"type": "object", "propertyNames": {"pattern": "^a"}}),
    ("dependencies", {"type": "object", "dependencies": {"a": ["b"]}}),
    ("dependentRequired", {"type": "object", "dependentRequired": {"a": ["b"]}}),
    ("dependentSchemas", {"type": "object", "dependentSchemas": {"a": {}}}),
    ("unevaluatedProperties", {"type": "object", "unevaluatedProperties": False}),
    ("unevaluatedItems", {"type": "array", "unevaluatedItems": False}),
    ("$dynamicRef", {"$dynamicRef": "#x"}),
    ("$dynamicAnchor", {"$dynamicAnchor": "x", "type": "string"}),
    ("$recursiveRef", {"$recursiveRef": "#"}),
    ("$recursiveAnchor", {"$recursiveAnchor": True, "type": "string"}),
    ("pattern", {"type": "string", "pattern": "^(?=a)b"}),
    ("pattern", {"type": "string", "pattern": "^(?!a)b"}),
    ("pattern", {"type": "string", "pattern": "(?<=a)b"}),
    ("pattern", {"type": "string", "pattern": "(?<!a)b"}),
    ("pattern", {"type": "string", "pattern": r"\\(?=a)"}),
    ("pattern", {"type": "string", "pattern": r"(a)\1"}),
    ("pattern", {"type": "string", "pattern": r"(?<x>a)\k<x>"}),
    ("pattern", {"type": "string", "pattern": r"(?P<x>a)(?P=x)"}),
    ("pattern", {"type": "string", "pattern": r"\bfoo\b"}),
    ("pattern", {"type": "string", "pattern": r"foo\B"}),
    ("pattern", {"type": "string", "pattern": r"foo\Z"}),
    ("pattern", {"type": "string", "pattern": "(?>a)"}),
    ("pattern", {"type": "string", "pattern": "(?#c)a"}),
    ("patternProperties", {"type": "object", "patternProperties": {"^(?=a)": {"type": "string"}}}),
    ("format", {"type": "string", "format": "idn-email"}),
    ("format", {"type": ["string", "null"], "format": "regex"}),
    ("format", {"format": "colour"}),
    ("minimum", {"type": "integer", "minimum": 5, "maximum": 1}),
]
TAKEN: list[dict[str, Any]] = [
    {"type": "string", "pattern": r"^[(?=a)\\b]+$"},
    {"type": "string", "pattern": r"\(?=a"},
    {"type": "string", "pattern": r"(?<year>\d{4})-(?P<month>\d\d)"},
    {"type": "string", "pattern": r"[[:alpha:]](?:a|b)+?(?i)c\p{L}\z"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "unknown"},
    {"type": "integer", "format": "int32"},
    {"type": "object", "properties": {"not": {"type": "string"}, "if": {"type": "string"}}},
    {"enum": [{"not": 1, "uniqueItems": True}]},
    {"const": {"pattern": "(?=a)"}},
    {"oneOf": [{"type": "string"}, {"type": "integer"}]},
    {"oneOf": [{"const": "a"}, {"const": "b"}]},
    {"allOf": [{"type": "string"}, {"maxLength": 5}]},
    {"type": "array", "prefixItems": [{"type": "string"}], "items": False},
    {"type": "object", "patternProperties": {"^a": {"type": "string"}}},
    {"type": "integer", "minimum": 1, "maximum": 1},
    {"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"},
]
PLACES = [
    lambda schema: schema,
    lambda schema: {"type": "object", "properties": {"a": schema}, "required": ["a"]},
    lambda schema: {"type": "array", "items": schema, "minItems": 1},
    lambda schema: {"anyOf": [schema, {"type": "null"}]},
    lambda schema: {"type": "object", "additionalProperties": schema, "minProperties": 1},
]


def decoders_complaint(schema: dict[str, Any]) -> str:
    return str(LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(schema))))


def refusal(schema: dict[str, Any]) -> RecipeError | None:
    try:
        parse_recipe(RECIPE.replace("SCHEMA", json.dumps(schema)))
    except RecipeError as error:
        return error
    return None


@pytest.mark.parametrize(("keyword", "schema"), REFUSED, ids=[json.dumps(schema) for _, schema in REFUSED])
def test_what_an_answer_cannot_be_constrained_to_is_refused_at_its_place(keyword: str, schema: dict[str, Any]) -> None:
    for placed in (place(schema) for place in PLACES):
        if keyword not in ("minimum", "format") or placed is schema:  # elsewhere llguidance leaves such a part out
            assert decoders_complaint(placed), placed
        error = refusal(placed)
        assert error is not None and (error.line, error.file) == (6, "recipe.yaml") and error.hint
        where = error.snippet[(error.col or 0) - 1 :]
        assert where.startswith((f'"{keyword}"', json.dumps(schema[keyword]), '"^')), where


@pytest.mark.parametrize("schema", TAKEN, ids=json.dumps)
def test_what_an_answer_can_be_constrained_to_is_taken(schema: dict[str, Any]) -> None:
    assert decoders_complaint(schema) == "" and refusal(schema) is None


def test_a_refusal_says_what_to_write_instead() -> None:
    error = refusal({"type": "array", "uniqueItems": True})
    assert error is not None and error.message == (
        "expected what an answer can be constrained to, got `uniqueItems`, which generation doesn't support"
    )
    assert error.hint == "leave it out, and say it in the persona or the prompt"
    error = refusal({"type": "string", "pattern": r"\bfoo"})
    assert error is not None and "a word boundary" in error.message


LONG = 99999999999999999999


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "maximum": LONG},
        {"type": "integer", "minimum": -LONG},
        {"enum": [12345678901234567890, LONG]},
        {"const": {"a": [LONG]}},
        {"type": "string", "maxLength": LONG},
    ],
    ids=json.dumps,
)
def test_an_integer_that_does_not_travel_is_refused_at_its_place(schema: dict[str, Any]) -> None:
    for placed in (place(schema) for place in PLACES):
        error = refusal(placed)
        assert error is not None and "at most 64 bits" in error.message
        assert error.snippet[(error.col or 0) - 1 :].lstrip("-").startswith(str(LONG))
    assert refusal({"enum": [2**64 - 1, -(2**63)]}) is None
