"""What the node answers about its log: SQL, its events as they come, the story of a run or a task, and its health."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gx.core.tables import Table
from gx.node import bounds
from gx.node.endpoints import Endpoint, Question, flag, number
from gx.run.history.story import story_of
from gx.run.log import EventLog
from gx.run.log.lines import pages_of
from gx.run.log.query import run_sql, table_of
from gx.run.log.verify import Report, verify

FOLLOW_EVERY_S = 0.1


class LogRoutes:
    """The routes of a node's log. Who follows it is let go when `is_over`."""

    def __init__(self, log: EventLog, is_over: Callable[[], bool]) -> None:
        self.log, self._is_over = log, is_over
        events = (("after", "integer"), ("run", "string"), ("type", "string"), ("follow", "boolean"))
        self.endpoints = (
            Endpoint("POST", "/v1/query", self._query, "Ask the log in SQL", takes=Question, gives=Table),
            Endpoint("GET", "/v1/events", self._events, "The log's events, from a seq", None, bytes, events),
            Endpoint(
                "GET", "/v1/stories/{subject}", self._story, "Everything of a run or a task", gives=dict[str, Any]
            ),
            Endpoint("GET", "/v1/log/verification", self._verify, "Whether the log is whole", gives=Report),
        )

    async def _query(self, request: Request, asked: Question) -> Table:
        bounds.check_question(asked.timeout_s, asked.max_rows)

        def answer() -> Table:
            found = run_sql(self.log, asked.sql, timeout_s=asked.timeout_s, max_rows=asked.max_rows)
            return table_of(found)

        return await anyio.to_thread.run_sync(answer)

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
            elif not is_followed or self._is_over():
                return
            await anyio.sleep(FOLLOW_EVERY_S if is_followed else 0)

    async def _story(self, request: Request, body: None) -> dict[str, Any]:
        return await anyio.to_thread.run_sync(story_of, self.log, request.path_params["subject"])

    async def _verify(self, request: Request, body: None) -> Report:
        return await anyio.to_thread.run_sync(verify, self.log)
