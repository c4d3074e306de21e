"""Memories have one name for the same thing, two rankings become one, and what can't be is told."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gx.core.errors import UsageError
from gx.core.memory import Draft, Filter, Kind, Memory, Query, Source, fuse, says, uid_of
from gx.core.memorycheck import check_draft, check_filter, check_names, check_query
from gx.core.message import Label

KEYS = st.lists(st.integers(0, 50), unique=True, max_size=30)


def test_the_same_thing_has_one_name_whoever_says_it_and_when() -> None:
    one = Draft(body="a", source=Source(by="ada", heading="H"), at=1.0)
    assert uid_of(one) == uid_of(Draft(body="a", source=Source(by="bob"), at=2.0, label=Label.shared))
    others = [
        Draft(body="b"),
        Draft(body="a", namespace="n"),
        Draft(body="a", kind=Kind.chunk),
        Draft(body="a", source=Source(path="/x")),
        Draft(body="a", source=Source(path="/x", ordinal=1)),
        Draft(body="a", source=Source(task="t")),
    ]
    assert len({uid_of(each) for each in [one, *others]}) == 7


def test_an_episode_that_happened_twice_is_two() -> None:
    first, second = (Draft(body="a", kind=Kind.episode, at=at) for at in (1.0, 2.0))
    assert uid_of(first) != uid_of(second) and uid_of(first) == uid_of(msgspec.structs.replace(first))


def test_a_draft_that_says_more_is_written_again() -> None:
    draft = Draft(body="a")
    known = Memory(uid=uid_of(draft), namespace="default", kind=Kind.fact, body="a", at=1.0, seq=1)
    assert says(known, draft) and says(known, Draft(body="a", at=5.0))
    assert not says(known, Draft(body="a", label=Label.shared))
    assert not says(known, Draft(body="a", source=Source(heading="H")))


@given(KEYS, KEYS)
def test_each_that_was_found_is_ranked_once_by_what_both_halves_gave(text: list[int], vector: list[int]) -> None:
    ranked = fuse(text, vector)
    assert {one.key for one in ranked} == {*text, *vector} and len(ranked) == len({*text, *vector})
    scores = [one.score for one in ranked]
    assert scores == sorted(scores, reverse=True) and all(0 < score <= 1 for score in scores)
    for one in ranked:
        assert (one.text_rank is None) == (one.key not in text) and (one.vector_rank is None) == (one.key not in vector)
    if text and text[:1] == vector[:1]:
        assert ranked[0].key == text[0] and ranked[0].score == pytest.approx(1.0)


def test_fusing_is_by_reciprocal_ranks() -> None:
    first, second, third = fuse([1, 2], [2, 3])
    assert (first.key, second.key, third.key) == (2, 1, 3)
    assert first.score == pytest.approx((1 / 7 + 1 / 6) * 6 / 2) and second.score == pytest.approx(0.5)
    assert [one.score for one in fuse([7, 8], None)] == pytest.approx([1.0, 6 / 7])


@pytest.mark.parametrize(
    "draft",
    [
        Draft(body=""),
        Draft(body="\n "),
        Draft(body="a\0"),
        Draft(body="\ud800"),
        Draft(body="a" * 1_100_000),
        Draft(body="a", namespace=""),
        Draft(body="a", namespace="a\nb"),
        Draft(body="a", source=Source(path="x\0")),
        Draft(body="a", source=Source(by="x" * 5000)),
        Draft(body="a", source=Source(page=-1)),
        Draft(body="a", at=float("nan")),
    ],
)
def test_what_cannot_be_remembered_is_told(draft: Draft) -> None:
    with pytest.raises(UsageError, match="expected"):
        check_draft(draft)


def test_what_cannot_be_asked_is_told() -> None:
    for query in (Query(text=""), Query(text="a", k=2000), Query(text="a", min_similarity=1.5), Query(text="\ud800")):
        with pytest.raises(UsageError, match="expected"):
            check_query(query)
    for wanted in (Filter(namespace="a b"), Filter(source="\0"), Filter(since=float("inf")), Filter(upto_seq=-2)):
        with pytest.raises(UsageError, match="expected"):
            check_filter(wanted)
    for name in ("abc", "xyzx", "0123456789abcdef0", "ABCD"):
        with pytest.raises(UsageError, match="expected"):
            check_names([name])
