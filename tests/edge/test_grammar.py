"""An answer fits its shape, or the shape is refused before a token is paid for, by what is wrong and where."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from edge.engine.engine import Completion, Engine, Request
from edge.engine.llama import Model
from edge.engine.shapes import Choice, Gbnf, Grammars, JsonSchema, Lark, Regex, Shape
from edge.engine.shapes.references import endless, options_inlined
from edge.engine.shapes.schema import pointer
from gx.core.errors import GxError
from gx.core.message import Failure, Message, Sampling
from tests.fuzz.schemas import case_of, fuzz

# llguidance asks llama_cpp for each token's attributes by an older name.
pytestmark = pytest.mark.filterwarnings("ignore:llama_token_get_attr")

# What Pydantic makes of a union with a discriminator.
LEAF = {
    "type": "object",
    "properties": {"kind": {"const": "leaf"}},
    "required": ["kind"],
    "additionalProperties": False,
}
BRANCH = {
    "type": "object",
    "properties": {
        "kind": {"const": "branch"},
        "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}, "maxItems": 2},
    },
    "required": ["kind", "children"],
    "additionalProperties": False,
}
TREE = {
    "$ref": "#/$defs/Node",
    "$defs": {
        "Node": {"oneOf": [{"$ref": "#/$defs/Leaf"}, {"$ref": "#/$defs/Branch"}]},
        "Leaf": LEAF,
        "Branch": BRANCH,
    },
}


@pytest.fixture(scope="module")
def engine(tiny: str) -> Iterator[Engine]:
    engine = Engine(threads=1)
    engine.register("tiny", tiny)
    yield engine
    engine.close()


def ask(
    engine: Engine, *, schema: dict[str, Any] | None = None, shape: Shape | None = None, **settings: Any
) -> Completion | Failure:
    request = Request(
        model="tiny",
        messages=(Message(role="user", content="Hi"),),
        sampling=Sampling(**{"max_tokens": 120, "temperature": 1.0, **settings}),
        output_schema=schema,
        constraint=shape,
    )
    result = engine.submit(request).result(60)
    assert isinstance(result, Completion | Failure)
    return result


def text_of(engine: Engine, shape: Shape, **settings: Any) -> str:
    result = ask(engine, shape=shape, **settings)
    assert isinstance(result, Completion) and result.finish == "stop", result
    return result.text


def refused(engine: Engine, *, schema: dict[str, Any] | None = None, shape: Shape | None = None) -> str:
    failure = ask(engine, schema=schema, shape=shape)
    assert isinstance(failure, Failure), failure
    assert (failure.code, failure.retryable) == ("constraint" if schema is None else "schema", False)
    assert failure.usage.tokens_out == 0
    return failure.message


def test_random_schemas_are_followed_or_refused_by_name(tiny: str) -> None:
    outcome = fuzz(tiny, (case_of(4, number) for number in range(60)))
    assert not outcome.found, "\n".join(
        f"{case.name}: {text} {json.dumps(case.schema)}" for case, text in outcome.found
    )
    assert outcome.counted.total() == 60
    assert outcome.counted["fits"] >= 20 and outcome.counted["truncated"] >= 3
    assert sum(word.startswith("refused: ") for word in outcome.counted) >= 3


# ── schemas ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(4))
def test_options_that_are_references_are_told_apart(engine: Engine, seed: int) -> None:
    result = ask(engine, schema=TREE, seed=seed, max_tokens=400)
    if isinstance(result, Failure):
        assert result.code == "truncated"
    else:
        jsonschema.validate(json.loads(result.text), TREE)


def test_inlining_ends_and_leaves_the_schema_as_it_was() -> None:
    before = json.dumps(TREE)
    inlined = options_inlined(TREE)
    assert inlined["$defs"]["Node"]["oneOf"] == [LEAF, BRANCH]
    assert json.dumps(TREE) == before
    doubling: dict[str, Any] = {"d0": {"type": "null"}}
    for depth in range(1, 30):
        doubling[f"d{depth}"] = {"oneOf": [{"$ref": f"#/$defs/d{depth - 1}"}] * 2}
    large = {"$ref": "#/$defs/d29", "$defs": doubling}
    assert options_inlined(large) is large
    elsewhere = {"oneOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$id": "urn:x", "$ref": "#/$defs/b"}}}
    assert options_inlined(elsewhere) is elsewhere


@pytest.mark.parametrize(
    ("schema", "at"),
    [
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "/$ref"),
        (
            {"$defs": {"a": {"type": "array", "items": {"$ref": "#"}, "minItems": 1}}, "$ref": "#/$defs/a"},
            "/$defs/a/items/$ref",
        ),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "/items/$ref"),
        ({"type": "array", "items": {"$ref": "#"}}, None),
        ({"type": ["array", "null"], "items": {"$ref": "#"}, "minItems": 1}, None),
        ({"type": "object", "properties": {"a/b": {"$ref": "#"}}, "required": ["a/b"]}, "/properties/a~1b/$ref"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, None),
        ({"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}, "minItems": 1}]}, None),
        ({"allOf": [{"$ref": "#"}]}, "/allOf/0/$ref"),
        ({"$ref": "https://example.com/schema"}, None),
    ],
)
def test_a_reference_that_never_ends_is_found(schema: dict[str, Any], at: str | None) -> None:
    found = endless(schema)
    assert (None if found is None else pointer(found)) == at


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, '"$ref" (at /items/$ref): every document'),
        ({"oneOf": [{"minimum": 0}, {"maximum": 9}]}, '"oneOf" (at /oneOf): its options may overlap'),
        (
            {"properties": {"a/~b": {"oneOf": [{"type": "string"}, {"minLength": 2}]}}},
            '"oneOf" (at /properties/a~1~0b/oneOf)',
        ),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, '"exclusiveMinimum" (at /exclusiveMinimum): '),
        (
            {"items": {"allOf": [{"type": "number", "minimum": -2.5}, {"exclusiveMaximum": -2.0}]}},
            "(at /items/allOf/1/exclusiveMaximum): generation can't keep -2 itself out",
        ),
        (
            {"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 2},
            '"minProperties" (at /minProperties): fields can\'t be counted',
        ),
        ({"items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"type": "objekt"}}}, '"type" (at /$defs/a/type): Invalid'),
        ({"prefixItems": [{"format": "x"}, {"format": "x"}]}, '"format" (at /prefixItems/0/format): Unknown format: x'),
        (
            {"properties": {"a": {"format": "x"}, "b": {"format": "x"}}},
            '"format" (at /properties/a/format): Unknown format: x',
        ),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, '"allOf" (at /allOf): Unsatisfiable'),
        ({"anyOf": [{"type": "null"}, {"pattern": "(?=a)"}]}, '"pattern" (at /anyOf/1/pattern): regex parse error'),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, '"required" (at /required): '),
        ({"$ref": "#/$defs/nowhere"}, "\"$ref\" (at /$ref): Pointer '/$defs/nowhere' does not exist"),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, '"$ref" (at /$ref): what it refers to uses "$dyn'),
        ({"properties": {"a": 5}}, '"properties" (at /properties/a): schema must be an object or boolean'),
        ({"items": {"enum": ["\ud800"]}}, '"enum" (at /items/enum): unexpected end of hex escape'),
        ({"properties": {"a": {"minimum": float("nan")}}}, '"minimum" (at /properties/a/minimum): expected value'),
    ],
)
def test_a_refusal_names_the_keyword_and_its_place(engine: Engine, schema: dict[str, Any], told: str) -> None:
    assert told in refused(engine, schema=schema)


@pytest.mark.parametrize(
    ("form", "text", "fits"),
    [
        ("date", "2024-02-29", True),
        ("date", "2000-02-29", True),
        ("date", "2023-02-28", True),
        ("date", "2023-12-31", True),
        ("date", "2023-02-29", False),
        ("date", "1900-02-29", False),
        ("date", "0400-02-29", True),
        ("date", "0099-07-20", True),
        ("date", "0000-07-20", False),
        ("date", "0000-02-29", False),
        ("date", "2024-04-31", False),
        ("time", "23:59:59Z", True),
        ("time", "23:59:60Z", False),
        ("date-time", "2024-02-29T10:20:30.5+01:00", True),
        ("date-time", "2023-02-29T10:20:30Z", False),
        ("date-time", "2023-03-29T10:20:60Z", False),
    ],
)
@pytest.mark.parametrize("pattern", [{}, {"pattern": "^[0-2]", "allOf": [{"maxLength": 40}]}])
def test_dates_are_days_that_there_are(
    engine: Engine, form: str, text: str, fits: bool, pattern: dict[str, Any]
) -> None:
    schema = {"type": "string", "format": form, **pattern}
    with engine._shelf.borrow("tiny") as loaded:
        matcher = loaded.grammars.json_schema(schema)
        tokens = loaded.model.vocab.tokenize(json.dumps(text)).tolist()
    assert (matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()) == fits


@pytest.mark.parametrize("depth", [300, 5000])
def test_a_schema_that_is_nested_too_deeply_is_refused(engine: Engine, depth: int) -> None:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    assert "the output schema is nested too deeply; make it flatter" in refused(engine, schema=schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "integer", "exclusiveMinimum": 0, "maximum": 1.5},
        {"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 1, "maxProperties": 1},
    ],
)
def test_what_can_be_followed_is_not_refused(engine: Engine, schema: dict[str, Any]) -> None:
    result = ask(engine, schema=schema, temperature=0.0)
    assert isinstance(result, Completion) or result.code == "truncated"


# ── other shapes ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "pattern", [r"\d{3}-\d{4}", r"(yes|no), [A-Z][a-z]{0,5}\.", r"^a/b\n[^\n]{1,9}$", r"\p{Greek}{2,4}"]
)
def test_a_regular_expression_matches_all_of_the_text(engine: Engine, pattern: str, seed: int) -> None:
    text = text_of(engine, Regex(pattern=pattern), seed=seed)
    assert re.fullmatch(pattern.replace(r"\p{Greek}", "[\u0370-\u03ff\u1f00-\u1fff]"), text)


def test_one_of_the_options_is_chosen_whatever_is_in_them(engine: Engine) -> None:
    options = ("yes", "yes, but", 'sa"y', "back\\slash", "line\nbreak", "日本 😀", "a | b", "/re/", "<|im_end|>")
    chosen = {text_of(engine, Choice(options=options), seed=seed) for seed in range(40)}
    assert chosen <= set(options) and len(chosen) >= 4
    for option in options:
        assert text_of(engine, Choice(options=(option,))) == option


def test_grammars_are_followed(engine: Engine) -> None:
    lark = 'start: "<" NAME ("," NAME)~0..2 ">"\nNAME: /[a-z]{1,3}/'
    gbnf = 'root ::= "<" name ("," name){0,2} ">"\nname ::= [a-z]{1,3}'
    for seed in range(3):
        for shape in (Lark(grammar=lark), Gbnf(grammar=gbnf)):
            assert re.fullmatch(r"<[a-z]{1,3}(,[a-z]{1,3}){0,2}>", text_of(engine, shape, seed=seed))


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (Regex(pattern="a("), "the regular expression can't be used: .*unclosed group"),
        (Regex(pattern="(?=a)b"), "look-around"),
        (Regex(pattern=r"[^\s\S]"), "no text fits it"),
        (Choice(options=()), "expected options that aren't empty, got none"),
        (Choice(options=("a", "")), "got an empty text"),
        (Lark(grammar="start: foo"), 'the Lark grammar can\'t be used: .*unknown name: "foo"'),
        (Lark(grammar='start: start "a"'), "no text fits it"),
        (Lark(grammar=""), "Empty grammar"),
        (Gbnf(grammar="root ::= foo"), "the GBNF grammar can't be used: Rule 'foo' not found"),
        (Gbnf(grammar='root ::= ("a"'), r"Expected '\)' at line 1"),
    ],
)
def test_a_shape_that_cannot_be_used_says_why(engine: Engine, shape: Shape, told: str) -> None:
    assert re.search(told, refused(engine, shape=shape), re.DOTALL)


def test_a_grammar_that_never_ends_is_a_failure(engine: Engine) -> None:
    assert "can't be followed: parser error: Too many items" in refused(engine, shape=Lark(grammar='start: "a" start'))


def test_a_shape_that_is_cut_short_is_a_failure(engine: Engine) -> None:
    failure = ask(engine, shape=Regex(pattern="[a-z]{200,300}"), max_tokens=5)
    assert isinstance(failure, Failure) and failure.code == "truncated"
    cut = "after 5 tokens (max_tokens 5) before it had come to an end by the regular expression; raise max_tokens"
    assert cut in failure.message


def test_a_schema_and_a_constraint_at_once_are_refused(engine: Engine) -> None:
    failure = ask(engine, schema={"type": "null"}, shape=Choice(options=("a",)))
    assert isinstance(failure, Failure) and failure.code == "constraint" and "got both" in failure.message


def test_what_a_schema_is_refused_for_is_looked_for_once(packaged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, compiled = Model("smol", packaged), list[Shape]()
    grammars = Grammars(model.vocab)
    compile_ = Grammars._compile
    monkeypatch.setattr(Grammars, "_compile", lambda self, shape: compiled.append(shape) or compile_(self, shape))
    schema: dict[str, Any] = {"type": "object", "patternProperties": {"(?=x)": {"type": "string"}}}
    errors = list[GxError]()
    for _ in range(3):
        with pytest.raises(GxError) as caught:
            grammars.constraint(JsonSchema(schema=schema))
        errors.append(caught.value)
    assert len(compiled) == 1 and errors[0] is not errors[1]
    assert {(one.message, one.hint, one.code) for one in errors} == {(errors[0].message, errors[0].hint, "schema")}
    model.close()
