"""How likely an answer was, as it stands beside the log and as it is shown: a choice's options, or the tokens written.

A blob of it is compact, since 20 alternatives of each of 512 tokens are many; who prints it gets words. It knows shapes
and nothing of models or of the log. The invariant: what `content_of` writes, every later `as_record` reads, since
fields are only ever added.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from gx.core.message import Answer, Outcome, Scores, TokenLogprob, Value

LEAST_LOGPROB = -9999.0
"""What stands for a probability of zero, whose logarithm JSON can't say: so OpenAI's API has it.

https://platform.openai.com/docs/api-reference/chat/object
"""
DECIMALS = 6
"""A logit is a float32: its seventh digit is noise."""


class _Likelihoods(Value, frozen=True, kw_only=True):
    scores: Scores | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


def content_of(outcome: Outcome) -> bytes | None:
    """The bytes of the blob that an outcome leaves; `None` if it tells no likelihoods."""
    if not isinstance(outcome, Answer) or not (outcome.scores or outcome.logprobs):
        return None
    tokens = tuple(map(_rounded, outcome.logprobs))
    return msgspec.json.encode(_Likelihoods(scores=outcome.scores, logprobs=tokens))


def _rounded(token: TokenLogprob) -> TokenLogprob:
    """The token with numbers that JSON can say."""
    top = tuple(msgspec.structs.replace(other, logprob=_number(other.logprob)) for other in token.top)
    logprob = None if token.logprob is None else _number(token.logprob)
    return msgspec.structs.replace(token, logprob=logprob, top=top)


def _number(logprob: float) -> float:
    return max(LEAST_LOGPROB, round(logprob, DECIMALS)) if math.isfinite(logprob) else LEAST_LOGPROB


def as_record(content: bytes) -> dict[str, Any]:
    """What a record has of it: `scores`, {field: {option: probability}}, or `logprobs`, an object a token.

    The `logprob` of a token that a constraint forced is `None`: the model was never asked.
    """
    found = msgspec.json.decode(content, type=_Likelihoods)
    if found.scores is not None:
        return {"scores": found.scores}
    return {
        "logprobs": [
            _named(token.token, token.piece, token.logprob)
            | {"top": [_named(other.token, other.piece, other.logprob) for other in token.top]}
            for token in found.logprobs
        ]
    }


def _named(token: int, piece: bytes, logprob: float | None) -> dict[str, Any]:
    """A token: its text, its number, its logarithm; and its bytes, where they aren't whole characters."""
    text = piece.decode("utf-8", "replace")
    named = {"token": text, "id": token, "logprob": logprob}
    return named if text.encode() == piece else named | {"bytes": list(piece)}


def as_openai(content: bytes) -> dict[str, Any] | None:
    """The tokens as `choices[].logprobs` of OpenAI's chat completions; `None` if it has none.

    There each token has a number, so what a constraint forced has 0: it could not have been another one.
    """
    tokens = msgspec.json.decode(content, type=_Likelihoods).logprobs
    if not tokens:
        return None
    told = [
        _as_openai(token.piece, token.logprob or 0.0)
        | {"top_logprobs": [_as_openai(other.piece, other.logprob) for other in token.top]}
        for token in tokens
    ]
    return {"content": told, "refusal": None}


def _as_openai(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}
