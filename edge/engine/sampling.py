"""How one token is drawn from a row of logits. Pure numpy; it knows no model, grammar or text.

The order of the filters is llama.cpp's: logit bias, penalties, top_k, typical_p, top_p, min_p, temperature. Each turn
has a generator of its own, so its draws depend on its seed and its logits, and never on who else is running.

Invariant: the same logits, settings and seed draw the same tokens.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from gx.core.errors import GxError
from gx.core.message import Sampling

Row = npt.NDArray[np.float32]  # [n_vocab] float32

# llama.cpp's default window (penalty_last_n): a word may return after a while.
PENALTY_TOKENS = 64
# Beyond any logit, and far from where sums of float32 end.
MOST_BIAS = 1e9
# So many of the likeliest tokens nearly always hold the mass that top_p asks for; else the whole row is sorted.
_NUCLEUS_TOKENS = 256


class Sampler:
    """Draws the tokens of one turn.

    `prompt` are the tokens before the answer; the penalties look back on the last `PENALTY_TOKENS`, as llama.cpp's do.

    :raises GxError: (code "sampling") if a setting is out of its range.
    """

    def __init__(self, sampling: Sampling, prompt: Iterable[int] = ()) -> None:
        _check(sampling)
        self._sampling = sampling
        self._random = np.random.Generator(np.random.PCG64(sampling.seed))
        self._recent: deque[int] = deque(prompt, maxlen=PENALTY_TOKENS)
        self._repetition = sampling.repetition_penalty or 1.0
        self._presence, self._frequency = sampling.presence_penalty or 0.0, sampling.frequency_penalty or 0.0
        self._penalises = self._repetition != 1.0 or self._presence != 0.0 or self._frequency != 0.0
        bias = sampling.logit_bias or {}
        self._biased = np.fromiter(map(int, bias), np.int64, len(bias))
        self._bias = np.fromiter(bias.values(), np.float32, len(bias))

    def pick(self, row: Row, allowed: npt.NDArray[np.int64] | None = None, *, best: int | None = None) -> int:
        """Draw a token from `row` [n_vocab] float32, which is left as it was.

        `allowed` [k] int64 are the only tokens that may be drawn; `None` allows all. `best` is the row's likeliest
        token, where that is known.

        :raises GxError: (code "model") if no logit is finite, so that there is nothing to draw from; (code "sampling")
            if the logit bias has a token that the model hasn't.
        """
        if self._penalises or len(self._biased):
            row, best = self._changed(row), None
        if allowed is not None:
            row, best = row[allowed], None
        if best is None:
            best = int(row.argmax())
        _check_finite(row[best])
        chosen = best if self._sampling.temperature == 0 else self._draw(row)
        return chosen if allowed is None else int(allowed[chosen])

    def accept(self, tokens: Iterable[int]) -> None:
        """Note what the answer was continued with, drawn or forced."""
        if self._penalises:
            self._recent.extend(tokens)

    def _changed(self, row: Row) -> Row:
        """A copy with the bias added, in which the recent tokens are less likely.

        Repetition: Keskar et al. 2019, CTRL, section 4.1. Presence and frequency: as in OpenAI's API.
        """
        row = row.copy()
        if len(self._biased):
            if self._biased.max() >= len(row):
                got = f"token {self._biased.max()}, and the model has {len(row)}"
                raise GxError(f"sampling: logit_bias must be of the model's tokens, but is of {got}", code="sampling")
            row[self._biased] += self._bias
        if self._penalises:
            seen, counts = np.unique(np.fromiter(self._recent, np.int64, len(self._recent)), return_counts=True)
            logits = np.where(row[seen] > 0, row[seen] / self._repetition, row[seen] * self._repetition)
            row[seen] = logits - counts.astype(np.float32) * self._frequency - self._presence
        return row

    def _draw(self, row: Row) -> int:
        """Draw an index of `row` by the inverse of the cumulative distribution of what the filters leave.

        It runs over the tokens by their numbers: by likelihood, a last bit that falls otherwise in other company would
        change the places of two that are nearly as likely, and with them what is drawn.
        """
        sampling = self._sampling
        if sampling.typical_p is None or sampling.typical_p >= 1.0:
            order = _likeliest(row, sampling.top_k, sampling.top_p)
        else:
            order = _typical(row, _likeliest(row, sampling.top_k, None), sampling.typical_p)
            nucleus = _likeliest(row[order], None, sampling.top_p)
            order = order if nucleus is None else order[nucleus]
        order = None if order is None else np.sort(order)
        kept = row if order is None else row[order]
        logits = kept.astype(np.float64) - float(kept.max())
        if sampling.min_p:
            likely = np.flatnonzero(logits >= math.log(sampling.min_p))
            logits, order = logits[likely], likely if order is None else order[likely]
        mass = np.cumsum(np.exp(logits / sampling.temperature))
        at = min(int(np.searchsorted(mass, self._random.random() * mass[-1], "right")), len(mass) - 1)
        return at if order is None else int(order[at])


def _likeliest(row: Row, top_k: int | None, top_p: float | None) -> npt.NDArray[np.int64] | None:
    """Indices of what top_k and top_p leave, in descending order; `None` if that is every token, in no order."""
    k = len(row) if top_k is None else min(top_k, len(row))
    if top_p is None or top_p >= 1.0:
        return None if k == len(row) else largest(row, k)
    order = largest(row, k if k < len(row) else min(_NUCLEUS_TOKENS, k))
    mass = _mass(row, order)
    # What top_p is a share of: the mass that top_k left, or that of the whole row.
    total = mass[-1] if k < len(row) else _mass(row, slice(None))[-1]
    if mass[-1] < top_p * total:
        order = largest(row, k)
        mass = _mass(row, order)
    return order[: int(np.searchsorted(mass, top_p * total)) + 1]


def _typical(row: Row, order: npt.NDArray[np.int64] | None, typical_p: float) -> npt.NDArray[np.int64]:
    """Those of the tokens in `order` that are about as surprising as the next one is expected to be, by index.

    Meister et al. 2022, Locally Typical Sampling, https://arxiv.org/abs/2202.00666, section 4. A whole row is `None`.
    """
    order = np.arange(len(row)) if order is None else order
    logits = row[order].astype(np.float64)
    logits -= logits.max()
    logits -= math.log(np.exp(logits).sum())
    share = np.exp(logits)
    # A share of 0 has a logarithm of minus infinity, and adds nothing.
    entropy = -float(np.sum(share * np.where(share > 0, logits, 0.0)))
    nearest = np.argsort(np.abs(-logits - entropy), kind="stable")
    n_kept = int(np.searchsorted(np.cumsum(share[nearest]), typical_p, "right")) + 1
    return np.sort(order[nearest[:n_kept]])


def _mass(row: Row, order: npt.NDArray[np.int64] | slice) -> npt.NDArray[np.float64]:
    """The cumulative mass of some tokens, where the likeliest token of the row has the mass 1."""
    return np.cumsum(np.exp(row[order].astype(np.float64) - float(row.max())))


def largest(row: Row, k: int) -> npt.NDArray[np.int64]:
    """Indices of the `k` largest logits in descending order; equal ones by index, so that ties draw alike."""
    part = np.argpartition(row, len(row) - k)[len(row) - k :] if k < len(row) else np.arange(len(row))
    return part[np.lexsort((part, -row[part]))]


def log_total(row: Row) -> float:
    """The logarithm of the sum of a row's exponentials, less which a logit is a log-probability.

    :raises GxError: (code "model") if no logit is finite.
    """
    most = float(row.max())
    _check_finite(most)
    return most + math.log(float(np.exp(row - most).sum(dtype=np.float64)))


def _check_finite(most: float) -> None:
    if not math.isfinite(most):
        raise GxError("the model computed logits that aren't numbers; its file may be damaged", code="model")


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _is_number(token: str) -> bool:
    return token.isascii() and token.isdigit() and len(token) < 10


def _check(sampling: Sampling) -> None:
    bias = sampling.logit_bias or {}
    rules = (
        ("temperature", sampling.temperature, "at least 0", sampling.temperature >= 0),
        ("top_k", sampling.top_k, "at least 1", sampling.top_k is None or sampling.top_k >= 1),
        ("top_p", sampling.top_p, "above 0 and at most 1", sampling.top_p is None or 0 < sampling.top_p <= 1),
        ("min_p", sampling.min_p, "from 0 to 1", sampling.min_p is None or 0 <= sampling.min_p <= 1),
        ("typical_p", sampling.typical_p, "above 0 and at most 1", 0 < _or(sampling.typical_p, 1.0) <= 1),
        ("repetition_penalty", sampling.repetition_penalty, "above 0", _or(sampling.repetition_penalty, 1.0) > 0),
        ("presence_penalty", sampling.presence_penalty, "from -2 to 2", -2 <= _or(sampling.presence_penalty, 0.0) <= 2),
        (
            "frequency_penalty",
            sampling.frequency_penalty,
            "from -2 to 2",
            -2 <= _or(sampling.frequency_penalty, 0.0) <= 2,
        ),
        ("logit_bias", bias, "of tokens' numbers", all(map(_is_number, bias))),
        ("logit_bias", bias, f"from -{MOST_BIAS:g} to {MOST_BIAS:g}", all(abs(b) <= MOST_BIAS for b in bias.values())),
        ("seed", sampling.seed, "at least 0", sampling.seed >= 0),
        ("max_tokens", sampling.max_tokens, "at least 1", sampling.max_tokens >= 1),
        ("logprobs", sampling.logprobs, "from 0 to 20", sampling.logprobs is None or 0 <= sampling.logprobs <= 20),
    )
    for name, value, expected, is_met in rules:
        if not is_met:
            raise GxError(f"sampling: {name} must be {expected}, but is {value}", code="sampling")
