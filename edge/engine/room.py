"""Which lane of a cache a request goes to: many short slots, few long ones, in a given memory. Pure.

A lane is a context whose slots are equally long: one 8k document must not size every slot. Lanes are made when a
request comes that no lane suits, or only full ones of fewer slots than its class may have; each class's slots are twice
as long as those of the class below, and idle lanes make way for others.

Who waits for a slot is overtaken by those of other sizes. Who waits for a lane, until others have ended, is overtaken
only by what ends before those do, as far as one can tell: what has fewer tokens to go (backfilling, Lifka 1995,
https://doi.org/10.1007/3-540-60153-8_35). The most that any has to go only falls then, so nobody waits for ever. It may
rise by the next request of a conversation, which has its slot; those are few, as many as a choice has fields.

Invariants: a request's lane has room for its prompt and its longest answer; the lanes together take no more than the
budget; a request is told to wait only while something runs, another waits, or a slot is kept for a conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

SHORTEST_TOKENS = 1024
"""The smallest slot: what most turns need, prompt and answer."""
ROOMIER = 4
"""A request may take a slot up to so many times as long as it needs; longer ones are kept for those who need them."""


class LaneState(NamedTuple):
    """A lane as it is now. `n_free` of its slots are neither busy nor kept for a conversation.

    `used_at` orders lanes by their last use; `left_tokens` is the most that any request in it may still take.
    """

    slot_tokens: int
    n_slots: int
    n_free: int
    used_at: int
    left_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.slot_tokens * self.n_slots

    @property
    def n_taken(self) -> int:
        return self.n_slots - self.n_free

    @property
    def is_free(self) -> bool:
        return self.n_free == self.n_slots


class Use(NamedTuple):
    """Take a slot of the lane with this index."""

    lane: int


class Make(NamedTuple):
    """Drop the lanes with these indices, then make one of `n_slots` slots of `slot_tokens` each."""

    slot_tokens: int
    n_slots: int
    drop: tuple[int, ...] = ()


class Wait(NamedTuple):
    """No slot is free now. `for_lane`: no lane suits the request, and none can be made until others have ended."""

    for_lane: bool = False


def choose(
    need_tokens: int,
    lanes: Sequence[LaneState],
    *,
    context_tokens: int,
    n_slots: int,
    budget_tokens: int,
    is_behind: bool = False,
) -> Use | Make | Wait:
    """Where a request of `need_tokens` goes, at most `context_tokens`.

    `n_slots` is the most that a lane may have, `budget_tokens` what all lanes together may hold; a lane of one slot is
    made even beyond it when nothing else runs, since a model that was loaded must be able to answer. `is_behind`: one
    that came before waits for a lane.
    """
    size = slot_tokens(need_tokens, context_tokens)
    fitting = [i for i, lane in enumerate(lanes) if need_tokens <= lane.slot_tokens <= ROOMIER * size]
    free = [i for i in fitting if lanes[i].n_free and (not is_behind or need_tokens < lanes[i].left_tokens)]
    if free:
        # Two lanes decode in two calls, one in one: company counts before tightness, where slots aren't scarce.
        return Use(min(free, key=lambda i: (lanes[i].n_slots * 2 < n_slots, -lanes[i].n_taken, lanes[i].slot_tokens)))
    share = most_slots(size, n_slots=n_slots, budget_tokens=budget_tokens)
    if is_behind or sum(lanes[i].n_slots for i in fitting) >= share:
        return Wait()
    idle = sorted((i for i, lane in enumerate(lanes) if lane.is_free), key=lambda i: lanes[i].used_at)
    dropped: list[int] = []
    room = budget_tokens - sum(lane.tokens for lane in lanes)
    while room // size < share and idle:
        dropped.append(idle.pop(0))
        room += lanes[dropped[-1]].tokens
    n = min(share, room // size)
    if n < 1 and len(dropped) == len(lanes):
        n = 1
    return Make(size, n, tuple(dropped)) if n >= 1 else Wait(for_lane=not fitting)


def merge(lanes: Sequence[LaneState]) -> tuple[int, int] | None:
    """The lane whose requests would all find room in another that runs, and that other one; None if there are no two.

    What few requests are left then decode in one call instead of two. Both lanes have as many slots: llama.cpp puts no
    sequence into a context that has another number of them.
    """
    pairs = [
        (i, j)
        for i, one in enumerate(lanes)
        for j, other in enumerate(lanes)
        if i != j and 0 < one.n_taken <= other.n_free and other.n_taken
        if one.n_slots == other.n_slots and one.slot_tokens <= other.slot_tokens
    ]
    return min(pairs, key=lambda pair: lanes[pair[0]].n_taken, default=None)


def most_slots(size: int, *, n_slots: int, budget_tokens: int) -> int:
    """How many slots of that size there may be, in half of the budget. A lane has fewer where there is no more room."""
    return max(1, min(n_slots, budget_tokens // 2 // size))


def slot_tokens(need_tokens: int, context_tokens: int) -> int:
    """How long the slots of a lane for such requests are: a power of two, or the whole context."""
    size = SHORTEST_TOKENS
    while size < need_tokens:
        size *= 2
    return min(size, context_tokens)
