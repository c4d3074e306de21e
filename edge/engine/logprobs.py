"""What is told of the tokens of an answer: how likely the model found each, and what it found the likeliest.

It knows rows of logits and tokens; it knows nothing of how a token was drawn. Log-probabilities are those of the whole
row as the model computed it (a log-softmax): no bias, penalty, filter, temperature or constraint is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge.engine.sampling import Row, largest, log_total
from gx.core.message import Alternative, TokenLogprob


def told(tokens: Sequence[int], row: Row | None, n_top: int, piece: Callable[[int], bytes]) -> list[TokenLogprob]:
    """What is told of tokens of which the first was drawn by `row`, [n_vocab] float32, and the others were forced.

    With no row all of them were. `n_top` is how many of the likeliest tokens are told, `piece` gives a token's bytes.
    """
    if row is None or not tokens:
        return [_forced(token, piece) for token in tokens]
    total = log_total(row)
    top = tuple(
        Alternative(token=token, piece=piece(token), logprob=float(row[token]) - total)
        for token in (largest(row, min(n_top, len(row))).tolist() if n_top else ())
    )
    drawn = tokens[0]
    first = TokenLogprob(token=drawn, piece=piece(drawn), logprob=float(row[drawn]) - total, top=top)
    return [first, *(_forced(token, piece) for token in tokens[1:])]


def _forced(token: int, piece: Callable[[int], bytes]) -> TokenLogprob:
    return TokenLogprob(token=token, piece=piece(token))
