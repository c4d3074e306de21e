"""A cache that makes the moves it is told to holds what the slots say, and every prompt gets on."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.engine.slots import Copy, Cut, Move, Slots, Tokens


class Cache:
    """What llama.cpp would hold: a list of tokens for each slot."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.cells: list[list[int]] = [[] for _ in range(len(slots))]

    def move(self, moves: list[Move]) -> None:
        for move in moves:
            if isinstance(move, Copy):
                assert move.source != move.target
                self.cells[move.target] = self.cells[move.source][: move.n_tokens]
                assert len(self.cells[move.target]) == move.n_tokens
            else:
                del self.cells[move.slot][move.n_tokens :]

    def decode(self, slot: int, n_tokens: int) -> None:
        self.cells[slot] += self.slots.pending(slot)[:n_tokens].tolist()
        self.slots.decoded(slot, n_tokens)


def tokens(*numbers: int) -> Tokens:
    return np.array(numbers, np.int32)


SHARED = tuple(range(100, 200))


def place(cache: Cache, *prompt: int) -> int:
    slot, moves = cache.slots.place(tokens(*prompt))
    cache.move(moves)
    return slot


def test_of_many_prompts_at_once_the_first_computes_what_they_share() -> None:
    slots = Slots(3, 256)
    cache = Cache(slots)
    first, second, third = (place(cache, *SHARED, 7, number) for number in range(3))
    assert [slots.waits(s) for s in (first, second, third)] == [False, True, True]
    cache.decode(first, 102)
    cache.move(slots.settle())
    assert cache.cells[second] == cache.cells[third] == [*SHARED, 7]
    assert slots.pending(second).tolist() == [1] and slots.pending(third).tolist() == [2]


def test_the_next_prompt_of_a_kind_copies_nothing() -> None:
    cache = Cache(slots := Slots(3, 256))
    slot = place(cache, *SHARED, 1)
    cache.decode(slot, 101)
    cache.move(slots.release(slot))
    again, moves = slots.place(tokens(*SHARED, 2))
    assert again == slot and moves == [Cut(slot, 100)] and slots.held(slot) == 100


def test_a_chat_comes_back_to_the_slot_that_knows_it() -> None:
    cache = Cache(slots := Slots(3, 512))
    chats = [place(cache, *SHARED, *[number] * 50) for number in range(3)]
    for _ in range(3):
        for slot in chats:
            if not slots.waits(slot):
                cache.decode(slot, len(slots.pending(slot)))
        cache.move(slots.settle())
    for slot in chats:
        cache.move(slots.release(slot))
    for number in (2, 0, 1):
        assert place(cache, *SHARED, *[number] * 60) == chats[number]
        assert slots.held(chats[number]) == 150


def turn(cache: Cache, *prompt: int) -> tuple[int, int]:
    """A prompt that comes alone: its slot, and how much of it was there."""
    slot = place(cache, *prompt)
    held = cache.slots.held(slot)
    cache.decode(slot, len(prompt) - held)
    cache.move(cache.slots.release(slot))
    assert cache.cells[slot] == [*prompt]
    return slot, held


def test_chats_one_after_the_other_keep_what_they_hold_while_slots_are_empty() -> None:
    cache = Cache(Slots(4, 512))
    first = [turn(cache, *SHARED, *[number] * 50) for number in range(4)]
    assert sorted(slot for slot, _ in first) == [0, 1, 2, 3] and [held for _, held in first] == [0, 100, 100, 100]
    for number, (slot, _) in enumerate(first):
        assert turn(cache, *SHARED, *[number] * 90) == (slot, 150)


def test_where_none_is_empty_the_chat_goes_that_was_used_the_longest_ago() -> None:
    cache = Cache(Slots(3, 512))
    slots = [turn(cache, *SHARED, *[number] * 50)[0] for number in range(3)]
    slot, held = turn(cache, *SHARED, 2, 2, 2, *[9] * 40)  # by chance it begins more as the last one does
    assert (slot, held) == (slots[0], 100)
    assert turn(cache, *SHARED, *[1] * 60) == (slots[1], 150) and turn(cache, *SHARED, *[2] * 60) == (slots[2], 150)


