"""What a worker needs of the calls that it makes, as a port, and how many of them are under way at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

import anyio

AT_ONCE = 24
"""Calls of the SDK that are under way at once: far fewer than the streams of a connection."""
AGAIN_S = 2.0
"""How long after what could not be asked it is asked again."""

Name = tuple[str, int]
"""An attempt: its task and its number."""

_T = TypeVar("_T")


class Calls(Protocol):
    """What a worker needs of `cloud.rented.Rented`."""

    async def spawn(self, payload: bytes) -> str: ...
    async def poll(self, call: str) -> bytes | None: ...
    async def cancel(self, call: str) -> None: ...
    async def scale(self, max_containers: int) -> None: ...
    async def vouch(self, driver: str, until: float) -> None: ...
    async def said(self, key: str) -> bytes | None: ...


async def each(do: Callable[[_T], Awaitable[None]], items: Iterable[_T]) -> None:
    """Do it to each, some at a time."""
    room = anyio.CapacityLimiter(AT_ONCE)

    async def one(item: _T) -> None:
        async with room:
            await do(item)

    async with anyio.create_task_group() as group:
        for item in items:
            group.start_soon(one, item)
