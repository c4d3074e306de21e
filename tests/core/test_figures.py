"""What counts come to: paces, shares and means, and `None` where nothing was counted."""

from __future__ import annotations

from gx.core.figures import Figures, figures, minus, plus
from gx.core.message import Counts

EARLY = Counts(requests=4, prompt_tokens=100, cached_tokens=25, prefill_tokens=75, prefill_s=0.1, queue_s=0.2)
LATE = Counts(requests=6, prompt_tokens=300, cached_tokens=175, prefill_tokens=125, prefill_s=0.3, queue_s=0.5)


def test_what_nothing_was_counted_for_is_unknown() -> None:
    assert figures(Counts()) == Figures()
    assert figures(Counts(prompt_tokens=10)).cached_share == 0


def test_a_difference_has_its_own_figures() -> None:
    did = minus(LATE, EARLY)
    assert did == Counts(
        requests=2, prompt_tokens=200, cached_tokens=150, prefill_tokens=50, prefill_s=0.2, queue_s=0.3
    )
    assert figures(did) == Figures(prompt_tokens_per_s=250.0, cached_share=0.75, mean_queue_s=0.15)


def test_differences_add_up_to_the_whole() -> None:
    assert plus(EARLY, minus(LATE, EARLY)) == LATE
