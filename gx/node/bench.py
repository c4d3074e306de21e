"""The node's worker as others see it: they wait until there is one, offer it models, and ask what makes those slow.

Invariant: whatever was offered is known to the worker that is up, and to each one that comes after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio

from gx import wiring
from gx.core.errors import GxError
from gx.core.ports import Worker
from gx.node import machine, strain

LOOK_EVERY_S = 1.0
"""How often is looked whether a model was loaded of which that is to be known."""


class Bench:
    """Opens the worker when the dispatcher first needs one, and another one when that has ended."""

    def __init__(self, make_worker: Callable[[], AbstractAsyncContextManager[Worker]]) -> None:
        self._make_worker = make_worker
        self._worker: Worker | None = None
        self._is_up = anyio.Event()
        self._offered: dict[str, wiring.LocalModel] = {}

    def __repr__(self) -> str:
        return f"<Bench {'up' if self._worker is not None else 'down'}, {len(self._offered)} models offered>"

    def offer(self, models: Iterable[wiring.LocalModel]) -> None:
        """Have the worker know these models, the one that is up and those to come; again changes nothing."""
        found = {model.digest: model for model in models}
        self._offered |= found
        if self._worker is not None:
            wiring.offer(self._worker, found.values())

    def slots(self, most: int) -> int:
        """How many turns are computed at a time: the `most` that there may be, or fewer where models lack room."""
        return most if self._worker is None else min(most, self._worker.capacity().slots)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Worker]:
        """The worker, as long as the block lasts. :raises BenchError: if it can't be started."""
        async with self._make_worker() as worker:
            wiring.offer(worker, self._offered.values())
            self._worker = worker
            self._is_up.set()
            try:
                yield worker
            finally:
                self._worker, self._is_up = None, anyio.Event()

    async def warnings(self, digests: Mapping[str, str]) -> AsyncIterator[str]:
        """What makes these models, by name, slow on this machine, each thing once; none of a model that can't be used.

        First of all, whether the machine has a GPU that lies idle. It waits for a worker, for ever where none is
        needed. No model is loaded for it.
        """
        told = set[str]()
        worker = await self._up()
        if (warning := strain.idle_gpu(wiring.build_of(worker), machine.gpu())) is not None:
            yield warning
        untold = dict(digests)
        while untold:
            for name, digest in list(untold.items()):
                warnings, is_all = await self._warnings(digest)
                if is_all:
                    del untold[name]
                for warning in warnings:
                    if warning not in told:
                        told.add(warning)
                        yield f"{name}: {warning}"
            if untold:
                await anyio.sleep(LOOK_EVERY_S)

    async def _warnings(self, digest: str) -> tuple[tuple[str, ...], bool]:
        try:
            return await wiring.warnings_of(await self._up(), digest)
        except GxError:  # whatever uses the model says why
            return (), True

    async def _up(self) -> Worker:
        while (worker := self._worker) is None:
            await self._is_up.wait()
        return worker
