"""The pace that was measured takes the place of the one that was assumed."""

from __future__ import annotations

import pytest

from gx.core.ports import ContainerSeen
from gx.run.rent.pace import LEAST_ANSWERS, RentedPace
from tests.fakes import offer


def seen(name: str, began_at: float, at: float) -> ContainerSeen:
    return ContainerSeen(container=name, gpu="L4", began_at=began_at, seen_at=at)


def measured(answers: int, tokens: int) -> RentedPace:
    """Two containers, 20 s and 30 s."""
    pace = RentedPace(100.0)
    for at in (110.0, 120.0):
        pace.seen(seen("A", 40.0, at))
    pace.seen(seen("B", 130.0, 160.0))
    for _ in range(answers):
        pace.answered(tokens)
    return pace


def test_a_container_does_its_share_of_all_tokens_a_second_of_all_since_it_was_listened_to() -> None:
    assert measured(10, 100).tokens_per_s(0) == pytest.approx(1000 / 50)
    assert measured(10, 100).tokens_per_s(500) == pytest.approx(1500 / 50)


def test_a_few_answers_are_no_measure() -> None:
    assert measured(LEAST_ANSWERS - 1, 100).tokens_per_s(0) is None
    assert measured(LEAST_ANSWERS - 1, 100).corrected([offer()], "L4", 0) == [offer()]


def test_an_offer_has_what_was_measured_and_the_others_as_much_more_or_less() -> None:
    offers = [offer(tokens_per_s=200), offer("A10", tokens_per_s=400)]
    own, other = measured(10, 100).corrected(offers, "L4", 0)
    assert (own.tokens_per_s, own.tasks) == (pytest.approx(20), 10)
    assert (other.tokens_per_s, other.tasks) == (pytest.approx(40), 0)
    assert measured(10, 100).corrected(offers, "H100", 0) == offers
