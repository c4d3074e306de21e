"""What is to be committed next, and the bell that wakes the loop.

Whoever wants something of a run puts its events here: a client, a rule, or what goes on beside the loop. The loop alone
takes them, all at once. This file knows nothing of what they say.

Invariant: the loop doesn't sleep over what was put here, nor over a bell, whatever it was at meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection

import anyio

from gx.core import event as e

_LIMIT = 8192
"""Events that may wait for a commit before the input is read on."""


class Pending:
    """Events that wait, in the order in which they came, and the blobs that they refer to."""

    def __init__(self) -> None:
        self.bodies: list[e.Body] = []
        self.blobs: list[e.Blob] = []
        self._bell = anyio.Event()
        self._taken = anyio.Event()

    def __repr__(self) -> str:
        return f"<Pending {len(self.bodies)} events{', rung for' if self._bell.is_set() else ''}>"

    def put(self, bodies: Collection[e.Body], blobs: Collection[e.Blob] = ()) -> None:
        """Have these written in one commit."""
        if bodies:
            self.bodies.extend(bodies)
            self.blobs.extend(blobs)
            self.ring()

    def ring(self) -> None:
        """There is something to look at, be it no event."""
        self._bell.set()

    # ── the loop's side ──────────────────────────────────────────────────────────────────────────────────────────

    def take(self) -> tuple[list[e.Body], list[e.Blob]]:
        """All that waits; nothing does, then."""
        (bodies, self.bodies), (blobs, self.blobs) = (self.bodies, []), (self.blobs, [])
        taken, self._taken = self._taken, anyio.Event()
        taken.set()
        return bodies, blobs

    async def rung(self, *, within_s: float) -> None:
        """Wait until somebody rings, or has since the last time; at most so long."""
        with anyio.move_on_after(within_s):
            await self._bell.wait()
        self._bell = anyio.Event()

    # ── the side of those who have much to put ───────────────────────────────────────────────────────────────────

    @property
    def is_full(self) -> bool:
        """Whether so much waits that more is better read later."""
        return len(self.bodies) > _LIMIT

    async def taken(self) -> None:
        """Wait until the loop takes what there is, be it nothing."""
        await self._taken.wait()
