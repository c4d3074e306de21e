"""Answers that fit a JSON Schema: which tokens may come next, by llguidance.

It knows schemas and token numbers; it knows no model and no context. A token is drawn first and the mask of allowed
tokens computed only where that one is rejected: most aren't, and a mask costs far more than a check. What the schema
leaves no choice about (keys, punctuation) is forced without asking the model. JSON is compact, `{"a": 1, "b": 2}`,
since a model that pretty-prints pays for every space.

Invariant: the tokens that a `Constraint` let through are a prefix of a document that fits the schema, and all of one
when `is_complete`.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher
from llguidance.llamacpp import lltokenizer_from_vocab

from edge.engine.sampling import Row, Sampler
from gx.core.errors import GxError

# A recipe has a handful of schemas; a compiled one is tens of kilobytes.
CACHED_SCHEMAS = 128
_LAYOUT: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_UNIMPLEMENTED = re.compile(r"Unimplemented keys: (\[.*\])")
# Where JSON Schema keeps names that the user chose, and values: what looks like a keyword there isn't one.
_NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "definitions", "$defs", "dependentSchemas"})
_PLAIN_VALUES = frozenset({"enum", "const", "default", "examples", "required", "x-guidance"})


class Grammars:
    """Compiles schemas for one vocabulary, and keeps the compiled ones. `vocab` is llama.cpp's; it outlives this."""

    def __init__(self, vocab: Any, n_vocab: int, eog: frozenset[int]) -> None:
        self._tokenizer = lltokenizer_from_vocab(vocab, eos_token=sorted(eog) or None)
        self._n_vocab, self._eog = n_vocab, eog
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def constraint(self, schema: dict[str, Any]) -> Constraint:
        """The constraint of one answer.

        :raises GxError: (code "schema") if the schema is invalid, can't be met, or uses a keyword that isn't supported.
        """
        key = json.dumps(schema)  # in the schema's own order, which is the order of the answer's fields
        matcher = self._compiled.get(key)
        if matcher is None:
            matcher = self._compiled[key] = self._compile(schema)
        self._compiled.move_to_end(key)
        while len(self._compiled) > CACHED_SCHEMAS:
            self._compiled.popitem(last=False)
        return Constraint(matcher.deep_copy(), self._n_vocab, self._eog)

    def _compile(self, schema: dict[str, Any]) -> LLMatcher:
        """Compile a schema with our layout, whatever its own `x-guidance` says."""
        plain = {name: value for name, value in schema.items() if name != "x-guidance"}
        try:
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(plain), overrides=_LAYOUT)
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        except ValueError as error:
            raise _schema_error(schema, str(error)) from error
        if matcher.is_error():
            raise _schema_error(schema, matcher.get_error())
        return matcher


class Constraint:
    """Follows one answer through its schema. `is_complete` turns true with the document's last token."""

    def __init__(self, matcher: LLMatcher, n_vocab: int, eog: frozenset[int]) -> None:
        self._matcher, self._n_vocab, self._eog = matcher, n_vocab, eog
        self._mask = np.zeros((n_vocab + 31) // 32, np.int32)
        self.is_complete = False

    def forced(self) -> list[int]:
        """Take the tokens that the schema leaves no choice about, from here on; often none."""
        tokens = self._matcher.compute_ff_tokens()
        if tokens:
            self._matcher.consume_tokens(tokens)
            self._settle()
        return list(tokens)

    def pick(self, row: Row, sampler: Sampler, *, best: int | None = None) -> int:
        """Draw an allowed token from `row` [n_vocab] float32, and take it. `best` is as for `Sampler.pick`.

        :raises GxError: (code "schema") if the schema grew too complex for llguidance on the way.
        """
        token = sampler.pick(row, best=best)
        if self._matcher.try_consume_tokens([token]) != 1:
            token = sampler.pick(row, self._allowed())
            self._matcher.consume_token(token)
        # An end token is only allowed where the document is complete, such as after the digits of a bare number.
        self.is_complete = token in self._eog
        self._settle()
        return token

    def _allowed(self) -> npt.NDArray[np.int64]:
        """The tokens that may come next, [k] int64."""
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        bits = np.unpackbits(self._mask.view(np.uint8), bitorder="little")[: self._n_vocab]
        allowed = np.flatnonzero(bits)
        if not len(allowed):
            reason = self._matcher.get_error() or "no token of this model continues the document"
            raise GxError(f"the output schema can't be followed any further: {reason}", code="schema")
        return allowed

    def _settle(self) -> None:
        if self._matcher.is_error():
            raise GxError(f"the output schema can't be followed: {self._matcher.get_error()}", code="schema")
        self.is_complete = self.is_complete or self._matcher.is_stopped()


def _schema_error(schema: dict[str, Any], reason: str) -> GxError:
    """llguidance's complaint with the keyword's place in the schema, where it names one."""
    found = _UNIMPLEMENTED.search(reason)
    if found is None:
        return GxError(f"the output schema can't be used: {reason}", code="schema", hint="correct the schema")
    keys = json.loads(found.group(1))
    places = [path for path, _ in _keywords(schema, "") if path.rsplit("/", 1)[1] in keys]
    named = ", ".join(f'"{key}"' for key in keys)
    at = f" (at {', '.join(places)})" if places else ""
    return GxError(
        f"the output schema uses {named}{at}, which constrained output doesn't support",
        code="schema",
        hint="leave it out, or express it in another way (anyOf, enum, pattern, maxLength, maxItems)",
    )


def _keywords(schema: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Each keyword of a schema with its JSON pointer, at all depths."""
    if isinstance(schema, list):
        for index, part in enumerate(schema):
            yield from _keywords(part, f"{path}/{index}")
    if not isinstance(schema, dict):
        return
    for name, value in schema.items():
        yield f"{path}/{name}", value
        if name in _NAMED_SCHEMAS and isinstance(value, dict):
            for key, part in value.items():
                yield from _keywords(part, f"{path}/{name}/{key}")
        elif name not in _PLAIN_VALUES:
            yield from _keywords(value, f"{path}/{name}")
