"""The slots of one context and what llama.cpp holds of them, kept in step: what `slots` decides is done here.

It knows slots and sequences, and no jobs: what becomes of whoever is in a slot where something fails is its lane's.

Invariant: between a copy and the next decode, what is copied from isn't restored, and what is copied to is neither
saved nor restored. llama.cpp only notes a copy, and makes it as the next decode begins, in the order in which they were
noted and before it writes anything: a sequence that was restored meanwhile would be copied with its new content, and
one that was to be copied to isn't there yet. A sequence may be cut meanwhile: its cells keep their content until they
are written to
(https://github.com/ggml-org/llama.cpp, llama-kv-cache.cpp, seq_cp and update).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edge.engine.llama import Context, Fed, Model, Rows, State
from edge.engine.memory import MOVABLE_BYTES
from edge.engine.slots import COPY_WORTH_TOKENS, Copy, Cut, Move, Slots, Tokens
from edge.engine.tuning import Tuning
from gx.core.errors import BenchError

MOVED_PER_GAIN = 8
"""A sequence is brought over from another cache only for a gain of at least this part of it: all of it is moved."""


class Given(NamedTuple):
    """A sequence on its way to another cache: its plan, [n_tokens] int32, and the state of the first `n_held` of it."""

    plan: Tokens
    n_held: int
    state: State


class Cache:
    """`n_slots` slots of `slot_tokens` tokens each over a model. :raises ModelError: if it can't be made."""

    def __init__(self, model: Model, *, n_slots: int, slot_tokens: int, threads: int, tuning: Tuning) -> None:
        self._context = Context(model, slots=n_slots, slot_tokens=slot_tokens, threads=threads, tuning=tuning)
        self.slots = Slots(n_slots, slot_tokens, can_share=model.can_share)
        self._movable_tokens = min(model.size_bytes, MOVABLE_BYTES) // model.token_bytes if model.can_move else 0
        self._due_from, self._due_to = set[int](), set[int]()

    def __repr__(self) -> str:
        return f"<Cache {self.slots!r}>"

    @property
    def pass_tokens(self) -> int:
        """How many tokens llama.cpp computes at once."""
        return self._context.pass_tokens

    def decode(self, fed: Sequence[Fed], *, threads: int) -> Rows:
        """Decode what is pending of some slots, as `Context.decode` has it.

        :raises BenchError: if llama.cpp can't; what these slots hold isn't known then.
        """
        self._context.use_threads(threads)
        rows = self._context.decode(fed)
        self._due_from.clear()
        self._due_to.clear()
        for part in fed:
            self.slots.decoded(part.slot, len(part.tokens))
        return rows

    def move(self, move: Move) -> None:
        """Carry out a move. :raises BenchError: if it can't be; what its slot holds isn't known then."""
        if isinstance(move, Copy):
            self._due_from.add(move.source)
            self._due_to.add(move.target)
            if self.slots.held(move.source) < move.n_tokens:
                raise BenchError(f"slot {move.source} lost what slot {move.target} was to copy")
        self._context.move([move])

    def can_swap(self, one: int, other: int) -> bool:
        """Whether two slots may change places now, and hold little enough for that to pay."""
        n_tokens = self.slots.held(one) + self.slots.held(other)
        return n_tokens <= self._movable_tokens and self._is_settled(one) and self._is_settled(other)

    def swap(self, one: int, other: int) -> bool:
        """Have two slots change places; whether they did, since there may be no memory for it.

        :raises BenchError: if llama.cpp can't write them; what they hold isn't known then.
        """
        try:
            here, there = self._context.save(one), self._context.save(other, buffer=1)
        except BenchError:
            return False
        self._context.restore(one, there)
        self._context.restore(other, here)
        self.slots.swap(one, other)
        return True

    def can_give(self, slot: int) -> bool:
        """Whether what a slot holds may go to another cache now: it is there, waits for nobody, and isn't too long."""
        is_there = slot not in self._due_to and not self.slots.waits(slot)
        return is_there and self.slots.held(slot) <= self._movable_tokens

    @property
    def can_take(self) -> bool:
        """Whether any free slot may get a sequence of another cache now."""
        return not (self._due_from or self._due_to)

    def give(self, slot: int) -> Given:
        """A slot's sequence, to be taken at once: it stands in a buffer. :raises BenchError: if it can't be read."""
        return Given(self.slots.plan(slot), self.slots.held(slot), self._context.save(slot))

    def take(self, slot: int, given: Given) -> None:
        """Put a sequence into a slot that was planned for it. :raises BenchError: if llama.cpp can't."""
        if given.n_held:
            self._context.restore(slot, given.state)

    def copy_from(self, other: Cache, slot: int, prompt: Tokens) -> bool:
        """Give a slot that was planned for a prompt what another cache holds of that, if it is much more; whether so.

        Both have as many slots: llama.cpp puts no sequence into a context that has another number of them. The moves
        that were due of that slot aren't made then.

        :raises BenchError: if llama.cpp can't; what the slot holds isn't known then.
        """
        theirs, n_tokens = other.slots.longest(prompt)
        moved = other.slots.held(theirs)
        is_worth_it = n_tokens - self.slots.coming(slot) >= max(COPY_WORTH_TOKENS, moved // MOVED_PER_GAIN)
        has_room = len(other.slots) == len(self.slots) and moved <= self.slots.slot_tokens
        if not (is_worth_it and has_room and other.can_give(theirs) and self._is_settled(slot)):
            return False
        try:
            given = other.give(theirs)
        except BenchError:
            return False
        self.take(slot, given)
        self._context.move([Cut(slot, n_tokens)])
        self.slots.gain(slot, n_tokens)
        return True

    def _is_settled(self, slot: int) -> bool:
        """Whether no copy of what a slot holds, or into it, is due."""
        return slot not in self._due_from and slot not in self._due_to

    def close(self) -> None:
        """Free the memory."""
        self._context.close()
