"""Which call waits, which container holds it, and how it ended: pure state, without network, processes or clock.

A call here has exactly one input (`spawn` and `remote`). Times are seconds of one clock, given by the caller.

Invariants: at most one container holds a call; a call ends once and never un-ends; what a container says of a call that
it doesn't hold changes nothing. A cancelled call ends at once, but its container holds a slot until it lets go.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Literal

import msgspec

Ending = Literal["succeeded", "failed", "cancelled", "timed_out", "lost"]

# modal/_functions.py, MAX_INTERNAL_FAILURE_COUNT.
LOSSES_MAX = 8


class Call(msgspec.Struct, kw_only=True):
    """One call and its input. `argument` and `result` are bytes that this file doesn't look into."""

    call_id: str
    input_id: str
    pool: str
    argument: bytes
    is_async: bool = True
    holder: str | None = None
    losses: int = 0
    ending: Ending | None = None
    ended_at_s: float | None = None
    result: bytes = b""

    @property
    def is_queued(self) -> bool:
        return self.ending is None and self.holder is None


class Backlog:
    """All calls of a plane. Every method is one transition."""

    def __init__(self) -> None:
        self._calls: dict[str, Call] = {}
        self._queues: dict[str, deque[Call]] = {}
        self._queued: Counter[str] = Counter()
        self._held: dict[str, dict[str, Call]] = {}

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls.values())

    def find(self, call_id: str) -> Call | None:
        return self._calls.get(call_id)

    def queued(self, pool: str) -> int:
        """How many calls wait for a container."""
        return self._queued[pool]

    def held(self, holder: str) -> int:
        """How many slots of a container are taken, those of cancelled calls included."""
        return len(self._held.get(holder, ()))

    def holds(self, holder: str) -> tuple[Call, ...]:
        return tuple(self._held.get(holder, {}).values())

    def add(self, call: Call) -> None:
        """Queue a new call at the end."""
        self._calls[call.call_id] = call
        self._queues.setdefault(call.pool, deque()).append(call)
        self._queued[call.pool] += 1

    def take(self, pool: str, holder: str) -> Call | None:
        """Give the next call of a pool to a container; `None` if nothing waits."""
        queue = self._queues.get(pool, deque())
        while queue:
            call = queue.popleft()
            if call.is_queued:
                self._queued[pool] -= 1
                call.holder = holder
                self._held.setdefault(holder, {})[call.input_id] = call
                return call
        return None

    def finish(self, input_id: str, holder: str, ending: Ending, result: bytes, now_s: float) -> Call | None:
        """A container reports a result: the call, if this ended it; `None` if it had ended or is held by another."""
        call = self._held.get(holder, {}).pop(input_id, None)
        if call is None:
            return None
        call.holder = None
        return self._end(call, ending, result, now_s)

    def give_back(self, input_id: str, holder: str) -> None:
        """A container never got what it was given: it waits again, first in line, and that is no loss."""
        call = self._held.get(holder, {}).pop(input_id, None)
        if call is not None:
            self._requeue(call)

    def end(self, call_id: str, ending: Ending, result: bytes, now_s: float) -> Call | None:
        """End a call from outside. Its holder, if there is one, still has to let go of it. `None` if it had ended."""
        call = self._calls[call_id]
        if call.is_queued:
            self._queued[call.pool] -= 1
        return self._end(call, ending, result, now_s)

    def lose(self, holder: str, result: bytes, now_s: float) -> list[Call]:
        """A container is gone: its calls wait again, first in line. Those lost too often end so and are returned."""
        given_up = []
        for call in reversed(self._held.pop(holder, {}).values()):
            call.losses += 1
            if call.losses >= LOSSES_MAX and self._end(call, "lost", result, now_s):
                call.holder = None
                given_up.append(call)
            else:
                self._requeue(call)
        return given_up

    def fail_queued(self, pool: str, ending: Ending, result: bytes, now_s: float) -> list[Call]:
        """End everything that waits for a pool."""
        queue = self._queues.pop(pool, deque())
        ended = [call for call in queue if call.is_queued]
        for call in ended:
            self._queued[pool] -= 1
            self._end(call, ending, result, now_s)
        return ended

    def _requeue(self, call: Call) -> None:
        call.holder = None
        if call.ending is None:
            self._queues.setdefault(call.pool, deque()).appendleft(call)
            self._queued[call.pool] += 1

    def _end(self, call: Call, ending: Ending, result: bytes, now_s: float) -> Call | None:
        if call.ending is not None:
            return None
        call.ending, call.result, call.ended_at_s = ending, result, now_s
        return call
