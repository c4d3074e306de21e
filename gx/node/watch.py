"""A run that is followed: its frames as lines of JSON, as fast as the client takes them.

A client that takes nothing holds up its own run, by its credits; one that goes away is noticed at once.
"""

from __future__ import annotations

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gx.node import problem, wire
from gx.node.attached import LocalRun
from gx.node.strain import short_of_memory

PROGRESS_EVERY_S = 0.25


class Watch(Response):
    """Frames until the run's end; without `has_results`, only how it stands, and that attends to nothing.

    `is_ordered`: results come in the order of the rows; `with_input`: and with what these hold.
    """

    def __init__(self, run: LocalRun, *, has_results: bool, is_ordered: bool = False, with_input: bool = True) -> None:
        super().__init__(media_type="application/x-ndjson")
        del self.headers["content-length"]
        self._run, self._has_results = run, has_results
        self._is_ordered, self._with_input = is_ordered, with_input
        self._sending, self._computes = anyio.Lock(), anyio.Event()
        self._is_told = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with anyio.create_task_group() as group:
            group.start_soon(_until_gone, receive, group.cancel_scope)
            group.start_soon(self._tell_progress, send)
            group.start_soon(self._tell_warnings, send)
            group.start_soon(self._tell_strain, send)
            await self._tell_results(send)
            group.cancel_scope.cancel()

    async def _tell_results(self, send: Send) -> None:
        run = self._run
        if self._has_results:
            with run.watch(is_ordered=self._is_ordered, with_input=self._with_input) as chunks:
                async for records in chunks:
                    await self._send(send, wire.results_of(records))
                await self._send(send, self._end(), is_last=True)
        else:
            await run.active.results.ended()
            await self._send(send, self._end(), is_last=True)

    def _end(self) -> wire.Frame:
        return wire.Frame(progress=self._run.progress(), end=wire.ending(self._run.end()))

    async def _tell_progress(self, send: Send) -> None:
        while True:
            if self._run.state.leased:
                self._computes.set()
            await self._send(send, wire.Frame(progress=self._run.progress()))
            await anyio.sleep(PROGRESS_EVERY_S)

    async def _tell_warnings(self, send: Send) -> None:
        """Once something is computed: what is answered from the log is slow on no model."""
        await self._computes.wait()
        async for warning in self._run.warnings():
            await self._send(send, wire.Frame(warning=warning))

    async def _tell_strain(self, send: Send) -> None:
        await self._computes.wait()
        async for warning in short_of_memory():
            await self._send(send, wire.Frame(warning=warning))

    async def _send(self, send: Send, frame: wire.Frame, *, is_last: bool = False) -> None:
        async with self._sending:
            if self._is_told:  # who waited for the lock comes too late
                return
            self._is_told = is_last
            body = problem.encode(frame) + b"\n"
            await send({"type": "http.response.body", "body": body, "more_body": not is_last})


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
