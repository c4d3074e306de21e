"""What the node answers: a route for each thing that a client may ask, over HTTP on the workspace's socket.

It decodes, calls the node, and encodes; rules are elsewhere. `gx.node.describe` makes the OpenAPI document of the same
table of routes. Whatever goes wrong is answered as a `Problem`.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gx import __version__
from gx.core import event as e
from gx.core.errors import BenchError, GxError, NotFound, QueryError, UsageError, WorkspaceError
from gx.core.tables import Table
from gx.node import bounds, problem, wire
from gx.node.attached import LocalRun
from gx.node.client import Started
from gx.node.endpoints import Cancel, Change, Done, Endpoint, Leave, Question, Reason
from gx.node.local import LocalNode
from gx.node.status import NodeStatus, status_of
from gx.node.upload import Uploads
from gx.node.watch import Watch
from gx.run.history.story import resolve, story_of
from gx.run.log.lines import pages_of
from gx.run.log.query import run_sql, table_of
from gx.run.log.verify import Report, verify

FOLLOW_EVERY_S = 0.1


class Api:
    """Serves one node. `n_open` requests are under way, the last came or ended at `asked_at`; `stays`: never idle."""

    def __init__(self, node: LocalNode, *, stays: bool) -> None:
        self.node, self.stays = node, stays
        self.n_open, self.asked_at = 0, time.monotonic()
        self.was_asked = self.is_leaving = False
        self._uploads = Uploads()
        run = (("results", "boolean"), ("ordered", "boolean"))
        log = (("after", "integer"), ("run", "string"), ("type", "string"), ("follow", "boolean"))
        self.endpoints = (
            Endpoint("GET", "/v1/node", self._status, "What the node does", gives=NodeStatus),
            Endpoint("POST", "/v1/node/leave", self._leave, "End the node; runs are drained first", takes=Leave),
            Endpoint("POST", "/v1/node/stay", self._stay, "Stay up without a run or a client"),
            Endpoint("POST", "/v1/runs", self._submit, "Start a run, join or resume one", wire.Asked, Started),
            Endpoint("PUT", "/v1/inputs/{token}", self._upload, "Send a run's stdin, as it comes", takes=bytes),
            Endpoint("GET", "/v1/runs/{run}/watch", self._watch, "Follow a live run to its end", None, bytes, run),
            Endpoint("POST", "/v1/runs/{run}/drain", self._drain, "Let what is running end, then stop", takes=Reason),
            Endpoint("POST", "/v1/runs/{run}/stop", self._stop, "Stop now; what was running runs anew", takes=Reason),
            Endpoint("POST", "/v1/runs/{run}/cancel", self._cancel, "Give the run up, or some of it", takes=Cancel),
            Endpoint("POST", "/v1/runs/{run}/pause", self._pause, "Begin nothing new"),
            Endpoint("POST", "/v1/runs/{run}/resume", self._resume, "Let a paused or interrupted run go on"),
            Endpoint("GET", "/v1/runs/{run}/end", self._end, "How a run that isn't live ended", gives=wire.End),
            Endpoint("GET", "/v1/runs/{run}/asked", self._asked, "What was asked for", gives=wire.Asked),
            Endpoint("POST", "/v1/runs/{run}/change", self._change, "Change a run's limits", takes=Change),
            Endpoint("POST", "/v1/query", self._query, "Ask the log in SQL", takes=Question, gives=Table),
            Endpoint("GET", "/v1/events", self._events, "The log's events, from a seq", None, bytes, log),
            Endpoint(
                "GET", "/v1/stories/{subject}", self._story, "Everything of a run or a task", gives=dict[str, Any]
            ),
            Endpoint("GET", "/v1/log/verification", self._verify, "Whether the log is whole", gives=Report),
            Endpoint("GET", "/v1/openapi.json", self._describe, "This document", gives=dict[str, Any]),
        )
        routes = [self._route(endpoint) for endpoint in self.endpoints]
        self.app = self._counted(
            Starlette(routes=routes, exception_handlers={HTTPException: _lost, Exception: _failed})
        )

    def leave(self, reason: str) -> None:
        """Drain all runs; the process ends when they have."""
        self.is_leaving = True
        for run in self.node.runs.values():
            self.node.drain(run, reason, "")

    # ── handlers ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _status(self, request: Request, body: None) -> NodeStatus:
        return status_of(self.node, stays=self.stays)

    async def _leave(self, request: Request, body: Leave) -> Done:
        if body.only_idle and (live := self.node.live()):
            raise WorkspaceError(
                f"the node is busy: {', '.join(live)} {'is' if len(live) == 1 else 'are'} live",
                code="workspace.busy",
                hint="wait until it ends, or `gx cancel RUN`",
            )
        self.leave(f"the node was stopped by {_by(request)}")
        return Done()

    async def _stay(self, request: Request, body: None) -> Done:
        self.stays = True
        return Done()

    async def _submit(self, request: Request, asked: wire.Asked) -> Started:
        if self.is_leaving:
            raise WorkspaceError("the node is leaving", code="workspace.leaving", hint="try again")
        bounds.check_submission(asked.submission)
        upload = await self._uploads.claim(asked.submission.token) if asked.submission.inputs == "-" else None
        token = asked.submission.token or os.urandom(6).hex()  # by which the run is known when it is to go on
        submission = msgspec.structs.replace(asked.submission, by=_by(request), token=token)
        run: LocalRun | None = None
        try:
            run = await self.node.submit(msgspec.structs.replace(asked, submission=submission), upload=upload)
        finally:
            if upload is not None and (run is None or run.upload is not upload):
                upload.refuse()
        return run.greet()

    async def _upload(self, request: Request, body: None) -> Done:
        await self._uploads.receive(request.path_params["token"], request.stream())
        return Done()

    async def _watch(self, request: Request, body: None) -> Response:
        has_results, is_ordered = _flag(request, "results", default=True), _flag(request, "ordered", default=False)
        return Watch(self._run(request), has_results=has_results, is_ordered=is_ordered)

    async def _drain(self, request: Request, body: Reason) -> Done:
        run = self._run(request)
        if body.unless_others and run.is_wanted_by_others:
            return Done(run=run.state.id, is_left=True)
        self.node.drain(run, body.reason, _by(request))
        return Done(run=run.state.id)

    async def _stop(self, request: Request, body: Reason) -> Done:
        run = self._run(request)
        if body.unless_others and run.is_wanted_by_others:
            return Done(run=run.state.id, is_left=True)
        self.node.stop(run, e.RunInterrupted(run=run.state.id, reason=body.reason, by=_by(request)))
        return Done(run=run.state.id)

    async def _cancel(self, request: Request, body: Cancel) -> Done:
        if body.task is None and body.step is None:
            run_id = await self._name(request)
            await self.node.give_up(run_id, body.reason, _by(request))
            return Done(run=run_id)
        run = self._run(request)
        tasks = [task.id for task in run.state.tasks.values() if task.step == body.step or task.id == body.task]
        if not tasks:
            raise NotFound(f"the run {run.state.id} has no such task or step: {body.task or body.step}")
        self.node.cancel_tasks(run, tasks, body.reason, _by(request))
        return Done(run=run.state.id)

    async def _pause(self, request: Request, body: None) -> Done:
        run = self._run(request)
        if not run.state.is_paused:
            self.node.change(run, e.RunPaused(run=run.state.id, by=_by(request)))
        return Done(run=run.state.id)

    async def _resume(self, request: Request, body: None) -> Done:
        run_id = await self._name(request)
        if run_id not in self.node.live():
            await self.node.go_on(run_id, _by(request))
        elif self.node.run(run_id).state.is_paused:
            self.node.change(self.node.run(run_id), e.RunContinued(run=run_id, by=_by(request)))
        return Done(run=run_id)

    async def _end(self, request: Request, body: None) -> wire.End:
        return wire.ending(await anyio.to_thread.run_sync(self.node.look_back, await self._name(request)))

    async def _asked(self, request: Request, body: None) -> wire.Asked:
        return await anyio.to_thread.run_sync(self.node.asked, await self._name(request))

    async def _change(self, request: Request, body: Change) -> Done:
        run = self._run(request)
        bounds.check_change(body.concurrency, body.priority, body.deadline_s, body.budget_tokens)
        changed = e.RunChanged(
            run=run.state.id,
            concurrency=body.concurrency,
            priority=body.priority,
            deadline_at=None if body.deadline_s is None else self.node.clock.now() + body.deadline_s,
            budget_tokens=body.budget_tokens,
            by=_by(request),
        )
        self.node.change(run, changed)
        return Done(run=run.state.id)

    async def _query(self, request: Request, asked: Question) -> Table:
        bounds.check_question(asked.timeout_s, asked.max_rows)

        def answer() -> Table:
            found = run_sql(self.node.log, asked.sql, timeout_s=asked.timeout_s, max_rows=asked.max_rows)
            return table_of(found)

        return await anyio.to_thread.run_sync(answer)

    async def _events(self, request: Request, body: None) -> Response:
        query = request.query_params
        after = _number(request, "after", -1)
        pages = self._pages(after, query.get("run"), query.get("type"), _flag(request, "follow", default=False))
        return StreamingResponse(pages, media_type="application/x-ndjson")

    async def _pages(self, after: int, run: str | None, kind: str | None, is_followed: bool) -> AsyncIterator[bytes]:
        log = self.node.log
        while True:
            last = log.last_seq
            if after < last:
                lines = pages_of(log, run=run, kind=kind, after=after, last=last)
                while page := await anyio.to_thread.run_sync(lambda: next(lines, b"")):  # noqa: B023  this one's lines
                    yield page
                after = last
            elif not is_followed or (self.is_leaving and not self.node.live()):
                return
            await anyio.sleep(FOLLOW_EVERY_S if is_followed else 0)

    async def _story(self, request: Request, body: None) -> dict[str, Any]:
        return await anyio.to_thread.run_sync(story_of, self.node.log, request.path_params["subject"])

    async def _verify(self, request: Request, body: None) -> Report:
        return await anyio.to_thread.run_sync(verify, self.node.log)

    async def _describe(self, request: Request, body: None) -> dict[str, Any]:
        from gx.node.describe import document

        return document(self.endpoints)

    # ── around them ──────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self, request: Request) -> LocalRun:
        """The live run whose id starts so. :raises NotFound: if there is none, or several."""
        start = request.path_params["run"]
        found = [name for name in self.node.runs if name.startswith(start)]
        return self.node.run(found[0] if len(found) == 1 else start)

    async def _name(self, request: Request) -> str:
        """The id of the run, live or not, that starts so.

        :raises NotFound: if there is none. :raises UsageError: if there are several.
        """
        start: str = request.path_params["run"]
        if start in self.node.runs:
            return start
        name, is_run = await anyio.to_thread.run_sync(resolve, self.node.log, start)
        if not is_run:
            raise NotFound(f"{name} is a task, and no run")
        return name

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


def _by(request: Request) -> str:
    return request.headers.get("gx-by", "somebody")[:100]


def _flag(request: Request, name: str, *, default: bool) -> bool:
    text = request.query_params.get(name)
    if text not in (None, "true", "false", "1", "0"):
        raise UsageError(f"{name}: expected true or false, got {text!r}")
    return default if text is None else text in ("true", "1")


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    try:
        return default if text is None else max(-1, min(int(text), 1 << 62))
    except ValueError:
        raise UsageError(f"{name}: expected a whole number, got {text!r}") from None
