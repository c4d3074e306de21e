"""Options weighed instead of sampled: how likely the model finds each way to go on, from one prompt.

The log-likelihood of an option is the sum of its tokens' log-probabilities after the prompt. One row of logits weighs
the first token of every option; an option of more tokens is then decoded behind the prompt, and cut off again. It
knows tokens and rows; it knows no model and no cache.

With a `baseline` an option is weighed by how much likelier it is here than after a prompt without content: contextual
calibration, Zhao et al. 2021, https://arxiv.org/abs/2102.09690.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from edge.engine.sampling import Row
from edge.engine.slots import Tokens
from gx.core.errors import GxError


class Scoring:
    """The state of one choice, driven as a `Writing` is: decode `prompt`, hand the logits to `advance`, and so on.

    `prompt` [n_tokens] int32, and after it one of `options`, of which none is empty. What `advance` returns is decoded
    right behind the prompt, in place of what was there, and the logits of all of it are wanted.

    :raises GxError: (code "choice") if there is nothing to choose from.
    """

    starts_over = True

    def __init__(self, prompt: Tokens, options: Sequence[Sequence[int]]) -> None:
        if not options or not all(options):
            raise GxError("a choice needs at least one option, none empty and no two alike", code="choice")
        self.prompt = prompt
        self.finish: Literal["stop"] | None = None
        self.tokens_out = 0
        self.limit_tokens = max(len(option) for option in options)
        self._options = [list(option) for option in options]
        self._sums = np.zeros(len(options), np.float64)
        self._open: list[int] = []  # indices of the options of which only the first token was weighed
        self._seen = 0

    @property
    def log_likelihoods(self) -> npt.NDArray[np.float64]:
        """Of each option, [n_options]; whole once `finish` is set."""
        return self._sums

    def advance(self, rows: npt.NDArray[np.float32]) -> list[int]:
        """Weigh by the logits of what was decoded last, [n_rows, n_vocab]; what is to be decoded behind the prompt."""
        if not self.tokens_out:
            self._weigh_first(rows[-1])
        else:
            self._weigh_rest(rows)
        if self._seen:
            return []
        if not self._open:
            self.finish = "stop"
            return []
        tokens = self._options[self._open[0]][:-1]
        self.tokens_out += len(tokens)
        return tokens

    def _weigh_first(self, row: Row) -> None:
        logs = _log_softmax(row)
        if not np.isfinite(logs.max()):
            raise GxError("the model computed logits that aren't numbers; its file may be damaged", code="model")
        self._sums += [logs[option[0]] for option in self._options]
        self._open = [index for index, option in enumerate(self._options) if len(option) > 1]
        self.tokens_out = 1

    def _weigh_rest(self, rows: npt.NDArray[np.float32]) -> None:
        """The rows may come in parts, where a call had no room for them all."""
        index = self._open[0]
        option = self._options[index]
        for row in rows:
            self._seen += 1
            self._sums[index] += _log_softmax(row)[option[self._seen]]
        if self._seen == len(option) - 1:
            self._open.pop(0)
            self._seen = 0


def probabilities(
    log_likelihoods: npt.NDArray[np.float64], baseline: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.float64]:
    """The options' shares, [n_options], which sum to 1; of what is left after `baseline`, where there is one."""
    weights = log_likelihoods if baseline is None else log_likelihoods - baseline
    shares = np.exp(weights - weights.max())
    shares /= shares.sum()
    return cast(npt.NDArray[np.float64], shares)


def _log_softmax(row: Row) -> npt.NDArray[np.float64]:
    logits = row.astype(np.float64) - float(row.max())
    return logits - float(np.log(np.exp(logits).sum()))
