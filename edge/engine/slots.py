"""Which tokens each slot of a cache holds, and what the next prompt can take over from them.

Pure: it knows token numbers and slot numbers, and neither model nor llama.cpp. Whoever owns the cache makes the moves
that are returned here, in their order, and says what was decoded.

A slot's row is its plan: the prompt and whatever was written after it. Of a plan the first `held` tokens are in the
cache, and the others are pending. A prompt is placed where it has the longest beginning in common with a plan: in a
free slot's own row, or in another slot's, whose sequence is then copied whole and cut. A plan counts as soon as it is
made: of many prompts that come at once, the first computes what they share, and the others wait for it and copy it.
A slot that is kept is free for one prompt only, which is told where it goes.

Invariants: `held` is at most the plan's length; a busy slot's plan is never taken by another request; a slot waits for
a donor only while that donor is busy with the same plan, so no two wait for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]  # [n_tokens] int32

COPY_WORTH_TOKENS = 32
"""So many more tokens a copy must save over what a free slot holds itself. It moves the slot's whole memory."""


class Cut(NamedTuple):
    """Forget what `slot` holds beyond its first `n_tokens`."""

    slot: int
    n_tokens: int


class Copy(NamedTuple):
    """Copy the whole sequence of `source` into `target`, then forget there what is beyond `n_tokens`."""

    source: int
    target: int
    n_tokens: int


Move = Cut | Copy


class Slots:
    """`n_slots` sequences of at most `slot_tokens` tokens. Where a sequence can't be cut, nothing is ever shared."""

    def __init__(self, n_slots: int, slot_tokens: int, *, can_share: bool = True) -> None:
        self.slot_tokens, self._can_share = slot_tokens, can_share
        self._plans = np.zeros((n_slots, slot_tokens), np.int32)
        self._planned = np.zeros(n_slots, np.int64)
        self._held = np.zeros(n_slots, np.int64)
        self._is_busy = np.zeros(n_slots, np.bool_)
        self._is_kept = np.zeros(n_slots, np.bool_)
        self._used_at = np.zeros(n_slots, np.int64)
        self._donors: dict[int, int] = {}
        self._now = 0

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        states = np.where(self._is_busy, "#", np.where(self._is_kept, ":", "."))
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

    def keep(self, slot: int, *, is_kept: bool = True) -> None:
        """Keep a free slot for a prompt that is to come, or do so no longer."""
        self._is_kept[slot] = is_kept

    def place(self, prompt: Tokens, kept: int | None = None) -> tuple[int, list[Move]]:
        """Plan `prompt`, [n_tokens] int32, in a free slot, of which there is one: which it is, and the moves to make.

        `kept` is the slot that was kept for it. At least one token is left to decode, since only a decode gives logits.
        """
        free = self._free() if kept is None else np.array([kept])
        common = self._common(prompt)
        donor = int(common.argmax())
        reused = common[free]
        best = int(reused.max())
        is_copied = common[donor] - best >= COPY_WORTH_TOKENS
        if not is_copied and best >= COPY_WORTH_TOKENS:
            choice = free[reused == best]
        else:  # little to keep in any slot: let it be one that holds nothing, else what was used the longest ago
            empty = free[self._held[free] == 0]
            choice = empty if len(empty) else free[[int(self._used_at[free].argmin())]]
        slot = self._nearest(choice)
        held = 0 if is_copied else int(common[slot])
        moves: list[Move] = [Cut(slot, held)] if held < self._held[slot] else []
        if is_copied:
            self._donors[slot] = donor
        self._plans[slot, : len(prompt)] = prompt
        self._planned[slot], self._held[slot], self._is_busy[slot] = len(prompt), held, True
        self._is_kept[slot] = False
        return slot, moves

    def settle(self) -> list[Move]:
        """The copies that can be made now, since their donors have computed what is shared."""
        moves: list[Move] = []
        for slot, donor in list(self._donors.items()):
            n = self._shared(slot, donor)
            if self._held[donor] < n and self._is_busy[donor]:
                continue
            del self._donors[slot]
            n = min(n, int(self._held[donor]))
            if n:
                moves.append(Copy(donor, slot, n))
                self._held[slot] = n
        return moves

    def extend(self, slot: int, tokens: Sequence[int]) -> None:
        """Add tokens to a plan. Whoever admits requests sees to it that there is room."""
        start = int(self._planned[slot])
        self._plans[slot, start : start + len(tokens)] = tokens
        self._planned[slot] = start + len(tokens)

    def advance(self, slot: int, n_tokens: int) -> None:
        """So many more tokens of the plan were decoded."""
        self._held[slot] += n_tokens
        self._now += 1
        self._used_at[slot] = self._now

    def rewind(self, slot: int, n_tokens: int) -> list[Move]:
        """Shorten a plan to its first `n_tokens`, to go on from there in another way."""
        self._planned[slot] = n_tokens
        if self._held[slot] <= n_tokens:
            return []
        self._held[slot] = n_tokens
        return [Cut(slot, n_tokens)]

    def swap(self, one: int, other: int) -> None:
        """Two slots change places, with all they hold; whoever owns the cache does the same there."""
        for rows in (self._plans, self._planned, self._held, self._is_busy, self._is_kept, self._used_at):
            rows[[one, other]] = rows[[other, one]]
        places = {one: other, other: one}
        self._donors = {places.get(s, s): places.get(donor, donor) for s, donor in self._donors.items()}

    def plan(self, slot: int) -> Tokens:
        """What the slot holds and is to hold, [n_tokens] int32; a view."""
        return self._plans[slot, : self._planned[slot]]

    def adopt(self, plan: Tokens, n_held: int) -> tuple[int, list[Move]]:
        """Take over a sequence from another cache into a free slot, of which there is one.

        Which it is, and the moves to make before its first `n_held` tokens are put there.
        """
        free = self._free()
        empty = free[self._held[free] == 0]
        slot = self._nearest(empty if len(empty) else free)
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

    def _free(self) -> npt.NDArray[np.int64]:
        return np.flatnonzero(~(self._is_busy | self._is_kept))

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
