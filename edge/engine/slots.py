"""Which tokens each slot of a cache holds, and what the next prompt can take over from them.

Pure: it knows token numbers, slot numbers and instants that it is given, and neither model nor llama.cpp. Whoever owns
the cache makes the moves that are returned here, in their order, and says what was decoded.

Each slot has a plan: the prompt and whatever was written after it. Of a plan the first `held` tokens are in the
cache, and the others are pending. A slot is free, or busy, or kept: until an instant for the next prompt of a
conversation, which is known by its name.

A prompt goes into the slot that is kept for it, else into a free one: one that holds little more than a beginning of
it, as of a chat that goes on; else an empty one, into which the longest beginning is copied that another holds; else
the one that was used the longest ago of those that hold about as much of it. What is to be copied is copied whole, and
cut, and must be worth it (`COPY_WORTH_TOKENS`). A plan counts as soon as it is made: of many prompts that come at once,
the first computes what they share, and the others wait for it and copy it.

Invariants: `held` is at most the plan's length, and all of it where a slot isn't busy; a busy slot's plan is never
taken by another request; at most one slot is kept for a name; a slot waits only for one that has been busy for longer
than itself, and only as long as that is busy, so no two wait for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]  # [n_tokens] int32

COPY_WORTH_TOKENS = 32
"""So many more tokens a copy must save over what a free slot holds itself. It moves the slot's whole memory. What are
fewer is computed again."""


class Cut(NamedTuple):
    """Forget what `slot` holds beyond its first `n_tokens`."""

    slot: int
    n_tokens: int


class Copy(NamedTuple):
    """Copy the whole sequence of `source` into `target`, then forget there what is beyond `n_tokens`."""

    source: int
    target: int
    n_tokens: int

    @property
    def slot(self) -> int:
        """The one that changes."""
        return self.target


Move = Cut | Copy


class Kept(NamedTuple):
    """Which slot is kept, and until when."""

    slot: int
    until_s: float


class Donor(NamedTuple):
    """The slot that another one waits for, until that has computed so many tokens; what it writes later isn't met."""

    slot: int
    n_tokens: int


