"""Options weighed instead of sampled: how likely the model finds each way to go on, from one prompt.

The log-likelihood of an option is the sum of its tokens' log-probabilities after the prompt, and after whatever all
options begin with, which belongs to the prompt here: it is as likely for each of them. What some of them begin with is
decoded once: the options are a tree of tokens, and the logits after a token weigh every option that goes on from there.
It knows tokens and rows; it knows no model and no cache.

With a `baseline` an option is weighed by how much likelier it is here than elsewhere: after a prompt without content
(contextual calibration, Zhao et al. 2021, https://arxiv.org/abs/2102.09690), or over a batch of other prompts (batch
calibration, Zhou et al. 2023, https://arxiv.org/abs/2309.17249).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from edge.engine.sampling import Row, log_total
from edge.engine.slots import Tokens
from gx.core.errors import GxError

Way = tuple[int, ...]
"""Tokens behind the prompt."""


class Scoring:
    """The state of one choice, driven as a `Writing` is: decode `prompt`, hand the logits to `advance`, and so on.

    `prompt` [n_tokens] int32, and after it one of `options`, of which none is empty. What `advance` returns is decoded
    right behind the prompt, in place of what was there, and the logits of all of it are wanted.

    :raises GxError: (code "choice") if there is nothing to choose from.
    """

    def __init__(self, prompt: Tokens, options: Sequence[Sequence[int]]) -> None:
        if not options or not all(options):
            raise GxError("a choice needs at least one option, none empty and no two alike", code="choice")
        shared = _shared([*map(tuple, options)])
        self.prompt: Tokens = np.concatenate((prompt, np.array(shared, np.int32)))
        self.finish: Literal["stop"] | None = None
        self.tokens_out = 0
        self.limit_tokens = max(len(option) for option in options)
        self._options = [tuple(option[len(shared) :]) for option in options]
        self._sums = np.zeros(len(options), np.float64)
        self._ways = _ways(self._options)
        self._way: Way = ()
        self._seen = 0  # tokens of the way of which the logits came
        self._weighed = set[Way]()

    @property
    def log_likelihoods(self) -> npt.NDArray[np.float64]:
        """Of each option after what all begin with, [n_options]; whole once `finish` is set."""
        return self._sums

    def advance(self, rows: npt.NDArray[np.float32]) -> list[int]:
        """Weigh by the logits of what was decoded last, [n_rows, n_vocab]; what is to be decoded behind the prompt.

        The rows may come in parts, where a call had no room for them all.
        """
        if not self.tokens_out:
            self.tokens_out = 1
            self._weigh((), rows[-1])
        else:
            for row in rows:
                self._seen += 1
                self._weigh(self._way[: self._seen], row)
        if self._seen < len(self._way):
            return []
        if not self._ways:
            self.finish = "stop"
            return []
        self._way, self._seen = self._ways.pop(0), 0
        self.tokens_out += len(self._way)
        return list(self._way)

    def _weigh(self, beginning: Way, row: Row) -> None:
        """Add what the options that have this beginning go on with."""
        if beginning in self._weighed:
            return
        self._weighed.add(beginning)
        n = len(beginning)
        open_ = [i for i, option in enumerate(self._options) if len(option) > n and option[:n] == beginning]
        self._sums[open_] += _log_softmax(row, [self._options[i][n] for i in open_])


def probabilities(
    log_likelihoods: npt.NDArray[np.float64], baseline: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.float64]:
    """The options' shares, [n_options], which sum to 1; of what is left after `baseline`, where there is one."""
    weights = log_likelihoods if baseline is None else log_likelihoods - baseline
    shares = np.exp(weights - weights.max())
    shares /= shares.sum()
    return cast(npt.NDArray[np.float64], shares)


def _shared(options: Sequence[Way]) -> Way:
    """What all options begin with; at least one token of each is its own."""
    first, last = min(options), max(options)
    most = min(map(len, options)) - 1
    return first[: next((n for n in range(most) if first[n] != last[n]), most)]


def _ways(options: Sequence[Way]) -> list[Way]:
    """What is to be decoded so that every token of every option is weighed: no way is the beginning of another."""
    wanted = sorted({option[:-1] for option in options})
    following = [*wanted[1:], ()]
    return [way for way, after in zip(wanted, following, strict=True) if way and after[: len(way)] != way]


def _log_softmax(row: Row, tokens: Sequence[int]) -> npt.NDArray[np.float64]:
    """The log-probabilities of some tokens, [n_tokens]. :raises GxError: (code "model") if the logits aren't finite."""
    found: npt.NDArray[np.float64] = row[list(tokens)].astype(np.float64) - log_total(row)
    return found
