"""One answer while it is written: from the prompt's tokens, a row of logits at a time, to its end.

It knows when an answer is over (an end token, a stop string, a whole document, the limit) and why; it knows no model
and no cache. Whoever owns those decodes `prompt`, hands the logits after it to `advance`, decodes what that returns,
and so on until `finish` is set.

Invariant: what `advance` returns continues the sequence, token by token; nothing is taken once `finish` is set, and
never more than `limit_tokens`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from edge.engine.logprobs import told
from edge.engine.sampling import Row, Sampler
from edge.engine.shapes import Constraint
from edge.engine.slots import Tokens
from edge.engine.text import TextStream
from gx.core.message import Failure, Sampling, TokenLogprob

_EXCERPT_CHARS = 400


class Writing:
    """The state of one answer.

    `prompt` [n_tokens] int32; `limit_tokens` is the most it may take; `piece` gives a token's bytes; `eog` are the
    tokens that end an answer. `self.prompt`, [n_tokens] int32, is the prompt with whatever the constraint forces the
    answer to begin with. Stop strings don't apply to an answer with a `constraint`: they would cut a document.
    `logprobs`, where the sampling asks for them, are of each of the `tokens_out`.

    :raises GxError: (code "sampling") if a setting is out of its range.
    """

    def __init__(
        self,
        prompt: Tokens,
        *,
        limit_tokens: int,
        sampling: Sampling,
        constraint: Constraint | None,
        piece: Callable[[int], bytes],
        eog: frozenset[int],
    ) -> None:
        self._constraint, self._piece, self._eog = constraint, piece, eog
        self._sampler = Sampler(sampling, prompt.tolist())
        self._stream = TextStream(() if constraint else sampling.stop)
        self._fresh: list[str] = []
        self._n_top, self.logprobs = sampling.logprobs, list[TokenLogprob]()
        self.limit_tokens, self.tokens_out = limit_tokens, 0
        self.finish: Literal["stop", "length"] | None = None
        forced = self._take(constraint.forced()) if constraint is not None else []
        self.prompt = np.concatenate([prompt, np.array(forced, np.int32)]) if forced else prompt

    def advance(self, row: Row, best: int | None = None) -> list[int]:
        """Draw the next token from the logits after the last one, [n_vocab] float32, and what follows of necessity.

        Returns what is to be decoded next. `best` is the row's likeliest token, where that is known.

        :raises GxError: (code "model" or "schema") if no token can be drawn.
        """
        if self._constraint is not None:
            drawn = self._constraint.pick(row, self._sampler, best=best)
            return self._take([drawn, *([] if self._constraint.is_complete else self._constraint.forced())], row)
        drawn = self._sampler.pick(row, best=best)
        if drawn not in self._eog:
            return self._take([drawn], row)
        self.finish = "stop"
        self._fresh.append(self._stream.close())
        return []

    def fresh_text(self) -> str:
        """The text that became certain since the last call."""
        text = "".join(self._fresh)
        self._fresh.clear()
        return text

    @property
    def text(self) -> str:
        """All text so far."""
        return self._stream.text

    def truncation(self, max_tokens: int) -> Failure | None:
        """Why the answer isn't whole, if it had a shape to fit and was cut short: half a document is none."""
        if self._constraint is None or self.finish != "length":
            return None
        if self.limit_tokens < max_tokens:
            limit, remedy = "all that the context has left", "shorten the prompt, or give the model a longer context"
        else:
            limit, remedy = f"max_tokens {max_tokens}", "raise max_tokens"
        whole = f"it had come to an end by the {self._constraint.subject}"
        if self._constraint.is_json:
            whole, remedy = "its JSON was complete", f"{remedy}, or bound the output schema with maxLength and maxItems"
        return Failure(
            code="truncated",
            message=f"the answer was cut after {self.tokens_out} tokens ({limit}) before {whole}; {remedy}",
            retryable=False,
            detail=f"it ended with: {self.text[-_EXCERPT_CHARS:]}",
        )

    def _take(self, tokens: list[int], row: Row | None = None) -> list[int]:
        """Add tokens to the answer, as many as the limit leaves room for, and settle whether it is over.

        The first was drawn by `row`; with none, all were forced.
        """
        room = self.limit_tokens - self.tokens_out
        is_whole = self._constraint is not None and self._constraint.is_complete and len(tokens) <= room
        taken = tokens[:room]
        self._sampler.accept(taken)
        self.tokens_out += len(taken)
        if self._n_top is not None:
            self.logprobs += told(taken, row, self._n_top, self._piece)
        for token in taken:
            self._fresh.append(self._stream.push(self._piece(token)))
        if is_whole or self._stream.is_stopped:
            self.finish = "stop"
        elif self.tokens_out >= self.limit_tokens:
            self.finish = "length"
        if self.finish is not None:
            self._fresh.append(self._stream.close())
        return taken
