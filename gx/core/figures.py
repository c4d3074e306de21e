"""Sums and differences of what engines counted, and the figures that follow from them.

Pure arithmetic. Invariant: a figure that nothing was counted for is `None`, never 0.
"""

from __future__ import annotations

from gx.core.message import Counts, Value

_DIGITS = 6
"""Microseconds: what binary fractions add behind them would be noise in the log."""


class Figures(Value, frozen=True, kw_only=True):
    """How an engine did. Paces are tokens per second spent within calls of their kind.

    `cached_share` is the part of the prompts' tokens that came from the cache, `mean_queue_s` how long a request waited
    for a slot.
    """

    prompt_tokens_per_s: float | None = None
    written_tokens_per_s: float | None = None
    cached_share: float | None = None
    mean_queue_s: float | None = None


def figures(counts: Counts) -> Figures:
    """What the counts come to."""
    return Figures(
        prompt_tokens_per_s=_ratio(counts.prefill_tokens, counts.prefill_s, 1),
        written_tokens_per_s=_ratio(counts.decode_tokens, counts.decode_s, 1),
        cached_share=_ratio(counts.cached_tokens, counts.prompt_tokens, 4),
        mean_queue_s=_ratio(counts.queue_s, counts.requests, 3),
    )


def plus(one: Counts, other: Counts) -> Counts:
    """Both together."""
    return Counts(**{n: round(getattr(one, n) + getattr(other, n), _DIGITS) for n in Counts.__struct_fields__})


def minus(late: Counts, early: Counts) -> Counts:
    """What was done between two readings of one engine."""
    return Counts(**{n: round(getattr(late, n) - getattr(early, n), _DIGITS) for n in Counts.__struct_fields__})


def _ratio(amount: float, of: float, digits: int) -> float | None:
    return round(amount / of, digits) if of else None
