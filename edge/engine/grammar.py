"""Answers of a shape: which tokens may come next, by llguidance.

It knows schemas, expressions and grammars, and token numbers; it knows no model and no context. A token is drawn first
and the mask of allowed tokens computed only where that one is rejected: most aren't, and a mask costs far more than a
check, so a thread of its own for masks would have too little to do. What the shape leaves no choice about (keys,
punctuation) is forced without asking the model. JSON is compact, `{"a": 1, "b": 2}`, since a model that pretty-prints
pays for every space.

Invariant: the tokens that a `Constraint` let through are a prefix of a text that fits its shape, and all of one when
`is_complete`. What can't be followed exactly is refused before the first token, never approximated.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer
from llguidance.gbnf_to_lark import gbnf_to_lark
from llguidance.llamacpp import lltokenizer_from_vocab

from edge.engine import numerals
from edge.engine.sampling import Row, Sampler
from edge.engine.schema import (
    Path,
    ReasonOf,
    blame,
    endless,
    exclusive_bounds,
    keywords,
    options_inlined,
    pointer,
    uncounted,
    with_real_dates,
)
from gx.core.errors import GxError
from gx.core.message import Value

# A recipe has a handful of shapes; a compiled one is tens of kilobytes.
CACHED_SHAPES = 128
_LAYOUT: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_UNIMPLEMENTED = re.compile(r"Unimplemented keys: (\[.*\])")
_REASON_CHARS = 400
_OVERLAP = "oneOf constraints are not supported"


class JsonSchema(Value, frozen=True, kw_only=True, tag="json_schema"):
    """A JSON document that fits a schema. Its fields come in the schema's order."""

    schema: dict[str, Any]


class Regex(Value, frozen=True, kw_only=True, tag="regex"):
    """A text that all of a regular expression matches, in the syntax of https://docs.rs/regex, without look-around."""

    pattern: str


class Choice(Value, frozen=True, kw_only=True, tag="choice"):
    """One of some texts."""

    options: tuple[str, ...]


class Lark(Value, frozen=True, kw_only=True, tag="lark"):
    """A text of a context-free grammar, as llguidance writes them: a Lark grammar that begins with `start`."""

    grammar: str


class Gbnf(Value, frozen=True, kw_only=True, tag="gbnf"):
    """A text of a context-free grammar, as llama.cpp writes them: its first rule is `root`."""

    grammar: str


Shape = JsonSchema | Regex | Choice | Lark | Gbnf
_SUBJECTS: dict[type[Shape], str] = {
    JsonSchema: "output schema", Regex: "regular expression", Choice: "choice",
    Lark: "Lark grammar", Gbnf: "GBNF grammar",
}  # fmt: skip


