"""What a search found is put in a reranker's order: enough is found for it, and ties stay in place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gx.core.memory import Hit, Kind, Memory, Source
from gx.run.memory.reranking import candidates, ordered, passage_of


def hit(number: int, body: str = "a", heading: str = "") -> Hit:
    memory = Memory(
        uid=f"{number:016x}",
        namespace="n",
        kind=Kind.fact,
        body=body,
        at=0.0,
        seq=number,
        source=Source(heading=heading),
    )
    return Hit(memory=memory, score=1 / (number + 1), by_text=0.0, by_vector=0.0)


@given(st.integers(1, 1000))
def test_four_times_as_many_are_found_as_are_asked_for_and_fifty_at_most_unless_more_are(k: int) -> None:
    assert candidates(k) == max(k, min(4 * k, 50))


@given(st.lists(st.sampled_from([-1.5, 0.0, 2.0]), max_size=30), st.integers(1, 10))
def test_the_best_are_kept_and_equal_scores_stay_in_the_searches_own_order(scores: list[float], k: int) -> None:
    best = ordered([hit(number) for number in range(len(scores))], scores, k)
    assert [(one.relevance, one.fused_rank) for one in best] == sorted(
        ((score, place) for place, score in enumerate(scores, 1)), key=lambda one: (-one[0], one[1])
    )[:k]


def test_a_heading_is_scored_with_what_stands_below_it() -> None:
    assert passage_of(hit(0, "body", "Keys")) == "Keys\nbody" and passage_of(hit(0, "body")) == "body"
