"""What containers print: the newest lines of each app, for `modal app logs` and for whoever looks into a failure.

Lines are numbered over all apps, so an entry id is a place from which a reader goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator

import msgspec
from modal_proto import api_pb2

from cloud.loopback.rpc import Caller, settled

LINES_KEPT = 20_000
_BATCH = 500


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a container. `fd` is 1 for stdout and 2 for stderr, as Modal's file descriptors are."""

    number: int
    at_s: float  # wall time: it is shown
    app_id: str
    function_id: str
    task_id: str
    fd: int
    text: str


class Logs:
    """The RPCs that read logs. `write` is what containers come to."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque(maxlen=LINES_KEPT)
        self._count = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._done: set[str] = set()

    def write(self, app_id: str, function_id: str, task_id: str, fd: int, text: str) -> None:
        self._count += 1
        self._lines.append(
            Line(
                number=self._count,
                at_s=time.time(),
                app_id=app_id,
                function_id=function_id,
                task_id=task_id,
                fd=fd,
                text=text,
            )
        )
        self._wake()

    def end(self, app_id: str) -> None:
        """The app has stopped: who follows its log is told so."""
        self._done.add(app_id)
        self._wake()

    def __iter__(self) -> Iterator[Line]:
        return iter(tuple(self._lines))

    async def AppGetLogs(
        self, request: api_pb2.AppGetLogsRequest, caller: Caller
    ) -> AsyncIterator[api_pb2.TaskLogsBatch]:
        loop = asyncio.get_running_loop()
        until, seen = loop.time() + request.timeout, int(request.last_entry_id or 0)
        while True:
            lines = [line for line in self._lines if line.number > seen and _fits(line, request)]
            for batch in _batches(lines):
                yield batch
            seen = self._count
            if request.app_id in self._done:
                yield api_pb2.TaskLogsBatch(app_done=True, entry_id=str(seen))
                return
            if loop.time() >= until:
                return
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.append(future)
            await settled(future, until - loop.time())

    async def AppFetchLogs(self, request: api_pb2.AppFetchLogsRequest, caller: Caller) -> api_pb2.AppFetchLogsResponse:
        since_s, until_s = _seconds(request.since), _seconds(request.until)
        lines = [line for line in self._lines if since_s <= line.at_s < until_s and _fits(line, request)]
        return api_pb2.AppFetchLogsResponse(batches=_batches(lines[-request.limit :] if request.limit else lines))

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()


def _fits(line: Line, request: api_pb2.AppGetLogsRequest | api_pb2.AppFetchLogsRequest) -> bool:
    return (
        line.app_id == request.app_id
        and request.function_id in ("", line.function_id)
        and request.task_id in ("", line.task_id)
        and (not request.search_text or request.search_text in line.text)
    )


def _batches(lines: list[Line]) -> list[api_pb2.TaskLogsBatch]:
    """Lines in batches of one container each, since a batch names its container."""
    found: list[api_pb2.TaskLogsBatch] = []
    for line in lines:
        if not found or found[-1].task_id != line.task_id or len(found[-1].items) >= _BATCH:
            found.append(api_pb2.TaskLogsBatch(task_id=line.task_id, function_id=line.function_id))
        item = api_pb2.TaskLogs(data=line.text, timestamp=line.at_s, timestamp_ns=int(line.at_s * 1e9))
        item.file_descriptor = api_pb2.FILE_DESCRIPTOR_STDERR if line.fd == 2 else api_pb2.FILE_DESCRIPTOR_STDOUT
        found[-1].items.append(item)
        found[-1].entry_id = str(line.number)
    return found


def _seconds(stamp: object) -> float:
    seconds = float(getattr(stamp, "seconds", 0)) + float(getattr(stamp, "nanos", 0)) / 1e9
    return seconds or time.time() + 1
