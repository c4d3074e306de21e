"""How one token is drawn from a row of logits. Pure numpy; it knows no model, grammar or text.

The order of the filters is llama.cpp's: repetition penalty, top_k, top_p, min_p, temperature. Each turn has a
generator of its own, so its draws depend on its seed and its logits, and never on who else is running.

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
# So many of the likeliest tokens nearly always hold the mass that top_p asks for; else the whole row is sorted.
_NUCLEUS_TOKENS = 256


class Sampler:
    """Draws the tokens of one turn.

    `prompt` are the tokens before the answer; the repetition penalty looks back on the last `PENALTY_TOKENS`.

    :raises GxError: (code "sampling") if a setting is out of its range.
    """

    def __init__(self, sampling: Sampling, prompt: Iterable[int] = ()) -> None:
        _check(sampling)
        self._sampling = sampling
        self._random = np.random.Generator(np.random.PCG64(sampling.seed))
        self._recent: deque[int] = deque(prompt, maxlen=PENALTY_TOKENS)
        penalty = sampling.repetition_penalty
        self._penalty = penalty if penalty is not None and penalty != 1.0 else None

    def pick(self, row: Row, allowed: npt.NDArray[np.int64] | None = None, *, best: int | None = None) -> int:
        """Draw a token from `row` [n_vocab] float32, which is left as it was.

        `allowed` [k] int64 are the only tokens that may be drawn; `None` allows all. `best` is the row's likeliest
        token, where that is known.

        :raises GxError: (code "model") if no logit is finite, so that there is nothing to draw from.
        """
        if self._penalty is not None:
            row = self._penalised(row, self._penalty)
        if allowed is not None:
            row = row[allowed]
        if best is None or self._penalty is not None or allowed is not None:
            best = int(row.argmax())
        if not math.isfinite(row[best]):
            raise GxError("the model computed logits that aren't numbers; its file may be damaged", code="model")
        chosen = best if self._sampling.temperature == 0 else self._draw(row)
        return chosen if allowed is None else int(allowed[chosen])

    def accept(self, tokens: Iterable[int]) -> None:
        """Note what the answer was continued with, drawn or forced."""
        if self._penalty is not None:
            self._recent.extend(tokens)

    def _penalised(self, row: Row, penalty: float) -> Row:
        """A copy in which the recent tokens are less likely: Keskar et al. 2019, CTRL, section 4.1."""
        seen = np.unique(np.fromiter(self._recent, np.int64, len(self._recent)))
        row = row.copy()
        row[seen] = np.where(row[seen] > 0, row[seen] / penalty, row[seen] * penalty)
        return row

    def _draw(self, row: Row) -> int:
        """Draw an index of `row` by the inverse of the cumulative distribution of what the filters leave."""
        sampling = self._sampling
        order = _likeliest(row, sampling.top_k, sampling.top_p)
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
        return None if k == len(row) else _largest(row, k)
    order = _largest(row, k if k < len(row) else min(_NUCLEUS_TOKENS, k))
    mass = _mass(row, order)
    # What top_p is a share of: the mass that top_k left, or that of the whole row.
    total = mass[-1] if k < len(row) else _mass(row, slice(None))[-1]
    if mass[-1] < top_p * total:
        order = _largest(row, k)
        mass = _mass(row, order)
    return order[: int(np.searchsorted(mass, top_p * total)) + 1]


def _mass(row: Row, order: npt.NDArray[np.int64] | slice) -> npt.NDArray[np.float64]:
    """The cumulative mass of some tokens, where the likeliest token of the row has the mass 1."""
    return np.cumsum(np.exp(row[order].astype(np.float64) - float(row.max())))


def _largest(row: Row, k: int) -> npt.NDArray[np.int64]:
    """Indices of the `k` largest logits in descending order; equal ones by index, so that ties draw alike."""
    part = np.argpartition(row, len(row) - k)[len(row) - k :] if k < len(row) else np.arange(len(row))
    return part[np.lexsort((part, -row[part]))]


def _check(sampling: Sampling) -> None:
    rules = (
        ("temperature", sampling.temperature, "at least 0", sampling.temperature >= 0),
        ("top_k", sampling.top_k, "at least 1", sampling.top_k is None or sampling.top_k >= 1),
        ("top_p", sampling.top_p, "above 0 and at most 1", sampling.top_p is None or 0 < sampling.top_p <= 1),
        ("min_p", sampling.min_p, "from 0 to 1", sampling.min_p is None or 0 <= sampling.min_p <= 1),
        ("repetition_penalty", sampling.repetition_penalty, "above 0", (sampling.repetition_penalty or 1) > 0),
        ("seed", sampling.seed, "at least 0", sampling.seed >= 0),
        ("max_tokens", sampling.max_tokens, "at least 1", sampling.max_tokens >= 1),
    )
    for name, value, expected, is_met in rules:
        if not is_met:
            raise GxError(f"sampling: {name} must be {expected}, but is {value}", code="sampling")
