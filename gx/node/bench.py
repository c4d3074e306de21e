"""The node's worker as others see it: they wait until there is one, and ask it about its models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio

from gx.core.errors import GxError
from gx.core.ports import Worker


class Bench:
    """Opens the worker when the dispatcher first needs one."""

    def __init__(self, make_worker: Callable[[], AbstractAsyncContextManager[Worker]]) -> None:
        self._make_worker = make_worker
        self._worker: Worker | None = None
        self._is_up = anyio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Worker]:
        """The worker, as long as the block lasts. :raises BenchError: if it can't be started."""
        async with self._make_worker() as worker:
            self._worker = worker
            self._is_up.set()
            yield worker

    async def warnings(self, digests: Mapping[str, str]) -> AsyncIterator[str]:
        """What makes these models, by name, slow on this machine, each thing once; none of a model that can't be used.

        It waits for the worker, for ever where none is needed.
        """
        await self._is_up.wait()
        told = set[str]()
        for name, digest in digests.items():
            if self._worker is None:
                return
            try:
                card = await self._worker.describe(digest)
            except GxError:  # whatever uses the model says why
                continue
            for warning in card.warnings:
                if warning not in told:
                    told.add(warning)
                    yield f"{name}: {warning}"
