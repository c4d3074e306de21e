"""Where a task stands, as the monitor shows it: one small number, a word, a shape and a colour each."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class State(IntEnum):
    """What a cell of the grid shows. The order is that of the legend."""

    queued = 0
    prepared = 1
    running = 2
    succeeded = 3
    reused = 4
    failed = 5
    cancelled = 6
    skipped = 7

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can happen to the task any more."""
        return self >= State.succeeded


class Look(NamedTuple):
    """A state's shape, its shape in ASCII, and the name of its colour in a theme. No two states share a shape."""

    shape: str
    ascii: str
    colour: str


LOOKS = {
    State.queued: Look("·", ".", "text-muted"),
    State.prepared: Look("○", "o", "text-muted"),
    State.running: Look("▶", ">", "accent"),
    State.succeeded: Look("■", "#", "success"),
    State.reused: Look("◆", "=", "primary"),
    State.failed: Look("✗", "X", "error"),
    State.cancelled: Look("−", "-", "warning"),
    State.skipped: Look("▫", "_", "text-muted"),
}
