"""What the node answers about runs: submitting one, following it, and changing what it does.

It decodes, calls the node, and encodes. Every change is an event, with who asked.
"""

from __future__ import annotations

import os

import anyio.to_thread
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gx.core import event as e
from gx.core.errors import NotFound, UsageError
from gx.core.terms import Terms
from gx.node import bounds, recorded, telemetry, wire
from gx.node.attached import LocalRun
from gx.node.client import Started
from gx.node.endpoints import Answer, Cancel, Change, Done, Endpoint, OpenQuestions, Reason, Requeue, by, flag
from gx.node.local import LocalNode
from gx.node.previews import RunningNow
from gx.node.standing import question_of
from gx.node.upload import Uploads
from gx.node.waiting import while_waited_for
from gx.node.watch import Watch
from gx.otel.collector import Collector
from gx.run.history.story import resolve


class RunRoutes:
    """The routes of a node's runs."""

    def __init__(self, node: LocalNode, uploads: Uploads) -> None:
        self.node, self._uploads = node, uploads
        watch = (("results", "boolean"), ("ordered", "boolean"), ("input", "boolean"))
        task = (("task", "string"),)
        self.endpoints = (
            Endpoint("POST", "/v1/runs", self._submit, "Start a run, join or resume one", wire.Asked, Started),
            Endpoint("PUT", "/v1/inputs/{token}", self._upload, "Send a run's stdin, as it comes", takes=bytes),
            Endpoint("GET", "/v1/runs/{run}/watch", self._watch, "Follow a live run to its end", None, bytes, watch),
            Endpoint("GET", "/v1/runs/{run}/running", self._running, "What runs of a live run", None, RunningNow, task),
            Endpoint("POST", "/v1/runs/{run}/drain", self._drain, "Let what is running end, then stop", takes=Reason),
            Endpoint("POST", "/v1/runs/{run}/stop", self._stop, "Stop now; what was running runs anew", takes=Reason),
            Endpoint("POST", "/v1/runs/{run}/cancel", self._cancel, "Give the run up, or some of it", takes=Cancel),
            Endpoint("POST", "/v1/runs/{run}/requeue", self._requeue, "Take back what is running", takes=Requeue),
            Endpoint("POST", "/v1/runs/{run}/pause", self._pause, "Begin nothing new"),
            Endpoint("POST", "/v1/runs/{run}/resume", self._resume, "Let a paused or interrupted run go on"),
            Endpoint("GET", "/v1/runs/{run}/end", self._end, "How a run that isn't live ended", gives=wire.End),
            Endpoint("GET", "/v1/runs/{run}/asked", self._asked, "What was asked for", gives=wire.Asked),
            Endpoint("GET", "/v1/runs/{run}/questions", self._questions, "What a person is asked", gives=OpenQuestions),
            Endpoint("POST", "/v1/runs/{run}/answer", self._answer, "Answer a question of a run", takes=Answer),
            Endpoint("POST", "/v1/runs/{run}/burst", self._burst, "Let a run rent, on these terms", takes=Terms),
            Endpoint("POST", "/v1/runs/{run}/otel", self._otel, "Send it to a collector", Collector, e.TelemetryEnded),
            Endpoint("POST", "/v1/runs/{run}/change", self._change, "Change a run's limits", takes=Change),
        )

    async def _submit(self, request: Request, asked: wire.Asked) -> Started:
        self.node.check_staying()
        bounds.check_submission(asked.submission)
        upload = await self._uploads.claim(asked.submission.token) if asked.submission.inputs == "-" else None
        token = asked.submission.token or os.urandom(6).hex()  # by which the run is known when it is to go on
        submission = msgspec.structs.replace(asked.submission, by=by(request), token=token)
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
        return Watch(
            self._run(request),
            has_results=flag(request, "results", default=True),
            is_ordered=flag(request, "ordered", default=False),
            with_input=flag(request, "input", default=True),
        )

    async def _running(self, request: Request, body: None) -> RunningNow:
        return self.node.previews.of(self._run(request).state, request.query_params.get("task"))

    async def _drain(self, request: Request, body: Reason) -> Done:
        run = self._run(request)
        if body.unless_others and run.is_wanted_by_others:
            return Done(run=run.state.id, is_left=True)
        run.drain(body.reason, by(request))
        return Done(run=run.state.id)

    async def _stop(self, request: Request, body: Reason) -> Done:
        run = self._run(request)
        if body.unless_others and run.is_wanted_by_others:
            return Done(run=run.state.id, is_left=True)
        run.stop(e.RunInterrupted(run=run.state.id, reason=body.reason, by=by(request)))
        return Done(run=run.state.id)

    async def _cancel(self, request: Request, body: Cancel) -> Done:
        if body.task is None and body.step is None:
            run_id = await self._name(request)
            await self.node.give_up(run_id, body.reason, by(request))
            return Done(run=run_id)
        run = self._live(request)
        tasks = [task.id for task in run.state.tasks.values() if task.step == body.step or task.id == body.task]
        if not tasks:
            raise NotFound(f"the run {run.state.id} has no such task or step: {body.task or body.step}")
        run.cancel_tasks(tasks, body.reason, by(request))
        return Done(run=run.state.id)

    async def _requeue(self, request: Request, body: Requeue) -> Done:
        run = self._live(request)
        leased = run.state.leased.values()
        wanted = body.task or body.step
        tasks = [task.id for task in leased if wanted is None or wanted in (task.id, task.step)]
        if not tasks:
            raise NotFound(f"nothing of {run.state.id} is running" + (f" by the name of {wanted}" if wanted else ""))
        run.requeue(tasks, by(request))
        return Done(run=run.state.id)

    async def _pause(self, request: Request, body: None) -> Done:
        run = self._live(request)
        if run.is_ending:
            hint = f"gx resume {run.state.id} goes on with it when it has ended"
            is_given_up = isinstance(run.active.draining, e.RunCancelled)
            why = f"{run.state.id} is ending: it begins nothing new, and can't be paused"
            raise UsageError(why, hint="" if is_given_up else hint)
        if not run.state.is_paused:
            run.change(e.RunPaused(run=run.state.id, by=by(request)))
        return Done(run=run.state.id)

    async def _resume(self, request: Request, body: None) -> Done:
        run_id = await self._name(request)
        run = self.node.runs.get(run_id)
        if run is not None and run.is_ending:
            self.node.check_staying()
            await while_waited_for(request.receive, run.active.results.ended)
        await self.node.go_on(run_id, by(request))
        return Done(run=run_id)

    async def _end(self, request: Request, body: None) -> wire.End:
        name = await self._name(request)
        return wire.ending(await anyio.to_thread.run_sync(recorded.end, self.node.log, name))

    async def _asked(self, request: Request, body: None) -> wire.Asked:
        return await anyio.to_thread.run_sync(recorded.asked, self.node.log, await self._name(request))

    async def _questions(self, request: Request, body: None) -> OpenQuestions:
        state = await anyio.to_thread.run_sync(self.node.stands, await self._name(request))
        return OpenQuestions(
            run=state.id,
            questions=tuple(map(question_of, state.questions.values())),
            paused_steps=tuple(state.paused_steps),
        )

    async def _answer(self, request: Request, body: Answer) -> Done:
        run_id = await self._name(request)
        await self.node.answer(run_id, body.choice, body.question, by(request))
        return Done(run=run_id)

    async def _burst(self, request: Request, body: Terms) -> Done:
        run = self._live(request)
        bounds.check_terms(body)
        bounds.check_switch(run.state, body)
        run.steer([e.BurstAllowed(run=run.state.id, terms=body, by=by(request))])
        return Done(run=run.state.id)

    async def _change(self, request: Request, body: Change) -> Done:
        run = self._live(request)
        bounds.check_change(body.concurrency, body.priority, body.deadline_s, body.budget_tokens)
        changed = e.RunChanged(
            run=run.state.id,
            concurrency=body.concurrency,
            priority=body.priority,
            deadline_at=None if body.deadline_s is None else self.node.clock.now() + body.deadline_s,
            budget_tokens=body.budget_tokens,
            by=by(request),
        )
        run.change(changed)
        return Done(run=run.state.id)

    async def _otel(self, request: Request, body: Collector) -> e.TelemetryEnded:
        telemetry.check(body, is_offline=self.node.settings.offline)
        name = await self._name(request)
        asked = await anyio.to_thread.run_sync(recorded.asked, self.node.log, name)
        return await self.node.telemetry.send(name, asked.submission, body)

    def _run(self, request: Request) -> LocalRun:
        """The live run whose id starts so, or one that is over and whose results aren't all taken.

        :raises NotFound: if there is none. :raises UsageError: if there are several.
        """
        start = request.path_params["run"]
        found = [name for name in self.node.runs if name.startswith(start)]
        if not found:
            raise NotFound(f"no run {start} is live", hint="`gx ps` lists those that are, `gx runs` all")
        if len(found) > 1 and start not in found:
            raise UsageError(f"{start} is the start of several ids: {', '.join(found)}", hint="give more of it")
        return self.node.runs[found[0] if len(found) == 1 else start]

    def _live(self, request: Request) -> LocalRun:
        """The one that is to be changed. :raises NotFound: if it is over, too. :raises UsageError: as `_run`."""
        run = self._run(request)
        if run.active.is_over:
            raise NotFound(f"the run {run.state.id} is over, or was interrupted", hint="`gx runs` says how it ended")
        return run

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