def test_the_chat_goes_that_was_used_the_longest_ago_though_another_is_beside_one_that_is_busy() -> None:
    cache = Cache(slots := Slots(3, 512))
    oldest, _, last = (turn(cache, *SHARED, *[number] * 50)[0] for number in (0, 1, 2))
    busy = place(cache, *SHARED, *[1] * 60)
    assert busy == 1 and (oldest, last) == (0, 2)
    cache.decode(busy, 10)
    turn(cache, *SHARED, *[0] * 60)
    assert place(cache, *SHARED, *[9] * 40) == last
    assert slots.held(last) == 100


def test_one_token_is_always_left_to_decode() -> None:
    cache = Cache(slots := Slots(1, 64))
    cache.decode(place(cache, 1, 2, 3), 3)
    cache.move(slots.release(0))
    assert place(cache, 1, 2, 3) == 0
    assert slots.pending(0).tolist() == [3]


def test_who_waits_for_a_donor_that_leaves_takes_what_is_there() -> None:
    cache = Cache(slots := Slots(2, 256))
    first, second = place(cache, *SHARED, 1), place(cache, *SHARED, 2)
    cache.decode(first, 40)
    cache.move(slots.release(first))
    assert not slots.waits(second) and slots.held(second) == 40


def test_who_waits_for_a_prompt_does_not_wait_for_the_answer_that_it_knows() -> None:
    """As a chat's second turn does that comes with its first: its prompt goes on as the first is being answered."""
    cache = Cache(slots := Slots(2, 256))
    first, second = place(cache, *SHARED), place(cache, *SHARED, 1, 2, 3, 4, 5)
    cache.decode(first, 100)
    slots.extend(first, [1])
    cache.move(slots.settle())
    assert not slots.waits(second) and slots.held(second) == 100 and cache.cells[second] == [*SHARED]


def test_nothing_is_taken_from_a_cache_that_cannot_be_trusted() -> None:
    cache = Cache(slots := Slots(2, 256))
    first, second = place(cache, *SHARED, 1), place(cache, *SHARED, 2)
    cache.decode(first, 40)
    cache.move(slots.forget(first))
    assert not slots.waits(second) and slots.held(second) == 0 and cache.cells == [[], []]


def test_the_slot_beside_the_busy_ones_is_taken_and_else_the_oldest() -> None:
    cache = Cache(slots := Slots(4, 64))
    busy = [place(cache, number) for number in (1, 2, 3, 4)]
    assert busy == [0, 1, 2, 3]
    for slot in (3, 0, 1):
        cache.decode(slot, 1)
        cache.move(slots.release(slot))
    assert place(cache, 9) == 3  # 1 and 3 are beside 2, and 3 was used before 1


def test_a_sequence_that_cannot_be_cut_is_never_shared() -> None:
    cache = Cache(slots := Slots(2, 256, can_share=False))
    cache.decode(place(cache, *SHARED, 1), 101)
    second = place(cache, *SHARED, 2)
    assert not slots.waits(second) and slots.held(second) == 0


def three(slots: Slots) -> tuple[int, int, int]:
    """Three slots: the first is free and holds SHARED, one is kept for "next" until 10 s, one is busy."""
    cache = Cache(slots)
    first, kept, other = place(cache, *SHARED), place(cache, *[7] * 50), place(cache, *[9] * 50)
    cache.decode(first, 100)
    cache.decode(kept, 50)
    cache.decode(other, 50)
    slots.release(first)
    slots.release(kept)
    slots.keep(kept, "next", 10.0)
    return first, kept, other


