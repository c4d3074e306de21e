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


def test_a_start_that_was_measured_takes_the_place_of_the_assumed_one_and_not_that_of_the_limit() -> None:
    offers = [offer(), offer("A10")]
    pace = RentedPace(100.0)
    assert [one.cold_start_s for one in pace.corrected(offers, "L4", 0)] == [5.0, 5.0]
    for took_s in (7.0, 3.0):
        pace.started(took_s)
    own, other = pace.corrected(offers, "L4", 0)
    assert (own.cold_start_s, other.cold_start_s) == (7.0, 5.0)
    assert (own.start_limit_s, own.reserve_usd) == (offers[0].start_limit_s, offers[0].reserve_usd)
    pace.started(1000.0)
    assert pace.corrected(offers, "L4", 0)[0].cold_start_s == offers[0].start_limit_s
