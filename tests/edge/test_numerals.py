"""Whatever number a schema leaves room for, and however a model likes digits, whoever reads the answer can hold it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.engine.llama import Model
from edge.engine.sampling import Sampler
from edge.engine.shapes import Grammars, JsonSchema, numerals
from gx.core.errors import GxError
from gx.core.message import Sampling
from tests.fuzz.schemas import case_of

pytestmark = pytest.mark.filterwarnings("ignore:llama_token_get_attr")

NUMBER = re.compile(rb"[0-9eE.+-]+")
DIGITS_TOKENS, MOST_TOKENS = 360, 1200


class Words(NamedTuple):
    """A vocabulary: the tokens that only numbers are made of, and those that have no part in one."""

    grammars: Grammars
    model: Model
    numeric: np.ndarray[Any, np.dtype[np.int64]]
    exponents: np.ndarray[Any, np.dtype[np.int64]]
    closing: np.ndarray[Any, np.dtype[np.int64]]


@pytest.fixture(scope="module")
def words(tiny: str) -> Iterator[Words]:
    model = Model("tiny", tiny)
    pieces = [model.vocab.piece(token) for token in range(model.vocab.n_tokens)]
    numeric = [token for token, piece in enumerate(pieces) if NUMBER.fullmatch(piece)]
    closing = [token for token, piece in enumerate(pieces) if piece and piece[:1] in b'"]},'] + sorted(model.vocab.eog)
    exponents = [token for token in numeric if set(pieces[token]) & set(b"eE+")]
    yield Words(
        Grammars(model.vocab),
        model,
        np.array(numeric),
        np.array(exponents),
        np.array(closing),
    )
    model.close()


def written(words: Words, schema: dict[str, Any], seed: int, exponents: float) -> str | None:
    """What a model writes that likes digits, and some exponents, and soon wants to end; `None` if it comes to none."""
    constraint = words.grammars.constraint(JsonSchema(schema=schema))
    sampler, chance = Sampler(Sampling(temperature=1.0, seed=seed)), np.random.default_rng(seed)
    tokens = constraint.forced()
    while not constraint.is_complete and len(tokens) < MOST_TOKENS:
        row = chance.normal(size=words.model.vocab.n_tokens).astype(np.float32)
        row[words.numeric] += 20 if len(tokens) < DIGITS_TOKENS else 0
        row[words.exponents] += exponents if len(tokens) < DIGITS_TOKENS else 0
        row[words.closing] += 10
        tokens.append(constraint.pick(row, sampler))
        tokens += [] if constraint.is_complete else constraint.forced()
    text = b"".join(map(words.model.vocab.piece, tokens)).decode("utf-8", "replace")
    return text if constraint.is_complete else None


def check(text: str) -> None:
    """All readers can hold it."""
    msgspec.json.decode(text)
    numbers: list[float] = []
    json.loads(text, parse_float=lambda part: numbers.append(float(part)), parse_int=lambda p: numbers.append(float(p)))
    assert all(map(math.isfinite, numbers)), text


numbers = st.sampled_from(
    [{"type": "number"}, {"type": "integer"}, {}, {"type": ["number", "null"]}, {"type": "number", "minimum": 3},
     {"type": "integer", "maximum": 0}, {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 3}]},
     {"type": "integer", "minimum": -12, "maximum": 1000}, {"type": "number", "minimum": 0, "maximum": 0.5}]
)  # fmt: skip


def _around(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    def fields(parts: list[dict[str, Any]]) -> dict[str, Any]:
        named = {f"f{number}": part for number, part in enumerate(parts)}
        return {"type": "object", "properties": named, "required": list(named), "additionalProperties": False}

    arrays = inner.map(lambda part: {"type": "array", "items": part, "minItems": 1, "maxItems": 2})
    others = inner.map(lambda part: {"type": "object", "additionalProperties": part, "maxProperties": 1})
    return st.one_of(st.lists(inner, min_size=1, max_size=3).map(fields), arrays, others)


@settings(deadline=None, max_examples=30)
@given(
    schema=st.recursive(numbers, _around, max_leaves=4), seed=st.integers(0, 9999), exponents=st.sampled_from([0, 4])
)
def test_numbers_at_any_depth_can_be_held(words: Words, schema: dict[str, Any], seed: int, exponents: float) -> None:
    text = written(words, schema, seed, exponents)
    if text is not None:
        check(text)


def test_random_schemas_keep_their_bounds_and_end(words: Words) -> None:
    ended = 0
    for number in range(30):
        try:
            text = written(words, case_of(7, number).schema, number, 4.0)
        except GxError:
            continue
        if text is not None:
            ended += 1
            check(text)
    assert ended >= 15


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["number", "integer"])
def test_a_number_that_would_go_on_for_ever_ends(words: Words, kind: str, seed: int) -> None:
    text = written(words, {"type": "array", "items": {"type": kind}, "minItems": 1, "maxItems": 1}, seed, 0.0)
    assert text is not None
    check(text)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("6.02214076e23", True),
        ("1.6E-35", True),
        ("1e-400", True),
        ("1e308", False),
        ("9e307", True),
        ("[1e30, 1e300]", True),
        ("1e999", False),
        ("-1E+400", False),
        ("1" * 308, True),
        ("1" * 309, False),
        ("1" * 300 + "e8", True),
        ("1" * 300 + "e9", False),
        ("0." + "1" * 1000, True),
        ('"1e999"', True),
        ('"\\"1e999"', True),
        ('{"a\\\\": 1e999', False),
        ('{"1e999": [-12.5e+3, 1e999', False),
    ],
)
@pytest.mark.parametrize("n_bytes", [1, 3, 2000])
def test_a_number_is_followed_byte_by_byte(text: str, fits: bool, n_bytes: int) -> None:
    place, found = numerals.START, list[bool]()
    for at in range(0, len(text), n_bytes):
        place = numerals.after(place, text[at : at + n_bytes].encode())
        found.append(place.is_too_large)
    assert any(found) != fits


def test_a_constant_is_the_schemas_own_affair(words: Words) -> None:
    large = {"prefixItems": [{"const": 1.5e308}, {"type": "string", "maxLength": 3}], "type": "array", "items": False}
    schema = large | {"minItems": 2}
    for seed in range(3):
        text = written(words, schema, seed, 4.0)
        assert text is not None and float(json.loads(text)[0]) == 1.5e308


def test_a_string_after_a_large_constant_is_still_one() -> None:
    place = numerals.after(numerals.START, b"[" + b"9" * 400 + b', "')
    assert place.is_too_large
    place = numerals.after(place, b"1e999")
    assert not place.is_too_large and place.part == "text"