def test_a_kept_slot_copies_at_once_from_one_that_is_free_and_may_be_given_away() -> None:
    slots = Slots(3, 400)
    first, kept, _ = three(slots)
    both = tuple(range(100, 300))
    assert slots.place(tokens(*both), "next") == (kept, [Copy(first, kept, 100)])
    assert slots.place(tokens(*both, 5)) == (first, [Cut(first, 0)])
    assert not slots.waits(kept) and slots.waits(first)  # and not each for the other
    slots.decoded(kept, len(slots.pending(kept)))
    assert slots.settle() == [Copy(kept, first, 200)]


def test_a_slot_is_kept_for_one_name_until_an_instant() -> None:
    slots = Slots(3, 400)
    first, kept, _ = three(slots)
    assert slots.n_free == 1 and slots.keeps("next") and not slots.keeps("another")
    assert slots.place(tokens(*[7] * 60))[0] == first
    slots.expire(9.9)
    assert slots.keeps("next") and slots.n_free == 0
    slots.expire(10.0)
    assert not slots.keeps("next") and slots.n_free == 1
    assert slots.place(tokens(*[7] * 60), "next") == (kept, [])


def test_one_slot_is_kept_for_a_name() -> None:
    slots = Slots(3, 400)
    *_, other = three(slots)
    slots.release(other)
    slots.keep(other, "next", 20.0)
    assert slots.n_free == 2
    assert slots.place(tokens(1), "next")[0] == other and not slots.keeps("next")


def test_a_slot_that_changes_its_place_is_kept_there() -> None:
    slots = Slots(3, 400)
    _, kept, other = three(slots)
    slots.swap(kept, other)
    assert slots.place(tokens(*[7] * 60), "next") == (other, [])


def test_of_a_slot_that_begins_anew_the_whole_plan_is_pending() -> None:
    slots = Slots(3, 400)
    *_, other = three(slots)
    slots.extend(other, [4])
    assert slots.restart(other) == [Cut(other, 0)]
    assert slots.held(other) == 0 and slots.pending(other).tolist() == [9] * 50 + [4]


PROMPTS = st.lists(st.integers(0, 1), min_size=1, max_size=120).map(lambda bits: [7] * 40 + bits)


@given(
    prompts=st.lists(PROMPTS, min_size=1, max_size=12),
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60), st.integers(0, 9)), min_size=1, max_size=40),
)
@settings(max_examples=200, deadline=None)
def test_the_cache_always_holds_the_beginning_of_each_plan(
    prompts: list[list[int]], steps: list[tuple[int, int, int]]
) -> None:
    cache = Cache(slots := Slots(4, 256))
    plans: dict[int, list[int]] = {}
    waiting = [*prompts]

    def check() -> None:
        for slot, plan in plans.items():
            held = slots.held(slot)
            assert cache.cells[slot] == plan[:held]
            assert slots.pending(slot).tolist() == plan[held:]

    for slot, n, act in steps:
        if slots.n_free and waiting:
            prompt = waiting.pop()
            plans[place(cache, *prompt)] = prompt
        check()
        if slot in plans:
            if act == 0:
                del plans[slot]
                cache.move(slots.release(slot))
            elif act == 1:
                del plans[slot]
                cache.move(slots.forget(slot))
            elif act == 2:
                plans[slot] += [3, 4]
                slots.extend(slot, [3, 4])
            elif act == 3 and not slots.waits(slot) and slots.held(slot):
                del plans[slot][slots.held(slot) :]
                cache.move(slots.rewind(slot, slots.held(slot)))
            elif not slots.waits(slot):
                cache.decode(slot, min(n, len(slots.pending(slot))))
        cache.move(slots.settle())
        check()
    for _ in range(len(slots)):  # nobody waits for ever
        for slot in plans:
            if not slots.waits(slot):
                cache.decode(slot, len(slots.pending(slot)))
        cache.move(slots.settle())
    assert all(not len(slots.pending(slot)) for slot in plans)
    check()
