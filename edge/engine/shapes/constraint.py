"""One answer of a shape while it is written: which tokens may come next.

It knows token numbers and what may follow which; it knows no model and no context. A token is drawn first, and the mask
of allowed tokens computed only where that one is rejected: most aren't, and a mask costs far more than a check, so a
thread of its own for masks would have too little to do. What the shape leaves no choice about (keys, punctuation) is
forced without asking the model.

Invariant: the tokens that a `Constraint` let through are a prefix of a text that fits its shape, and all of one when
`is_complete`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer

from edge.engine.sampling import Row, Sampler
from edge.engine.shapes import numerals
from edge.engine.shapes.refusals import short
from edge.engine.shapes.shape import SUBJECTS, JsonSchema, Shape
from gx.core.errors import GxError


class Constraint:
    """Follows one answer through its shape. `is_complete` turns true with the last token of a text that fits.

    A document's numbers stay within what its readers can hold, also where its schema sets them no bounds.
    """

    def __init__(
        self, matcher: LLMatcher, tokenizer: LLTokenizer, n_vocab: int, eog: frozenset[int], *, kind: type[Shape]
    ) -> None:
        self._matcher, self._tokenizer, self._n_vocab, self._eog = matcher, tokenizer, n_vocab, eog
        self.subject, self.is_json, self.is_complete = SUBJECTS[kind], kind is JsonSchema, False
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
        allowed = allowed_tokens(self._matcher, self._n_vocab)
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
        return GxError(f"the {self.subject} can't be followed: {short(reason)}", code=code)


def allowed_tokens(matcher: LLMatcher, n_vocab: int) -> npt.NDArray[np.int64]:
    """The tokens that may come next, [k] int64."""
    mask = np.zeros((n_vocab + 31) // 32, np.int32)
    matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[:n_vocab])
