"""A sequence that changes its place, within a context or between two, goes on as if it had stayed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.engine.llama import Context, Fed, Model
from edge.engine.room import LaneState, merge
from edge.engine.slots import Copy, Cut, Move, Slots, Tokens

# ── pure: plans and a cache that copies late, as llama.cpp does ──────────────────────────────────────────────────────

SLOTS = 4


class Cache:
    """A cache whose copies count at once and are made at the next decode. It is asked as a lane asks its context."""

    def __init__(self, slot_tokens: int) -> None:
        self.slots = Slots(SLOTS, slot_tokens)
        self.plans: dict[int, list[int]] = {}
        self.copies: list[Copy] = []
        self._cells: list[list[int]] = [[] for _ in range(SLOTS)]
        self._lengths = [0] * SLOTS

    def move(self, moves: Iterable[Move]) -> None:
        for move in moves:
            if isinstance(move, Copy):
                assert move.source != move.target and move.n_tokens <= self._lengths[move.source]
                self._lengths[move.target] = move.n_tokens
                self.copies.append(move)
            else:
                self._lengths[move.slot] = min(self._lengths[move.slot], move.n_tokens)

    def place(self, prompt: list[int]) -> None:
        slot, moves = self.slots.place(np.array(prompt, np.int32))
        assert slot not in self.plans
        self.plans[slot] = list(prompt)
        self.move(moves)

    def decode(self, slot: int, n_tokens: int) -> None:
        for copy in self.copies:
            self._cells[copy.target] = list(self._cells[copy.source])
        self.copies.clear()
        pending = self.slots.pending(slot)[:n_tokens].tolist()
        self._cells[slot] = self.held(slot) + pending
        self._lengths[slot] += len(pending)
        self.slots.advance(slot, len(pending))

    def end(self, slot: int, *, is_sound: bool) -> None:
        del self.plans[slot]
        self.move(self.slots.release(slot) if is_sound else self.slots.forget(slot))

    def rewind(self, slot: int, n_tokens: int) -> None:
        del self.plans[slot][n_tokens:]
        self.move(self.slots.rewind(slot, n_tokens))

    def swap(self, one: int, other: int) -> None:
        self._cells[one], self._cells[other] = self._cells[other], self._cells[one]
        self._lengths[one], self._lengths[other] = self._lengths[other], self._lengths[one]
        places = {one: other, other: one}
        self.plans = {places.get(slot, slot): plan for slot, plan in self.plans.items()}
        self.slots.swap(one, other)

    def hand_over(self, slot: int, target: Cache) -> None:
        n_held = self.slots.held(slot)
        into, moves = target.slots.adopt(self.slots.plan(slot), n_held)
        assert into not in target.plans
        target.move(moves)
        target._cells[into], target._lengths[into] = self.held(slot), n_held
        target.plans[into] = self.plans[slot]
        self.end(slot, is_sound=True)

    def held(self, slot: int) -> list[int]:
        return self._cells[slot][: self._lengths[slot]]

    def check(self) -> None:
        """Whatever is due, each plan's beginning is there, and busy are those who should be."""
        cells = [list(row) for row in self._cells]
        for copy in self.copies:
            cells[copy.target] = list(cells[copy.source])
        for slot in range(SLOTS):
            held = self.slots.held(slot)
            assert self._lengths[slot] == held
            assert cells[slot][:held] == self.slots.plan(slot)[:held].tolist()
        for slot, plan in self.plans.items():
            assert self.slots.plan(slot).tolist() == plan
        assert self.slots.n_free == SLOTS - len(self.plans)
        assert not any(self.slots.waits(slot) for slot in range(SLOTS) if slot not in self.plans)


PROMPTS = st.lists(st.integers(0, 1), min_size=1, max_size=90).map(lambda bits: [7] * 40 + bits)
ACTS = (
    "place",
    "place",
    "decode",
    "decode",
    "decode",
    "settle",
    "release",
    "forget",
    "extend",
    "rewind",
    "swap",
    "hand",
)
STEPS = st.tuples(st.sampled_from(ACTS), st.booleans(), st.integers(0, SLOTS - 1), st.integers(1, 60))


def step(here: Cache, there: Cache, act: str, slot: int, n: int, prompts: list[list[int]]) -> None:
    """Do it, if it can be done."""
    can_move = not here.copies
    match act:
        case "place" if here.slots.n_free and prompts:
            here.place(prompts.pop())
        case "settle":
            here.move(here.slots.settle())
        case "swap" if can_move and slot != n % SLOTS:
            here.swap(slot, n % SLOTS)
        case _ if slot not in here.plans:
            return
        case "release" | "forget":
            here.end(slot, is_sound=act == "release")
        case "extend" if len(here.plans[slot]) < 190:
            here.plans[slot] += [3, 4]
            here.slots.extend(slot, [3, 4])
        case _ if here.slots.waits(slot):
            return
        case "decode":
            here.decode(slot, n)
        case "rewind" if here.slots.held(slot):
            here.rewind(slot, min(here.slots.held(slot), n))
        case "hand" if can_move and there.slots.n_free and not there.copies:
            here.hand_over(slot, there)


