"""Questions in SQL that many ask at once: an answer for all who wait for the same, and never so many that work suffers.

While runs go on, answering takes a bounded share of the time: whoever asks for much, or often, waits. Questions that
are equal and not begun yet are one. So no number of readers slows the writer by more than that share.

Invariant: an answer was read after it was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
import anyio.to_thread

from gx.core.errors import GxError
from gx.core.tables import Table
from gx.node.endpoints import Query

SHARE = 1 / 16
"""Of one core's time that answers may take while runs go on."""
LONGEST_REST_S = 2.0
AT_ONCE = 2
"""So that a quick question doesn't wait for a slow one."""


class _Turn:
    """A question that waits to be put, and what comes of it. With neither, whoever was to put it went away."""

    def __init__(self) -> None:
        self.is_over = anyio.Event()
        self.answer: Table | None = None
        self.error: GxError | None = None


class Queries:
    """Puts questions by `ask`, which may take its time in a thread. While work `is_busy`, it rests between them."""

    def __init__(self, ask: Callable[[Query], Table], *, is_busy: Callable[[], bool]) -> None:
        self._ask, self._is_busy = ask, is_busy
        self._waiting: dict[Query, _Turn] = {}
        self._lanes = anyio.CapacityLimiter(AT_ONCE)
        self._rest_until_s = 0.0

    async def answer(self, question: Query) -> Table:
        """The answer, put now or soon. :raises GxError: what `ask` raises."""
        while (turn := self._waiting.get(question)) is not None:
            await turn.is_over.wait()
            if turn.error is not None:
                raise turn.error
            if turn.answer is not None:
                return turn.answer
        turn = self._waiting[question] = _Turn()
        try:
            turn.answer = await self._put(question)
        except GxError as error:
            turn.error = error
            raise
        finally:
            self._begin(question, turn)
            turn.is_over.set()
        return turn.answer

    async def _put(self, question: Query) -> Table:
        turn = self._waiting[question]
        async with self._lanes:
            while self._is_busy() and (rest_s := self._rest_until_s - time.monotonic()) > 0:  # noqa: ASYNC110  another one may end meanwhile
                await anyio.sleep(rest_s)
            self._begin(question, turn)
            began_s = time.monotonic()
            try:
                return await anyio.to_thread.run_sync(self._ask, question)
            finally:
                took_s = time.monotonic() - began_s
                self._rest_until_s = time.monotonic() + min(LONGEST_REST_S, took_s * (1 / SHARE - 1))

    def _begin(self, question: Query, turn: _Turn) -> None:
        """Whoever asks the same from now on wants a newer answer."""
        if self._waiting.get(question) is turn:
            del self._waiting[question]
