"""A sequence that changes its place, within a cache or between two, goes on as if it had stayed.

The cache is one that copies late, as llama.cpp does; llama.cpp's own is tested in `test_moves_context`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.engine.room import LaneState, merge
from edge.engine.slots import Copy, Move, Slots

SLOTS = 4


class Cache:
    """A cache whose copies count at once and are made at the next decode. It is asked as a lane asks its context."""

    def __init__(self, slot_tokens: int) -> None:
        self.slots = Slots(SLOTS, slot_tokens)
        self.plans: dict[int, list[int]] = {}
        self.kept: dict[str, tuple[int, int]] = {}  # by name: a slot, and until when
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

    def place(self, prompt: list[int], name: str | None = None) -> None:
        slot, moves = self.slots.place(np.array(prompt, np.int32), name)
        assert slot not in self.plans
        if name is None or (mine := self.kept.pop(name, None)) is None:
            assert slot not in {kept for kept, _ in self.kept.values()}
        else:
            assert slot == mine[0]
        self.plans[slot] = list(prompt)
        self.move(moves)

    def decode(self, slot: int, n_tokens: int) -> None:
        for copy in self.copies:
            self._cells[copy.target] = list(self._cells[copy.source])
        self.copies.clear()
        pending = self.slots.pending(slot)[:n_tokens].tolist()
        self._cells[slot] = self.held(slot) + pending
        self._lengths[slot] += len(pending)
        self.slots.decoded(slot, len(pending))

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
        self.kept = {name: (places.get(slot, slot), until) for name, (slot, until) in self.kept.items()}
        self.slots.swap(one, other)

    def hand_over(self, slot: int, target: Cache) -> None:
        n_held = self.slots.held(slot)
        into, moves = target.slots.adopt(self.slots.plan(slot), n_held)
        assert into not in target.plans
        target.move(moves)
        target._cells[into], target._lengths[into] = self.held(slot), n_held
        target.plans[into] = self.plans[slot]
        self.end(slot, is_sound=True)

    def due(self, slot: int) -> bool:
        return any(slot in (copy.source, copy.target) for copy in self.copies)

    def fetch(self, there: Cache, prompt: list[int]) -> None:
        """A prompt whose beginning another cache may hold more of."""
        slot, moves = self.slots.place(np.array(prompt, np.int32))
        assert slot not in self.plans
        self.plans[slot] = list(prompt)
        theirs, n = there.slots.longest(np.array(prompt, np.int32))
        is_there = not there.slots.waits(theirs) and theirs not in {copy.target for copy in there.copies}
        if n <= self.slots.coming(slot) or not is_there or self.due(slot):
            self.move(moves)
            return
        self._cells[slot], self._lengths[slot] = there.held(theirs), n
        self.slots.gain(slot, n)

    def keep(self, slot: int, name: str, until: int) -> None:
        self.end(slot, is_sound=True)
        self.kept[name] = slot, until
        self.slots.keep(slot, name, until)

    def expire(self, now: int) -> None:
        self.kept = {name: (slot, until) for name, (slot, until) in self.kept.items() if until > now}
        self.slots.expire(now)

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
        assert self.slots.n_free == SLOTS - len(self.plans) - len(self.kept)
        assert not any(self.slots.waits(slot) for slot in range(SLOTS) if slot not in self.plans)
        donors = {donor.slot for donor in self.slots._donors.values()}
        assert donors <= set(self.plans)  # nobody waits for one that computes nothing


PARTS = st.sampled_from(([7] * 40, [8] * 40, [0], [1]))  # a copy of the long ones is worth it
PROMPTS = st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: [*chain(*parts)])
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
    "fetch",
    "keep",
    "come",
    "expire",
)
NAMES = ("one", "other")
STEPS = st.tuples(st.sampled_from(ACTS), st.booleans(), st.integers(0, SLOTS - 1), st.integers(1, 60))


def step(here: Cache, there: Cache, act: str, slot: int, n: int, prompts: list[list[int]]) -> None:
    """Do it, if it can be done."""
    match act:
        case "place" if here.slots.n_free and prompts:
            here.place(prompts.pop())
        case "come" if prompts and (here.slots.n_free or here.slots.keeps(NAMES[n % 2])):
            here.place(prompts.pop(), NAMES[n % 2])
        case "expire":
            here.expire(n)
        case "settle":
            here.move(here.slots.settle())
        case "fetch" if here.slots.n_free and prompts:
            here.fetch(there, prompts.pop())
        case "swap" if slot != n % SLOTS and not here.due(slot) and not here.due(n % SLOTS):
            here.swap(slot, n % SLOTS)
        case _ if slot not in here.plans:
            return
        case "release" | "forget":
            here.end(slot, is_sound=act == "release")
        case "keep":
            here.keep(slot, NAMES[n % 2], n)
        case "extend" if len(here.plans[slot]) < 190:
            here.plans[slot] += [3, 4]
            here.slots.extend(slot, [3, 4])
        case _ if here.slots.waits(slot):
            return
        case "decode":
            here.decode(slot, n)
        case "rewind" if here.slots.held(slot):
            here.rewind(slot, min(here.slots.held(slot), n))
        case "hand" if there.slots.n_free and not there.copies and slot not in {copy.target for copy in here.copies}:
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
        cache.expire(99)
        cache.check()
        assert cache.slots.n_free == SLOTS


def test_lanes_become_one_only_where_a_sequence_fits_in_the_other() -> None:
    short, long = LaneState(1024, 8, 6, 0), LaneState(2048, 8, 5, 0)
    assert merge([short, long]) == (0, 1) and merge([long, short]) == (1, 0)
    assert merge([short, long._replace(n_free=1)]) is None
    assert merge([short, long._replace(n_free=8)]) is None
    assert merge([short, long._replace(n_slots=6)]) is None
    assert merge([short._replace(slot_tokens=4096), long]) == (1, 0)
