"""What the node answers about its log: SQL, its events as they come, the story of a run or a task, its health.

A backup is made here, too, since nobody else can read the log meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gx.core.errors import UsageError
from gx.core.message import Value
from gx.core.tables import Table
from gx.node import bounds
from gx.node.endpoints import Endpoint, Query, flag, number
from gx.node.queries import Queries
from gx.run.history.story import story_of
from gx.run.log import EventLog
from gx.run.log.backup import Backup, back_up
from gx.run.log.lines import pages_of
from gx.run.log.query import run_sql, table_of
from gx.run.log.verify import Report, verify

FOLLOW_EVERY_S = 0.1
"""How soon a follower gets an event that comes after none did."""
FOLLOW_REST_S = 0.2
"""How long the next page waits: a page costs some 2 ms of a core beside 1.3 µs an event, however few it has."""


class Target(Value, frozen=True, kw_only=True):
    """Where a backup is to be: the absolute path of a folder that isn't there."""

    path: str


class LogRoutes:
    """The routes of a node's log. Who follows it is let go when `is_over`; while runs make it busy, answers wait."""

    def __init__(self, log: EventLog, *, is_busy: Callable[[], bool], is_over: Callable[[], bool]) -> None:
        self.log, self._is_over = log, is_over
        self._queries = Queries(self._ask, is_busy=is_busy)
        events = (("after", "integer"), ("run", "string"), ("type", "string"), ("follow", "boolean"))
        self.endpoints = (
            Endpoint("POST", "/v1/query", self._query, "Ask the log in SQL", takes=Query, gives=Table),
            Endpoint("GET", "/v1/events", self._events, "The log's events, from a seq", None, bytes, events),
            Endpoint(
                "GET", "/v1/stories/{subject}", self._story, "Everything of a run or a task", gives=dict[str, Any]
            ),
            Endpoint("GET", "/v1/log/verification", self._verify, "Whether the log is whole", gives=Report),
            Endpoint("POST", "/v1/log/backup", self._back_up, "Copy the log to a folder", takes=Target, gives=Backup),
        )

    async def _query(self, request: Request, asked: Query) -> Table:
        bounds.check_question(asked.timeout_s, asked.max_rows)
        return await self._queries.answer(asked)

    def _ask(self, asked: Query) -> Table:
        return table_of(run_sql(self.log, asked.sql, timeout_s=asked.timeout_s, max_rows=asked.max_rows))

    async def _events(self, request: Request, body: None) -> Response:
        query = request.query_params
        after = number(request, "after", -1)
        pages = self._pages(after, query.get("run"), query.get("type"), flag(request, "follow", default=False))
        return StreamingResponse(pages, media_type="application/x-ndjson")

    async def _pages(self, after: int, run: str | None, kind: str | None, is_followed: bool) -> AsyncIterator[bytes]:
        log = self.log
        while True:
            last = log.last_seq
            if after < last:
                lines = pages_of(log, run=run, kind=kind, after=after, last=last)
                while page := await anyio.to_thread.run_sync(lambda: next(lines, b"")):  # noqa: B023  this one's lines
                    yield page
                after = last
                await anyio.sleep(FOLLOW_REST_S if is_followed else 0)
            elif not is_followed or self._is_over():
                return
            else:
                await anyio.sleep(FOLLOW_EVERY_S)

    async def _story(self, request: Request, body: None) -> dict[str, Any]:
        return await anyio.to_thread.run_sync(story_of, self.log, request.path_params["subject"])

    async def _verify(self, request: Request, body: None) -> Report:
        return await anyio.to_thread.run_sync(verify, self.log)

    async def _back_up(self, request: Request, asked: Target) -> Backup:
        if not Path(asked.path).is_absolute():
            raise UsageError(f"path: expected an absolute path, got {asked.path!r}")
        return await anyio.to_thread.run_sync(back_up, self.log, Path(asked.path))