class Grammars:
    """Compiles shapes for one vocabulary, and keeps the compiled ones. `vocab` is llama.cpp's; it outlives this.

    Making one takes a fifth of a second, and for half of it no other thread of Python runs: llguidance holds the
    interpreter while it sorts the vocabulary. So it is made once for a model, with the first shape that is asked of it,
    and in the bench's process, where no event loop but the bench's own waits for it.
    """

    def __init__(self, vocab: Any, n_vocab: int, eog: frozenset[int]) -> None:
        self._tokenizer = lltokenizer_from_vocab(vocab, eos_token=sorted(eog) or None)
        self._n_vocab, self._eog = n_vocab, eog
        self._compiled: OrderedDict[str, LLMatcher | GxError] = OrderedDict()
        self._lock = threading.Lock()  # requests are encoded in several threads

    def constraint(self, shape: Shape) -> Constraint:
        """The constraint of one answer.

        :raises GxError: (code "schema", of other shapes "constraint") if the shape is invalid, can't be met, or uses
            something that isn't supported. Of a schema the message names the keyword and its place.
        """
        with self._lock:
            try:
                key = f"{type(shape).__name__} {json.dumps(msgspec.structs.astuple(shape))}"  # in a schema's own order
                if key not in self._compiled:
                    self._compiled[key] = self._compiled_or_refused(shape)
            except RecursionError:
                raise GxError("the output schema is nested too deeply", code="schema", hint="make it flatter") from None
            self._compiled.move_to_end(key)
            while len(self._compiled) > CACHED_SHAPES:
                self._compiled.popitem(last=False)
            matcher = self._compiled[key]
        if isinstance(matcher, GxError):
            raise GxError(matcher.message, hint=matcher.hint, code=matcher.code)
        return Constraint(matcher.deep_copy(), self._tokenizer, self._n_vocab, self._eog, kind=type(shape))

    def _compiled_or_refused(self, shape: Shape) -> LLMatcher | GxError:
        """To find what a large schema is refused for takes seconds, and each row of a run has the same."""
        try:
            return self._compile(shape)
        except GxError as error:
            return error.with_traceback(None)

    def _compile(self, shape: Shape) -> LLMatcher:
        match shape:
            case JsonSchema():
                return self.json_schema(shape.schema)
            case Regex():
                return self.regex(shape.pattern)
            case Choice():
                return self.choice(shape.options)
            case Lark():
                return self.lark(shape.grammar)
            case Gbnf():
                return self.gbnf(shape.grammar)

    def json_schema(self, schema: dict[str, Any]) -> LLMatcher:
        """Compile a schema with our layout, whatever its own `x-guidance` says.

        Options of `oneOf` that might overlap are refused: decoded as `anyOf`, an answer could fit two of them, which
        would only be found out when it is paid for.
        """
        matcher, reason = self._schema_matcher(schema)
        if matcher is None:
            raise _schema_error(schema, reason, lambda part: self._schema_matcher(part)[1] or None)
        if (path := endless(schema)) is not None:
            raise _refusal(
                path,
                "every document that fits it contains another one that does, without end",
                "leave a way out: an optional field, an empty list, or an `anyOf` with null",
            )
        if (path := uncounted(schema)) is not None:
            raise _refusal(
                path,
                "fields can't be counted whose names are left to the model, since it may write a name twice",
                "list the fields in `properties` and `required`, or ask for an array",
            )
        for path, bound, numbers in exclusive_bounds(schema):
            if self._takes(numbers, str(bound)) or (bound == 0 and self._takes(numbers, "-0")):
                raise _refusal(
                    path,
                    f"generation can't keep {bound} itself out of a range as narrow as this one",
                    "write the nearest number that is allowed as `minimum` or `maximum`",
                )
        return matcher

    def regex(self, pattern: str) -> LLMatcher:
        """Compile a regular expression."""
        return self._checked(LLMatcher.grammar_from_regex(pattern), Regex)

    def choice(self, options: tuple[str, ...]) -> LLMatcher:
        """Compile a choice of texts."""
        if not options or "" in options:
            got = "an empty text" if options else "none"
            raise GxError(f"the choice can't be used: expected options that aren't empty, got {got}", code="constraint")
        return self._checked("start: " + " | ".join(json.dumps(option) for option in options), Choice)

    def lark(self, grammar: str) -> LLMatcher:
        """Compile a Lark grammar."""
        return self._checked(LLMatcher.grammar_from_lark(grammar), Lark)

    def gbnf(self, grammar: str) -> LLMatcher:
        """Compile a grammar of llama.cpp's."""
        try:
            converted = gbnf_to_lark(grammar)
        except Exception as error:  # it raises nothing more precise
            raise GxError(f"the GBNF grammar can't be used: {error}", code="constraint") from error
        return self._checked(LLMatcher.grammar_from_lark(converted), Gbnf)

    def _checked(self, grammar: str, kind: type[Shape]) -> LLMatcher:
        """The matcher of a grammar, if it has one, and a first token that isn't the end of nothing."""
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        reason = _short(matcher.get_error())
        if not reason:
            ends = not matcher.is_accepting() and set(_allowed(matcher.deep_copy(), self._n_vocab)) <= self._eog
            reason = "no text fits it" if ends else ""
        if reason:
            raise GxError(f"the {_SUBJECTS[kind]} can't be used: {reason}", code="constraint", hint="correct it")
        return matcher

    def _schema_matcher(self, schema: Any) -> tuple[LLMatcher | None, str]:
        """The matcher of a schema, or why it has none."""
        try:
            matcher = self._build(schema)
            if _OVERLAP in matcher.get_error():
                inlined = self._build(options_inlined(schema))
                matcher = matcher if inlined.is_error() else inlined
        except ValueError as error:  # it has values that JSON has not
            return None, str(error).partition(" at line ")[0]
        return (None, _short(matcher.get_error())) if matcher.is_error() else (matcher, "")

    def _build(self, schema: Any) -> LLMatcher:
        """:raises ValueError: if the schema isn't JSON, such as a number that isn't finite."""
        plain = {name: value for name, value in with_real_dates(schema).items() if name != "x-guidance"}
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(plain), overrides=_LAYOUT)
        return LLMatcher(self._tokenizer, grammar, log_level=0)

    def _takes(self, schema: dict[str, Any], text: str) -> bool:
        """Whether a text would pass for a document that fits a schema."""
        matcher, tokens = self._build(schema), self._tokenizer.tokenize_str(text)
        return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


