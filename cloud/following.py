"""Calls that are under way: each is asked after until it gave its answer, or it is known that it never will.

It follows calls and makes none. What an answer says it doesn't know.

Invariant: an attempt has one call that is followed, or none; and nothing is told of a call that is followed no more.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from cloud.calls import Calls, Name, each
from cloud.rented import Gone
from gx.core.errors import CloudError

POLL_S = 0.2
"""How long after a round of polls the next one begins."""


class Following:
    """Follows calls of attempts. What becomes of one is told with its attempt and the call, which is followed no more:
    `on_answer` what it gave, `on_gone` why it never gives anything. `on_refusal` is told of an attempt that nobody may
    ask after, since the token is refused: its call is followed still. Where there is no way there, it is asked again.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        on_answer: Callable[[Name, str, bytes], None],
        on_gone: Callable[[Name, str, Gone], None],
        on_refusal: Callable[[Name, CloudError], None],
    ) -> None:
        self._calls = calls
        self._on_answer, self._on_gone, self._on_refusal = on_answer, on_gone, on_refusal
        self._open: dict[Name, str] = {}
        self._has_calls = anyio.Event()

    def __repr__(self) -> str:
        return f"<Following: {len(self._open)} calls>"

    @property
    def names(self) -> list[Name]:
        """The attempts whose calls are followed."""
        return list(self._open)

    def add(self, name: Name, call: str) -> None:
        """Follow a call of an attempt, in place of any other."""
        self._open[name] = call
        self._has_calls.set()

    def drop(self, name: Name) -> str | None:
        """Follow the call of an attempt no more, and name it; `None` if there is none."""
        return self._open.pop(name, None)

    async def serve(self) -> None:
        """Poll what is followed, in rounds: long polls of many calls would starve the connection."""
        while True:
            self._has_calls = anyio.Event()
            if not self._open:
                await self._has_calls.wait()
            await each(self._poll, list(self._open.items()))
            await anyio.sleep(POLL_S)

    async def _poll(self, known: tuple[Name, str]) -> None:
        name, call = known
        try:
            payload = await self._calls.poll(call)
        except Gone as gone:
            if self._is_followed(name, call):
                del self._open[name]
                self._on_gone(name, call, gone)
        except CloudError as error:
            if error.code == "cloud.token" and self._is_followed(name, call):
                self._on_refusal(name, error)
        else:
            if payload is not None and self._is_followed(name, call):
                del self._open[name]
                self._on_answer(name, call, payload)

    def _is_followed(self, name: Name, call: str) -> bool:
        """Whether it still is: it may have been dropped, or replaced, while it was polled."""
        return self._open.get(name) == call
