"""Events for a desk, kept in order until it takes them. It knows events, and not where they come from.

Invariant: each event is taken once, in order, but a preview right behind one of the same attempt is joined to it: a
desk that is slow finds no more of them, only longer ones. What ends the outbox comes after all that is in it.
"""

from __future__ import annotations

import anyio
import msgspec

from gx.core.errors import BenchError
from gx.core.ports import BenchDown, WorkerEvent
from gx.core.protocol import Signal


class Outbox:
    """The events of one worker that the desk wasn't told of yet."""

    def __init__(self) -> None:
        self._events: list[WorkerEvent] = []
        self._error: BenchError | None = None
        self._changed = anyio.Event()
        self.has_end = False
        """Whether a bench's end is among them."""

    def __repr__(self) -> str:
        return f"<Outbox: {len(self._events)} events{', ended' if self._error else ''}>"

    def add(self, event: WorkerEvent) -> None:
        """Keep an event for the desk."""
        last = self._events[-1] if self._events else None
        if (
            isinstance(event, Signal)
            and isinstance(last, Signal)
            and (last.task, last.attempt) == (event.task, event.attempt)
        ):
            self._events[-1] = msgspec.structs.replace(event, text=last.text + event.text)
        else:
            self._events.append(event)
        self.has_end = self.has_end or isinstance(event, BenchDown)
        self._announce()

    def end(self, error: BenchError) -> None:
        """No event follows, for that reason."""
        self._error = error
        self._announce()

    async def take(self) -> list[WorkerEvent]:
        """Wait for at least one event, then return all that are there.

        :raises BenchError: the reason why none follows, once all were taken.
        """
        while not self._events:
            if self._error is not None:
                raise self._error
            await self._changed.wait()
        events, self._events = self._events, []
        self.has_end = False
        return events

    def _announce(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