class Constraint:
    """Follows one answer through its shape. `is_complete` turns true with the last token of a text that fits.

    A document's numbers stay within what its readers can hold, also where its schema sets them no bounds.
    """

    def __init__(
        self, matcher: LLMatcher, tokenizer: LLTokenizer, n_vocab: int, eog: frozenset[int], *, kind: type[Shape]
    ) -> None:
        self._matcher, self._tokenizer, self._n_vocab, self._eog = matcher, tokenizer, n_vocab, eog
        self.subject, self.is_json, self.is_complete = _SUBJECTS[kind], kind is JsonSchema, False
        self._place = numerals.START

    def forced(self) -> list[int]:
        """Take the tokens that the shape leaves no choice about, from here on; often none."""
        tokens = self._matcher.compute_ff_tokens()
        if tokens:
            self._matcher.consume_tokens(tokens)
            self._place = self._after(tokens)  # however large: a constant is the schema's own affair
        self._settle()
        return list(tokens)

    def pick(self, row: Row, sampler: Sampler, *, best: int | None = None) -> int:
        """Draw an allowed token from `row` [n_vocab] float32, and take it. `best` is as for `Sampler.pick`.

        :raises GxError: (code "schema" or "constraint") if the shape grew too complex for llguidance on the way.
        """
        token = sampler.pick(row, best=best)
        place = self._after([token])
        if place.is_too_large or self._matcher.try_consume_tokens([token]) != 1:
            token, place = self._draw(row, sampler)
            self._matcher.consume_token(token)
        self._place = place
        # An end token is only allowed where the text is complete, such as after the digits of a bare number.
        self.is_complete = token in self._eog
        self._settle()
        return token

    def _draw(self, row: Row, sampler: Sampler) -> tuple[int, numerals.Place]:
        """Draw from the tokens that may come next; where the text is after it."""
        allowed = _allowed(self._matcher, self._n_vocab)
        while len(allowed):
            token = sampler.pick(row, allowed)
            place = self._after([token])
            if not place.is_too_large:
                return token, place
            allowed = allowed[allowed != token]
        raise self._error(self._matcher.get_error() or "no token of this model continues the text")

    def _after(self, tokens: Sequence[int]) -> numerals.Place:
        """Where the text is after some tokens."""
        if not self.is_json or self._eog.issuperset(tokens):
            return self._place
        return numerals.after(self._place, self._tokenizer.decode_bytes(list(tokens)))

    def _settle(self) -> None:
        if self._matcher.is_error():
            raise self._error(self._matcher.get_error())
        self.is_complete = self.is_complete or self._matcher.is_stopped()

    def _error(self, reason: str) -> GxError:
        code = "schema" if self.is_json else "constraint"
        return GxError(f"the {self.subject} can't be followed: {_short(reason)}", code=code)


def _allowed(matcher: LLMatcher, n_vocab: int) -> npt.NDArray[np.int64]:
    """The tokens that may come next, [k] int64."""
    mask = np.zeros((n_vocab + 31) // 32, np.int32)
    matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[:n_vocab])


def _short(reason: str) -> str:
    """llguidance's complaint without its state, which is pages of its internals."""
    said = reason.partition("\n<state>")[0].strip().replace("min/maxProperties", "minProperties and maxProperties are")
    return said if len(said) <= _REASON_CHARS else said[:_REASON_CHARS] + " ..."


def _refusal(path: Path, reason: str, hint: str) -> GxError:
    """A schema that llguidance would take, and get wrong."""
    where = f'"{path[-1]}" (at {pointer(path)})'
    return GxError(f"the output schema can't be used: {where}: {reason}", code="schema", hint=hint)


def _schema_error(schema: dict[str, Any], reason: str, reason_of: ReasonOf) -> GxError:
    """llguidance's complaint with the keyword and its place in the schema."""
    if reason.startswith("recursion limit"):
        raise RecursionError(reason)
    found = _UNIMPLEMENTED.search(reason)
    if found is not None:
        keys = json.loads(found.group(1))
        places = [pointer(path) for path, _ in keywords(schema) if path[-1] in keys]
        named = ", ".join(f'"{key}"' for key in keys)
        if places:
            return GxError(
                f"the output schema uses {named} (at {', '.join(places)}), which constrained output doesn't support",
                code="schema",
                hint="leave it out, or express it in another way (anyOf, enum, pattern, maxLength, maxItems)",
            )
        reason = f"what it refers to uses {named}, which constrained output doesn't support"
    blamed = blame(schema, reason_of)
    at = f'"{blamed[0]}" (at {pointer(blamed[1])}): ' if blamed is not None else ""
    hint = "correct the schema"
    if _OVERLAP in reason:
        reason = "its options may overlap, so that an answer could fit more than one"
        hint = "write `anyOf`, or tell the options apart: a required field with another `const` in each"
    return GxError(f"the output schema can't be used: {at}{reason}", code="schema", hint=hint)
