"""The node's API, over HTTP on the workspace's socket: every route, and how what goes wrong is answered.

What the routes of runs, of the log and of the memory do is in `gx.node.runroutes`, `gx.node.logroutes` and
`gx.node.memoryroutes`; `gx.node.describe` makes the OpenAPI document of the same table. Whatever goes wrong is
answered as a `Problem`.
"""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gx import __version__
from gx.core.errors import BenchError, GxError, NotFound, QueryError, UsageError, WorkspaceError
from gx.node import problem
from gx.node.endpoints import Done, Endpoint, Leave, by
from gx.node.local import LocalNode
from gx.node.logroutes import LogRoutes
from gx.node.memoryroutes import MemoryRoutes
from gx.node.runroutes import RunRoutes
from gx.node.status import NodeStatus, status_of
from gx.node.upload import Uploads


class Api:
    """Serves one node. `n_open` requests are under way, the last came or ended at `asked_at`; `stays`: never idle."""

    def __init__(self, node: LocalNode, *, stays: bool) -> None:
        self.node, self.stays = node, stays
        self.n_open, self.asked_at = 0, time.monotonic()
        self.was_asked = False
        self._uploads = Uploads()
        self._runs = RunRoutes(node, self._uploads)
        self._log = LogRoutes(
            node.log, is_busy=lambda: bool(node.runs.live()), is_over=lambda: self.is_leaving and not node.runs.live()
        )
        self.endpoints = (
            Endpoint("GET", "/v1/node", self._status, "What the node does", gives=NodeStatus),
            Endpoint("POST", "/v1/node/leave", self._leave, "End the node; runs are drained first", takes=Leave),
            Endpoint("POST", "/v1/node/stay", self._stay, "Stay up without a run or a client"),
            *self._runs.endpoints,
            *self._log.endpoints,
            *MemoryRoutes(node.memories).endpoints,
            Endpoint("GET", "/v1/openapi.json", self._describe, "This document", gives=dict[str, Any]),
        )
        routes = [self._route(endpoint) for endpoint in self.endpoints]
        self.app = self._counted(
            Starlette(routes=routes, exception_handlers={HTTPException: _lost, Exception: _failed})
        )

    @property
    def is_leaving(self) -> bool:
        return self.node.is_leaving

    def leave(self, reason: str) -> None:
        """Drain all runs; the process ends when they have."""
        self.node.leave(reason)

    async def _status(self, request: Request, body: None) -> NodeStatus:
        return status_of(self.node, stays=self.stays, is_leaving=self.is_leaving)

    async def _leave(self, request: Request, body: Leave) -> Done:
        if body.only_idle and (live := self.node.runs.live()):
            raise WorkspaceError(
                f"the node is busy: {', '.join(live)} {'is' if len(live) == 1 else 'are'} live",
                code="workspace.busy",
                hint="wait until it ends, or `gx cancel RUN`",
            )
        self.leave(f"the node was stopped by {by(request)}")
        return Done()

    async def _stay(self, request: Request, body: None) -> Done:
        self.stays = True
        return Done()

    async def _describe(self, request: Request, body: None) -> dict[str, Any]:
        from gx.node.describe import document

        return document(self.endpoints)

    def _route(self, endpoint: Endpoint) -> Route:
        async def answer(request: Request) -> Response:
            try:
                body = None
                if endpoint.takes not in (None, bytes):
                    body = problem.decode(await request.body() or b"{}", endpoint.takes)
                made = await endpoint.handle(request, body)
            except msgspec.MsgspecError as error:
                return _refused(UsageError(f"the request can't be read: {error}"))
            except GxError as error:
                return _refused(error)
            except ClientDisconnect:
                return Response(status_code=499)
            return made if isinstance(made, Response) else _json(made)

        return Route(endpoint.path, answer, methods=[endpoint.method])

    def _counted(self, app: Starlette) -> ASGIApp:
        """The same, and it is known how many requests are under way. One who follows the log keeps nobody up."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            counts = not _follows(scope)
            self.n_open += counts
            try:
                await app(scope, receive, send)
            finally:
                self.n_open -= counts
                self.asked_at, self.was_asked = time.monotonic() if counts else self.asked_at, True

        return counted


_STATUS: tuple[tuple[type[GxError], int], ...] = (
    (NotFound, 404),
    (WorkspaceError, 409),
    (QueryError, 422),
    (BenchError, 503),
)


def _follows(scope: Scope) -> bool:
    return scope.get("path") == "/v1/events" and b"follow" in scope.get("query_string", b"")


def _lost(request: Request, error: Exception) -> Response:
    """Nothing is served there, or not in that way."""
    asked = f"{request.method} {request.url.path}"
    if isinstance(error, HTTPException) and error.status_code == 405:
        return _json(problem.problem_of(UsageError(f"{asked} is not served")), 405)
    return _refused(NotFound(f"{asked} is not served", hint="GET /v1/openapi.json lists what is"))


def _failed(request: Request, error: Exception) -> Response:
    """A bug. The server writes it to its log."""
    return _json(problem.problem_of(GxError(f"the node failed: {type(error).__name__}: {error}", code="node")), 500)


def _refused(error: GxError) -> Response:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 400)
    return _json(problem.problem_of(error), status)


def _json(value: Any, status: int = 200) -> Response:
    headers = {"gx-version": __version__, "gx-pid": str(os.getpid())}
    return Response(problem.encode(value), status, headers, "application/json")
