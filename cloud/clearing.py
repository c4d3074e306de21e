"""Calls that nobody wants any more: each is cancelled, however often that must be asked, since until then it costs.

One that was over before its cancel came has an answer: whoever let it go may want that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from cloud.calls import AGAIN_S, Calls, each
from cloud.rented import Gone
from gx.core.errors import CloudError

ANSWER_S = 5.0
"""How long a cancel may take to be answered, before it is asked again."""
OnEnd = Callable[[bytes | None], None]
"""Told what a call had answered when it was cancelled; `None` for nothing, also as long as it can't be cancelled."""


class Clearing:
    """Cancels calls. `on_refusal` is told why one can't be cancelled, once in a row."""

    def __init__(self, calls: Calls, *, on_refusal: Callable[[str], None]) -> None:
        self._calls, self._on_refusal = calls, on_refusal
        self._unwanted: dict[str, OnEnd | None] = {}
        self._has_unwanted = anyio.Event()
        self._is_deaf = False

    @property
    def unwanted(self) -> list[str]:
        """Calls that are to be cancelled, and perhaps were not yet."""
        return list(self._unwanted)

    def drop(self, call: str, on_end: OnEnd | None = None) -> None:
        """Have a call cancelled."""
        self._unwanted[call] = on_end
        self._has_unwanted.set()

    async def serve(self) -> None:
        """Cancel what is not wanted, until that is done."""
        while True:
            self._has_unwanted = anyio.Event()
            await each(self.cancel, self.unwanted)
            with anyio.move_on_after(AGAIN_S if self._unwanted else None):
                await self._has_unwanted.wait()

    async def cancel(self, call: str) -> None:
        """Cancel a call now; one that can't be is kept for later."""
        on_end = self._unwanted.get(call)
        try:
            with anyio.fail_after(ANSWER_S):
                await self._calls.cancel(call)
                answer = None if on_end is None else await _answer(self._calls.poll, call)
        except (CloudError, TimeoutError) as error:
            if not self._is_deaf:
                self._on_refusal(f"a call can't be cancelled yet: {_words(error)}")
            self._is_deaf = True
            if on_end is not None:
                on_end(None)
            return
        self._unwanted.pop(call, None)
        self._is_deaf = False
        if on_end is not None:
            on_end(answer)


async def _answer(poll: Callable[[str], Awaitable[bytes | None]], call: str) -> bytes | None:
    try:
        return await poll(call)
    except Gone:
        return None


def _words(error: CloudError | TimeoutError) -> str:
    return error.message if isinstance(error, CloudError) else f"there is no answer within {ANSWER_S:g} s"