@given(prompts=st.lists(PROMPTS, min_size=4, max_size=20), steps=st.lists(STEPS, min_size=10, max_size=80))
@settings(max_examples=300, deadline=None)
def test_a_cache_holds_the_beginning_of_each_plan_wherever_that_goes(
    prompts: list[list[int]], steps: list[tuple[str, bool, int, int]]
) -> None:
    short, long = Cache(200), Cache(400)
    for act, is_short, slot, n in steps:
        here, there = (short, long) if is_short else (long, short)
        step(here, there, act, slot, n, prompts)
        short.check()
        long.check()
    for cache in (short, long):
        for _ in range(SLOTS):  # nobody waits for ever
            cache.move(cache.slots.settle())
            for slot in cache.plans:
                if not cache.slots.waits(slot):
                    cache.decode(slot, 999)
            cache.check()
        assert not any(len(cache.slots.pending(slot)) for slot in cache.plans)
        for slot in list(cache.plans):
            cache.end(slot, is_sound=True)
        cache.check()
        assert cache.slots.n_free == SLOTS


def test_lanes_become_one_only_where_a_sequence_fits_in_the_other() -> None:
    short, long = LaneState(1024, 8, 6, 0), LaneState(2048, 8, 5, 0)
    assert merge([short, long]) == (0, 1) and merge([long, short]) == (1, 0)
    assert merge([short, long._replace(n_free=1)]) is None
    assert merge([short, long._replace(n_free=8)]) is None
    assert merge([short, long._replace(n_slots=6)]) is None
    assert merge([short._replace(slot_tokens=4096), long]) == (1, 0)


# ── a real context ───────────────────────────────────────────────────────────────────────────────────────────────────

Row = npt.NDArray[np.float32]
N, LAST = 60, np.array([777], np.int32)


def some(seed: int) -> Tokens:
    return np.random.default_rng(seed).integers(100, 40_000, N).astype(np.int32)


def feed(context: Context, slot: int, start: int, tokens: Tokens) -> Row:
    return np.array(context.decode([Fed(slot, start, tokens, "last")])[0])


class Bench:
    """A loaded model, and contexts that are closed with it."""

    def __init__(self, path: str) -> None:
        self._model = Model("tiny", path)
        self._contexts: list[Context] = []

    def context(self, slot_tokens: int = 256) -> Context:
        self._contexts.append(Context(self._model, slots=SLOTS, slot_tokens=slot_tokens, threads=1))
        return self._contexts[-1]

    def close(self) -> None:
        for context in self._contexts:
            context.close()
        self._model.close()


@pytest.fixture
def bench(tiny: str) -> Iterator[Bench]:
    bench = Bench(tiny)
    yield bench
    bench.close()


@pytest.fixture
def stayed(bench: Bench) -> Row:
    """The logits after a sequence that never moved."""
    context = bench.context()
    feed(context, 0, 0, some(1))
    return feed(context, 0, N, LAST)


@pytest.mark.parametrize("target", [1, 3])
def test_a_sequence_in_another_slot_goes_on_bit_for_bit(bench: Bench, stayed: Row, target: int) -> None:
    context = bench.context()
    feed(context, 0, 0, some(1))
    feed(context, target, 0, some(2))
    context.restore(target, context.save(0))
    assert np.array_equal(feed(context, target, N, LAST), stayed)


def test_a_sequence_in_a_longer_context_goes_on_bit_for_bit(bench: Bench, stayed: Row) -> None:
    short, long = bench.context(), bench.context(512)
    feed(short, 2, 0, some(1))
    feed(long, 0, 0, some(2))
    long.restore(3, short.save(2))
    assert np.array_equal(feed(long, 3, N, LAST), stayed)


def test_a_prompt_that_moves_halfway_goes_on_bit_for_bit(bench: Bench) -> None:
    tokens, stays, moves, other = some(1), bench.context(), bench.context(), bench.context(512)
    feed(stays, 0, 0, tokens[:25])
    feed(moves, 0, 0, np.concatenate([tokens[:25], LAST, LAST]))
    moves.move([Cut(0, 25)])
    moves.swap(0, 2)
    other.restore(1, moves.save(2))
    assert np.array_equal(feed(stays, 0, 25, tokens[25:]), feed(other, 1, 25, tokens[25:]))


@pytest.mark.parametrize("n_other", [0, 20])
def test_two_that_change_places_both_go_on_bit_for_bit(bench: Bench, stayed: Row, n_other: int) -> None:
    alone, context = bench.context(), bench.context()
    expected = None
    feed(context, 0, 0, some(1))
    if n_other:
        feed(alone, 2, 0, some(2)[:n_other])
        expected = feed(alone, 2, n_other, LAST)
        feed(context, 2, 0, some(2)[:n_other])
    context.swap(0, 2)
    assert np.array_equal(feed(context, 2, N, LAST), stayed)
    if expected is not None:
        assert np.array_equal(feed(context, 0, n_other, LAST), expected)