class Slots:
    """`n_slots` sequences of at most `slot_tokens` tokens. Where a sequence can't be cut, nothing is ever shared."""

    def __init__(self, n_slots: int, slot_tokens: int, *, can_share: bool = True) -> None:
        self.slot_tokens, self._can_share = slot_tokens, can_share
        self._plans = np.zeros((n_slots, slot_tokens), np.int32)
        self._planned = np.zeros(n_slots, np.int64)
        self._held = np.zeros(n_slots, np.int64)
        self._is_busy = np.zeros(n_slots, np.bool_)
        self._used_at = np.zeros(n_slots, np.int64)
        self._kept: dict[str, Kept] = {}  # by the name that it is kept for
        self._donors: dict[int, Donor] = {}  # by the slot that waits for it
        self._tick = 0

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        states = np.where(self._is_busy, "#", ".")
        states[[slot for slot, _ in self._kept.values()]] = ":"
        states[list(self._donors)] = "~"
        return f"<Slots {''.join(states)} x {self.slot_tokens}>"

    @property
    def n_free(self) -> int:
        return len(self._free())

    def held(self, slot: int) -> int:
        """How many tokens of the plan are in the cache."""
        return int(self._held[slot])

    def pending(self, slot: int) -> Tokens:
        """The part of the plan that is still to be decoded, [n_tokens] int32; a view."""
        return self._plans[slot, self._held[slot] : self._planned[slot]]

    def waits(self, slot: int) -> bool:
        """Whether a donor is still computing what this slot will copy."""
        return slot in self._donors

    def keep(self, slot: int, name: str, until_s: float) -> None:
        """Keep a free slot for the prompt that will come by that name; one that was kept for it is free."""
        self._kept[name] = Kept(slot, until_s)

    def keeps(self, name: str | None) -> bool:
        """Whether a slot is kept for a name."""
        return name in self._kept

    def expire(self, now_s: float) -> None:
        """The slots that were kept until now, or less long, are free."""
        self._kept = {name: kept for name, kept in self._kept.items() if kept.until_s > now_s}

    def place(self, prompt: Tokens, name: str | None = None) -> tuple[int, list[Move]]:
        """Plan `prompt`, [n_tokens] int32, in the slot that is kept for `name`, else in a free one: there is one.

        Which it is, and the moves to make. At least one token is left to decode, since only a decode gives logits.
        """
        slots = np.array([self._kept.pop(name).slot]) if name in self._kept else self._free()
        common = self._common(prompt)
        source, donor = int(slots[common[slots].argmax()]), int(common.argmax())
        if common[donor] - common[source] >= COPY_WORTH_TOKENS:
            source, slot = donor, self._idlest(slots)
        else:
            slot = self._heir(slots, common)
        held, moves = int(common[slot]), list[Move]()
        if self._is_busy[source]:  # it waits for what that one computes, which was here before it
            held, self._donors[slot] = 0, Donor(source, int(common[source]))
        elif (
            common[source] - held >= COPY_WORTH_TOKENS
        ):  # free, or kept for another name: now, since it may go any time
            held = int(common[source])
            moves.append(Copy(source, slot, held))
        if not moves and held < self._held[slot]:
            moves.append(Cut(slot, held))
        self._plans[slot, : len(prompt)] = prompt
        self._planned[slot], self._held[slot], self._is_busy[slot] = len(prompt), held, True
        return slot, moves

    def longest(self, prompt: Tokens) -> tuple[int, int]:
        """The slot that holds the longest beginning of a prompt, its last token aside, and how many tokens that is."""
        held = np.minimum(self._common(prompt), self._held)
        slot = int(held.argmax())
        return slot, int(held[slot])

    def gain(self, slot: int, n_tokens: int) -> None:
        """A busy slot was given the first tokens of its plan from elsewhere; so many are in the cache now."""
        self._held[slot] = n_tokens
        self._donors.pop(slot, None)

    def coming(self, slot: int) -> int:
        """How many tokens of a slot's plan are in the cache, or will be when its donor has computed them."""
        donor = self._donors.get(slot)
        return self.held(slot) if donor is None else min(donor.n_tokens, self._shared(slot, donor.slot))

    def settle(self) -> list[Move]:
        """The copies that can be made now, since their donors have computed what is shared."""
        moves: list[Move] = []
        for slot, (donor, due) in list(self._donors.items()):
            shared, held = self._shared(slot, donor), int(self._held[donor])
            if held < min(due, shared) and self._is_busy[donor]:
                continue
            del self._donors[slot]
            n = min(shared, held)
            if n:
                moves.append(Copy(donor, slot, n))
                self._held[slot] = n
        return moves

    def extend(self, slot: int, tokens: Sequence[int]) -> None:
        """Add tokens to a plan. Whoever admits requests sees to it that there is room."""
        start = int(self._planned[slot])
        self._plans[slot, start : start + len(tokens)] = tokens
        self._planned[slot] = start + len(tokens)

    def decoded(self, slot: int, n_tokens: int) -> None:
        """So many more tokens of the plan were decoded."""
        self._held[slot] += n_tokens
        self._tick += 1
        self._used_at[slot] = self._tick

    def rewind(self, slot: int, n_tokens: int) -> list[Move]:
        """Shorten a plan to its first `n_tokens`, to go on from there in another way."""
        self._planned[slot] = n_tokens
        if self._held[slot] <= n_tokens:
            return []
        self._held[slot] = n_tokens
        return [Cut(slot, n_tokens)]

    def swap(self, one: int, other: int) -> None:
        """Two slots change places, with all they hold; whoever owns the cache does the same there."""
        for rows in (self._plans, self._planned, self._held, self._is_busy, self._used_at):
            rows[[one, other]] = rows[[other, one]]
        places = {one: other, other: one}
        self._donors = {places.get(s, s): Donor(places.get(d, d), due) for s, (d, due) in self._donors.items()}
        self._kept = {name: Kept(places.get(s, s), until_s) for name, (s, until_s) in self._kept.items()}

    def plan(self, slot: int) -> Tokens:
        """What the slot holds and is to hold, [n_tokens] int32; a view."""
        return self._plans[slot, : self._planned[slot]]

    def adopt(self, plan: Tokens, n_held: int) -> tuple[int, list[Move]]:
        """Take over a sequence from another cache into a free slot, of which there is one.

        Which it is, and the moves to make before its first `n_held` tokens are put there.
        """
        slot = self._idlest(self._free())
        moves: list[Move] = [Cut(slot, 0)] if self._held[slot] else []
        self._plans[slot, : len(plan)] = plan
        self._planned[slot], self._held[slot], self._is_busy[slot] = len(plan), n_held, True
        return slot, moves

    def release(self, slot: int) -> list[Move]:
        """End a request. What it held stays for the next one; who waits for it copies what is there."""
        self._is_busy[slot] = False
        self._donors.pop(slot, None)
        self._planned[slot] = self._held[slot]
        return self.settle()

    def forget(self, slot: int) -> list[Move]:
        """End a request whose cache can't be trusted. Who waits for it must compute for itself."""
        self._planned[slot] = self._held[slot] = 0
        return [Cut(slot, 0), *self.release(slot)]

    def restart(self, slot: int) -> list[Move]:
        """What a busy slot holds can't be trusted: all of its plan is pending again."""
        self._held[slot] = 0
        return [Cut(slot, 0)]

    def _free(self) -> npt.NDArray[np.int64]:
        is_free = ~self._is_busy
        is_free[[slot for slot, _ in self._kept.values()]] = False
        return np.flatnonzero(is_free)

    def _common(self, prompt: Tokens) -> npt.NDArray[np.int64]:
        """How many tokens the prompt, its last one aside, has in common with each plan, [n_slots].

        Of a free slot only what it holds counts, which is all of its plan.
        """
        n = min(max(0, len(prompt) - 1), int(self._planned.max(initial=0))) if self._can_share else 0
        differs = np.ones((len(self), n + 1), np.bool_)
        differs[:, :n] = self._plans[:, :n] != prompt[:n]
        common: npt.NDArray[np.int64] = np.minimum(differs.argmax(axis=1), self._planned)
        return common

    def _shared(self, slot: int, donor: int) -> int:
        """How many tokens of the slot's plan, its last one aside, the donor's plan begins with too."""
        n = int(min(self._planned[slot] - 1, self._planned[donor]))
        differs = np.flatnonzero(self._plans[slot, :n] != self._plans[donor, :n])
        return int(differs[0]) if len(differs) else n

    def _heir(self, choice: npt.NDArray[np.int64], common: npt.NDArray[np.int64]) -> int:
        """The slot for a prompt that has so many tokens in common with each, [n_slots], where no busy one has more."""
        best = common[choice].max()
        if best < COPY_WORTH_TOKENS:
            return self._idlest(choice)
        near = choice[common[choice] > best - COPY_WORTH_TOKENS]
        whole = near[self._held[near] - common[near] < COPY_WORTH_TOKENS]
        if len(whole):  # nothing is lost there, and most is had of the longest
            return self._nearest(whole[common[whole] == common[whole].max()])
        empty = choice[self._held[choice] == 0]
        return self._nearest(empty) if len(empty) else int(near[self._used_at[near].argmin()])

    def _idlest(self, choice: npt.NDArray[np.int64]) -> int:
        """The slot whose tokens are missed least: one that holds none, else the one that was used the longest ago."""
        empty = choice[self._held[choice] == 0]
        return self._nearest(empty) if len(empty) else int(choice[self._used_at[choice].argmin()])

    def _nearest(self, choice: npt.NDArray[np.int64]) -> int:
        """Of equally good slots, one beside a busy one, so that one decode takes them together; then the oldest.

        llama.cpp splits a batch wherever the numbers of its sequences aren't consecutive.
        """
        beside = np.zeros(len(self) + 2, np.bool_)
        beside[:-2] |= self._is_busy
        beside[2:] |= self._is_busy
        near = choice[beside[1:-1][choice]]
        choice = near if len(near) else choice
        return int(choice[self._used_at[choice].argmin()])
