"""Work that is done for one request, and given up when whoever asked goes away.

It knows requests, and nothing of the work. Invariant: nothing is computed for somebody who doesn't wait for it; what
mustn't stop halfway shields itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import Receive

T = TypeVar("T")


async def while_waited_for(receive: Receive, work: Callable[[], Awaitable[T]]) -> T:
    """What the work gives; `receive` is that of a request whose body was read.

    :raises ClientDisconnect: if whoever asked went away before: the work was cancelled. :raises Exception: the work's.
    """
    made, errors = list[T](), list[Exception]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_until_gone, receive, tasks.cancel_scope)
        try:
            made.append(await work())
        except Exception as error:  # noqa: BLE001 - raised again below: the group would wrap it
            errors.append(error)
        tasks.cancel_scope.cancel()
    if errors:
        raise errors[0]
    if not made:
        raise ClientDisconnect
    return made[0]


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
