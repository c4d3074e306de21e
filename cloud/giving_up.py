"""Attempts that are given up while a call of theirs may run: how each ends, by what the call had answered before.

It has calls cancelled (`cloud.clearing`), and follows none. A call may answer that another one has its attempt: nobody
wants that one either.

Invariant: each attempt that is cancelled or recalled ends once. Only one that was recalled, and whose call could not be
cancelled at once, may end again: with its answer, if it had one.
"""

from __future__ import annotations

from collections.abc import Callable

from cloud import message as m
from cloud.calls import Name
from cloud.clearing import Clearing
from gx.core.message import Failure
from gx.core.ports import AttemptEnded, AttemptGone

CANCELLED = Failure(code="cancelled", message="it was cancelled")
"""What an attempt came to that nobody wants any more."""


class GivingUp:
    """Gives attempts up. `on_end` is given how each of them ended; `on_claimed` is told of an attempt that a call said
    it had, or another one had.
    """

    def __init__(
        self,
        clearing: Clearing,
        *,
        on_end: Callable[[AttemptEnded | AttemptGone], None],
        on_claimed: Callable[[Name], None],
    ) -> None:
        self._clearing, self._on_end, self._on_claimed = clearing, on_end, on_claimed
        self._awaited = set[Name]()
        """Attempts that were cancelled or recalled and have not ended yet."""

    def __repr__(self) -> str:
        return f"<GivingUp: {len(self._awaited)} awaited>"

    def drop(self, name: Name, call: str) -> None:
        """Nobody wants that call of an attempt any more: what becomes of the attempt is known, or nobody's affair."""
        self._clearing.drop(call, lambda answer: self._hear(name, answer))

    def cancel(self, name: Name, call: str) -> None:
        """End an attempt as cancelled, once its call is, or can't be now."""
        self._awaited.add(name)
        self._clearing.drop(call, lambda answer: self._was_cancelled(name, answer))

    def recall(self, name: Name, call: str, reason: str) -> None:
        """End an attempt with its answer, where that was there before its call is cancelled; else it is gone for that
        `reason`, and nobody's fault. One whose call can't be cancelled now is gone at once.
        """
        self._awaited.add(name)
        self._clearing.drop(call, lambda answer: self._came_back(name, answer, reason))

    def _was_cancelled(self, name: Name, answer: bytes | None) -> None:
        self._hear(name, answer)
        if name in self._awaited:
            self._awaited.discard(name)
            self._on_end(AttemptEnded(task=name[0], attempt=name[1], outcome=CANCELLED))

    def _came_back(self, name: Name, answer: bytes | None, reason: str) -> None:
        is_awaited = name in self._awaited
        self._awaited.discard(name)
        self._hear(name, answer)
        if (ended := None if answer is None else m.outcome_of(answer)) is not None:
            self._on_end(AttemptEnded(task=name[0], attempt=name[1], outcome=ended[0], ms=ended[1]))
        elif is_awaited:
            self._on_end(AttemptGone(task=name[0], attempt=name[1], reason=reason, is_suspect=False))

    def _hear(self, name: Name, answer: bytes | None) -> None:
        """What a call of an attempt had answered, if anything."""
        if answer is None:
            return
        if m.is_claimed(answer):
            self._on_claimed(name)
        if (owner := m.owner_of(answer)) is not None:
            self.drop(name, owner)
