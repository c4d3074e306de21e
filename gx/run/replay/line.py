"""What a call of the engine takes, as a line through what calls took: so much for the call, and so much for each token.

A decode reads all weights once, however many sequences it has a token of, and computes for each of them: a + b·n. The
sums of n, n², t and n·t over all calls are enough for the line of least squares (Gauss 1809; any text on regression).
Pure.
"""

from __future__ import annotations

from math import inf

from gx.core.message import Counts, Value

LEAST_SPREAD = 0.05
"""Standard deviation of the tokens of a call, by their mean, below which they tell no line."""
ASSUMED_EACH = 0.2
"""The share of a call with one token that the token takes, where calls tell no line: small models on laptop cores."""


class Line(Value, frozen=True, kw_only=True):
    """A call with n tokens takes `fixed_s` + n × `each_s`. Neither is negative. `is_assumed`: how they share is not
    measured, but their sum is.
    """

    fixed_s: float = 0.0
    each_s: float = 0.0
    is_assumed: bool = False

    def seconds(self, n: float) -> float:
        return self.fixed_s + n * self.each_s

    def faster(self, factor: float) -> Line:
        """The line of a machine that is so many times as fast."""
        return Line(fixed_s=self.fixed_s / factor, each_s=self.each_s / factor, is_assumed=self.is_assumed)


class Pace(Value, frozen=True, kw_only=True):
    """A machine's speed: calls that decode, calls that prefill, and `row_s` for what follows from one row of logits.

    `rounds` is how many decode calls a task takes for each token that it writes: a little less than one, since the
    first comes from the prompt.
    """

    decode: Line
    prefill: Line
    row_s: float = 0.0
    rounds: float = 1.0

    def round_s(self, n_writing: float) -> float:
        """The seconds of one round of so many sequences."""
        return self.decode.seconds(n_writing) + n_writing * self.row_s

    def tokens_per_s(self, slots: float, tokens_in: float, tokens_cached: float, tokens_out: float) -> float:
        """Prompts and answers together, with all slots taken by tasks of so many tokens; infinite for tasks of none."""
        each_s = self.prefill.seconds(tokens_in) if tokens_in > 0 else 0.0
        each_s += tokens_out * self.rounds * self.round_s(slots) / slots
        return (tokens_in + tokens_cached + tokens_out) / each_s if each_s > 0 else inf

    def faster(self, factor: float) -> Pace:
        """The pace of a machine that is so many times as fast; what the host does for a row takes as long."""
        return Pace(
            decode=self.decode.faster(factor), prefill=self.prefill.faster(factor), row_s=self.row_s, rounds=self.rounds
        )


def fitted(calls: float, tokens: float, squares: float, seconds: float, token_s: float) -> Line:
    """The line through calls, from their number and the sums of n, n², t and n·t.

    Where a side of it would be negative, it is the best line with that side 0.
    """
    if not calls or not tokens or not seconds:
        return Line()
    mean = tokens / calls
    spread = max(0.0, squares / calls - mean * mean)
    if spread < (LEAST_SPREAD * mean) ** 2:
        fixed_s = (1 - ASSUMED_EACH) * seconds / (calls * (1 - ASSUMED_EACH) + tokens * ASSUMED_EACH)
        return Line(fixed_s=fixed_s, each_s=(seconds - calls * fixed_s) / tokens, is_assumed=True)
    each_s = (token_s / calls - mean * seconds / calls) / spread
    fixed_s = (seconds - each_s * tokens) / calls
    if each_s < 0:
        return Line(fixed_s=seconds / calls)
    if fixed_s < 0:
        return Line(each_s=seconds / tokens)
    return Line(fixed_s=fixed_s, each_s=each_s)


def pace_of(counts: Counts, tokens_out: float) -> Pace:
    """The machine that did those counts, for tasks that wrote so many tokens in all."""
    c = counts
    decode = fitted(c.decode_calls, c.decode_tokens, c.decode_squares, c.decode_s, c.decode_token_s)
    prefill = fitted(c.prefill_calls, c.prefill_tokens, c.prefill_squares, c.prefill_s, c.prefill_token_s)
    beside_s = max(0.0, c.busy_s - c.decode_s - c.prefill_s)
    return Pace(
        decode=decode,
        prefill=prefill,
        row_s=beside_s / c.decode_tokens if c.decode_tokens else 0.0,
        rounds=c.decode_tokens / tokens_out if tokens_out else 0.0,
    )
