"""Nobody is left out, nobody is held up for long, and a call never tears into many passes."""

from __future__ import annotations

from itertools import chain, pairwise

from hypothesis import given
from hypothesis import strategies as st

from edge.engine.calls import GROUP_SLOTS, Part, Work, gather, next_calls

BATCH, PASS = 2048, 512

WORK = st.lists(
    st.builds(Work, st.integers(0, 31), st.integers(1, 5000), st.booleans()), max_size=32, unique_by=lambda w: w.slot
)


def test_answers_are_decoded_in_one_call_before_prompts_are_prefilled() -> None:
    work = [Work(5, 300, True), Work(2, 1, False), Work(0, 6, False), Work(6, 100, True)]
    assert next_calls(work, n_writing=2, batch_tokens=BATCH, pass_tokens=PASS) == [
        [Part(0, 1), Part(2, 1)],
        [Part(5, 300), Part(6, 100)],
    ]


def test_what_a_shape_forces_is_decoded_at_once_where_nobody_else_writes() -> None:
    work = [Work(5, 300, True), Work(2, 7, False)]
    assert next_calls(work, n_writing=1, batch_tokens=BATCH, pass_tokens=PASS) == [[Part(2, 7)], [Part(5, 300)]]
    assert next_calls([Work(2, 600, False)], n_writing=1, batch_tokens=BATCH, pass_tokens=PASS) == [[Part(2, PASS)]]


def test_a_long_prompt_takes_one_pass_a_round_beside_many_answers() -> None:
    work = [Work(9, 8000, True), *(Work(slot, 1, False) for slot in range(8))]
    assert next_calls(work, n_writing=8, batch_tokens=BATCH, pass_tokens=PASS)[1:] == [[Part(9, PASS)]]


def test_answers_written_elsewhere_are_not_held_up_either() -> None:
    calls = next_calls([Work(0, 8000, True)], n_writing=3, batch_tokens=BATCH, pass_tokens=PASS)
    assert calls == [[Part(0, PASS)]]


def test_short_prompts_pass_a_long_one_and_the_long_one_still_gets_on() -> None:
    work = [Work(0, 8000, True), *(Work(slot, 90, True) for slot in range(1, 20))]
    parts = dict(chain(*next_calls(work, n_writing=0, batch_tokens=BATCH, pass_tokens=PASS)))
    assert parts[0] == BATCH // 2
    assert sum(n == 90 for n in parts.values()) == (BATCH - BATCH // 2) // 90


@given(WORK)
def test_every_call_can_be_made_and_every_round_gets_on(work: list[Work]) -> None:
    calls = next_calls(work, n_writing=sum(not w.is_prefill for w in work), batch_tokens=BATCH, pass_tokens=PASS)
    by_slot = {w.slot: w for w in work}
    taken = list(chain(*calls))
    assert len({slot for slot, _ in taken}) == len(taken)
    for call in calls:
        assert call and sum(n for _, n in call) <= BATCH
        assert all(a.slot < b.slot for a, b in pairwise(call))
        assert len({by_slot[slot].is_prefill for slot, _ in call}) == 1
        if by_slot[call[0].slot].is_prefill:
            assert len(call) <= GROUP_SLOTS or sum(n for _, n in call) <= PASS
            assert all(a.slot + 1 == b.slot for a, b in pairwise(call))
    assert all(1 <= n <= by_slot[slot].n_tokens for slot, n in taken)
    assert {w.slot for w in work if not w.is_prefill} <= {slot for slot, _ in taken}
    prompts = [w for w in work if w.is_prefill]
    if prompts:
        assert prompts[0].slot in {slot for slot, _ in taken}
        assert sum(n for slot, n in taken if by_slot[slot].is_prefill) <= BATCH


@given(st.sets(st.integers(0, 31)))
def test_those_that_write_become_neighbours_by_as_few_changes_as_it_takes(writing: set[int]) -> None:
    pairs = gather(writing, 32)
    places = {one: other for pair in pairs for one, other in (pair, pair[::-1])}
    after = sorted(places.get(slot, slot) for slot in writing)
    assert after == list(range(after[0], after[0] + len(after))) if after else not pairs
    assert len(places) == 2 * len(pairs)
    fewest = min(
        sum(slot not in range(start, start + len(writing)) for slot in writing) for start in range(33 - len(writing))
    )
    assert len(pairs) == fewest
