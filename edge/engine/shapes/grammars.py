"""Shapes compiled for one vocabulary, by llguidance. It knows no weights and no context.

JSON is compact, `{"a": 1, "b": 2}`, since a model that pretty-prints pays for every space.

Invariant: what can't be followed exactly is refused before the first token, never approximated.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import Any

import msgspec
from llguidance import LLMatcher
from llguidance.gbnf_to_lark import gbnf_to_lark
from llguidance.llamacpp import lltokenizer_from_vocab

from edge.engine.llama import Vocabulary
from edge.engine.shapes.constraint import Constraint, allowed_tokens
from edge.engine.shapes.gaps import exclusive_bounds, uncounted, with_real_dates
from edge.engine.shapes.references import endless, options_inlined
from edge.engine.shapes.refusals import OVERLAP, refusal, schema_error, short
from edge.engine.shapes.shape import SUBJECTS, Choice, Gbnf, JsonSchema, Lark, Regex, Shape
from gx.core.errors import GxError
from gx.core.grammars import is_gbnf

CACHED_SHAPES = 128
"""A recipe has a handful of shapes; a compiled one is tens of kilobytes."""
_LAYOUT: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def context_free(grammar: str) -> Lark | Gbnf:
    """The shape of a context-free grammar, by the syntax that it is written in."""
    return Gbnf(grammar=grammar) if is_gbnf(grammar) else Lark(grammar=grammar)


class Grammars:
    """Compiles shapes for a `vocabulary`, which outlives this, and keeps the compiled ones.

    Making one takes a fifth of a second, and for half of it no other thread of Python runs: llguidance holds the
    interpreter while it sorts the vocabulary. So it is made once for a model, with the first shape that is asked of it,
    and in the bench's process, where no event loop but the bench's own waits for it.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._n_vocab, self._eog = vocabulary.n_tokens, vocabulary.eog
        self._tokenizer = lltokenizer_from_vocab(vocabulary.pointer, eos_token=sorted(self._eog) or None)
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
            raise schema_error(schema, reason, lambda part: self._schema_matcher(part)[1] or None)
        if (path := endless(schema)) is not None:
            raise refusal(
                path,
                "every document that fits it contains another one that does, without end",
                "leave a way out: an optional field, an empty list, or an `anyOf` with null",
            )
        if (path := uncounted(schema)) is not None:
            raise refusal(
                path,
                "fields can't be counted whose names are left to the model, since it may write a name twice",
                "list the fields in `properties` and `required`, or ask for an array",
            )
        for path, bound, numbers in exclusive_bounds(schema):
            if self._takes(numbers, str(bound)) or (bound == 0 and self._takes(numbers, "-0")):
                raise refusal(
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
        reason = short(matcher.get_error())
        if not reason:
            ends = not matcher.is_accepting() and set(allowed_tokens(matcher.deep_copy(), self._n_vocab)) <= self._eog
            reason = "no text fits it" if ends else ""
        if reason:
            raise GxError(f"the {SUBJECTS[kind]} can't be used: {reason}", code="constraint", hint="correct it")
        return matcher

    def _schema_matcher(self, schema: Any) -> tuple[LLMatcher | None, str]:
        """The matcher of a schema, or why it has none."""
        try:
            matcher = self._build(schema)
            if OVERLAP in matcher.get_error():
                inlined = self._build(options_inlined(schema))
                matcher = matcher if inlined.is_error() else inlined
        except ValueError as error:  # it has values that JSON has not
            return None, str(error).partition(" at line ")[0]
        return (None, short(matcher.get_error())) if matcher.is_error() else (matcher, "")

    def _build(self, schema: Any) -> LLMatcher:
        """:raises ValueError: if the schema isn't JSON, such as a number that isn't finite."""
        plain = {name: value for name, value in with_real_dates(schema).items() if name != "x-guidance"}
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(plain), overrides=_LAYOUT)
        return LLMatcher(self._tokenizer, grammar, log_level=0)

    def _takes(self, schema: dict[str, Any], text: str) -> bool:
        """Whether a text would pass for a document that fits a schema."""
        matcher, tokens = self._build(schema), self._tokenizer.tokenize_str(text)
        return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()
