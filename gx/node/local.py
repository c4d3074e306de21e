"""The owner of a workspace: it takes up what is submitted, and answers, resumes or gives up a run, live or not.

It knows submissions and runs, and nothing of how clients speak to it. Invariant: whatever begins a run, or changes one
that isn't live, does so under one lock, so that no two of these can pass each other by. Once the node is leaving, it
takes up no run: what is taken up while it is told so is interrupted as if it had been live by then.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import msgspec

from gx import wiring
from gx.core import event as e
from gx.core import ids
from gx.core.errors import GxError, NotFound, UsageError, WorkspaceError
from gx.core.view import RunState, RunStatus, View
from gx.node import beginning, recorded, telemetry, wire
from gx.node.attached import LocalRun
from gx.node.bench import Bench
from gx.node.bounds import check_offline
from gx.node.client import OpenQuestion, Started
from gx.node.liveruns import LiveRuns
from gx.node.memories import Memories
from gx.node.notices import check_targets
from gx.node.notify import Notifiers
from gx.node.previews import Previews
from gx.node.rulewatch import RuleWatch
from gx.node.runmemory import RunMemory
from gx.node.standing import chosen, continuations, question_of
from gx.node.upload import Upload
from gx.node.wanted import Wanted, read
from gx.run import rules
from gx.run.active import ActiveRun
from gx.run.contents import Contents
from gx.run.dispatcher import Dispatcher
from gx.run.freshly import FreshPreparer, steps_from
from gx.run.inputs import StreamSource, take
from gx.run.log import EventLog
from gx.settings import Settings


class _Ending(Exception):
    """The run that is wanted is live, and about to be interrupted: it can be resumed when it has ended."""

    def __init__(self, run: LocalRun) -> None:
        super().__init__(run.state.id)
        self.run = run


def _stream_is_gone(run_id: str) -> UsageError:
    return UsageError(f"the input of {run_id} was a stream, and is gone", hint="give the rows again to `gx run`")


class LocalNode:
    """The owner of a workspace, inside its process. It puts the files of its runs' models into `models`."""

    def __init__(
        self,
        log: EventLog,
        settings: Settings,
        view: View,
        dispatcher: Dispatcher,
        contents: Contents,
        bench: Bench,
        models: dict[str, wiring.LocalModel],
        memories: Memories,
    ) -> None:
        self.log, self.settings, self.view, self.bench = log, settings, view, bench
        self.memories = memories
        self.clock = wiring.SystemClock()
        self.runs = LiveRuns(dispatcher)
        self._dispatcher, self._contents, self._models = dispatcher, contents, models
        self._taking_up = anyio.Lock()
        self.n_taking_up = 0
        """Submissions that are read or taken up just now: the node stays for them."""
        self._why_leaving: str | None = None
        self.previews = Previews()
        dispatcher.on_signal = self.previews.take
        self.notifiers = Notifiers(commit=dispatcher.commit, now=self.clock.now)
        self.telemetry = telemetry.Telemetry(log, commit=dispatcher.commit)

    @property
    def n_telling(self) -> int:
        """Notices and runs' traces that are not all told: the node stays for them."""
        return self.notifiers.n_runs + self.telemetry.n_runs

    @property
    def is_leaving(self) -> bool:
        """Whether it was told to: it takes no run up any more."""
        return self._why_leaving is not None

    def leave(self, reason: str) -> None:
        """Drain all runs, and take up none from now on. The first reason is the one that counts."""
        self._why_leaving = self._why_leaving or reason
        for run in self.runs.values():
            run.drain(self._why_leaving, "")

    def check_staying(self) -> None:
        """:raises WorkspaceError: if the node is leaving."""
        if self.is_leaving:
            raise WorkspaceError("the node is leaving", code="workspace.leaving", hint="try again")

    # ── taking one up ────────────────────────────────────────────────────────────────────────────────────────────

    async def submit(self, asked: wire.Asked, *, upload: Upload | None = None) -> LocalRun:
        """Start the run, or go on with the newest unfinished one of the same recipe, params and inputs; join a live
        one.

        :raises GxError: if the recipe, the params, the input or a model can't be used; then nothing is written.
        :raises WorkspaceError: `workspace.leaving`; what was written by then is of a run that goes on later.
        """
        self.check_staying()
        check_targets(asked.submission.notify, is_offline=asked.settings.offline)
        telemetry.check(asked.submission.otel, is_offline=asked.settings.offline)
        check_offline(asked.submission.burst, is_offline=asked.settings.offline)
        self.n_taking_up += 1
        try:
            found = await anyio.to_thread.run_sync(read, asked, upload)
            while True:
                try:
                    async with self._taking_up:
                        self.check_staying()
                        run = await self._submit(asked, found, upload)
                    if self._why_leaving is not None:  # it was told to meanwhile
                        run.drain(self._why_leaving, "")
                    self.check_staying()
                    return run
                except _Ending as ending:
                    await ending.run.active.results.ended()
        finally:
            self.n_taking_up -= 1

    async def _submit(self, asked: wire.Asked, found: Wanted, upload: Upload | None) -> LocalRun:
        """The run as it is live, and whoever the submission names is told of it."""
        state, is_resumed = await self._take_up(asked, found)
        run = self.runs.get(state.id)
        if run is None or run.state is not state:
            self._models.update({model.digest: model for model in found.models.values()})
            self.bench.offer(found.models.values())
            run = self._made(state, asked, found, upload, is_resumed=is_resumed)
            if state.status is RunStatus.running:
                await self._dispatcher.activate(run.active)
            else:  # its client died with the last node, before it had everything
                run.active.end()
            self.runs.add(run)  # not before: who finds it there may end it, and the dispatcher must have it
            self.runs.group.start_soon(RuleWatch(run.active, self.log, self._dispatcher.steer, self.clock).watch)
        self.notifiers.follow(run, asked.submission, self.runs.group)
        self.telemetry.follow(run, asked.submission.otel, self.runs.group)
        return run

    async def _take_up(self, asked: wire.Asked, found: Wanted) -> tuple[RunState, bool]:
        """The run's state: the live or unfinished one that was asked for, or a new one. Whether it was there before."""
        wanted, now = asked.submission, self.clock.now()
        name = wanted.name or found.plan.recipe.name
        own = ids.run_id(name, bytes.fromhex(wanted.token) if wanted.token else os.urandom(6))
        run_id = own if wanted.token and self.log.has_run(own) else None
        if run_id is None and found.fingerprint is not None and not wanted.fresh:
            run_id = self.log.newest_run(found.fingerprint)
        if run_id is None:
            created, blobs = beginning.created(own, asked, found, self._contents, now)
            await self._dispatcher.commit([created], blobs)
            return self.view.runs[own], False
        is_asked_anew = run_id != own  # and not by one who waits for it since it was live
        live = self.runs.get(run_id)
        if live is not None and not live.active.is_over:
            if live.is_ending:
                raise _Ending(live)
            if is_asked_anew:
                live.steer(beginning.joined(live.state, wanted, now))
            return live.state, True
        self.runs.forget(run_id)
        state = self.view.runs[run_id] = recorded.state(self.log, run_id)
        if state.status not in (RunStatus.finished, RunStatus.cancelled):
            wanted = wanted if is_asked_anew else beginning.rejoined(state, wanted)
            goes_on = continuations(state, wanted.by) if is_asked_anew else []
            try:
                resumed = beginning.resumed(state, wanted, now, deadline_s=found.plan.recipe.deadline_s)
            except GxError:
                self.view.runs.pop(run_id)  # it isn't live, and who interrupts what was left behind is to find it so
                raise
            await self._dispatcher.commit([*resumed, *goes_on])
        return state, True

    def _made(
        self, state: RunState, asked: wire.Asked, found: Wanted, upload: Upload | None, *, is_resumed: bool
    ) -> LocalRun:
        """What is held of the run while it is live."""
        wanted, recipe, source = asked.submission, found.plan.recipe, found.source
        digests = {name: model.digest for name, model in found.models.items()}
        first_seq = self.view.seq
        preparer = FreshPreparer(
            found.plan,
            state,
            self._contents,
            digests,
            lambda keys: self.log.find_results(keys, before_seq=first_seq),
            fresh=steps_from(found.plan, wanted.fresh_from),
            memory=RunMemory(self.memories, asked.settings.memory_reranker),
        )
        rows = take(source.rows(), limit=wanted.limit, sample=wanted.sample, seed=0) if source is not None else None
        is_stream = isinstance(source, StreamSource)
        started = Started(
            run=state.id,
            name=recipe.name,
            is_resumed=is_resumed,
            model=", ".join(recipe.models[name].source for name in found.models),
            done_before=sum(sum(step.ended.values()) for step in state.steps.values()),
            total=len(state.tasks),
        )
        sources = {recipe.models[name].source: digest for name, digest in digests.items()}
        return LocalRun(
            ActiveRun(found.plan, state, preparer, self._contents, rows, reads_stream=is_stream),
            self._dispatcher,
            started,
            source,
            upload,
            now=self.clock.now,
            on_clients=self.runs.attend,
            warnings=lambda: self.bench.warnings(sources),
            is_offline=asked.settings.offline,
        )

    # ── runs that are live, or not ───────────────────────────────────────────────────────────────────────────────

    def stands(self, run_id: str) -> RunState:
        """The state of a run, live or not; that of one that isn't live takes a while, as the log is read."""
        live = self.runs.get(run_id)
        return live.state if live is not None else recorded.state(self.log, run_id)

    async def give_up(self, run_id: str, reason: str, by: str) -> None:
        """End a run for good, live or not. :raises NotFound: if there is no such run, or it is over."""
        last = e.RunCancelled(run=run_id, reason=reason, by=by)
        async with self._held(run_id) as is_live:
            if is_live:
                self.runs[run_id].stop(last)
            elif self.log.is_unfinished(run_id):
                await self._dispatcher.commit([last])
            else:
                raise NotFound(f"the run {run_id} is over: there is nothing to cancel")

    async def go_on(self, run_id: str, by: str) -> None:
        """Let a live run, or steps of it, go on that were paused; else go on with one that was interrupted or stopped,
        without a client.

        :raises GxError: if it can't, as when its input was a stream that is gone.
        """
        live = self.runs.get(run_id)
        if live is not None and not live.active.is_over and not live.is_ending:
            if not live.is_attended:  # nobody is there any more for whom it would go on
                if live.upload is not None and not live.state.inputs_ended:
                    raise _stream_is_gone(run_id)
                self.runs.wait_no_longer(run_id)
                live.change(e.RunChanged(run=run_id, is_detached=True, by=by))
            live.unpause(by)
            return
        if not self.log.is_unfinished(run_id):
            raise UsageError(f"the run {run_id} is over: there is nothing to resume", hint=f"gx retry {run_id}")
        asked = await anyio.to_thread.run_sync(recorded.asked, self.log, run_id)
        wanted = msgspec.structs.replace(asked.submission, is_detached=True, by=by)
        if wanted.inputs == "-":
            raise _stream_is_gone(run_id)
        run = await self.submit(msgspec.structs.replace(asked, submission=wanted))
        run.unpause(by)

    async def answer(self, run_id: str, choice: str, question: str | None, by: str) -> OpenQuestion:
        """Answer a question that the run asks: that one, or the oldest. What was asked.

        :raises NotFound: if it asks none, or is over. :raises UsageError: if that is no choice.
        """
        async with self._held(run_id) as is_live:
            if not is_live and not self.log.is_unfinished(run_id):
                raise NotFound(f"the run {run_id} is over: it asks nothing")
            state = self.runs[run_id].state if is_live else await anyio.to_thread.run_sync(self.stands, run_id)
            asked = chosen(state, question, choice)
            bodies = rules.answered(state, asked, choice, by)
            if is_live:
                self._dispatcher.steer(bodies)
            else:
                stops = [b for b in bodies if isinstance(b, e.StopAsked)]
                ends = [e.RunStopped(run=run_id, limit="rule", reason=f"{b.reason} (asked by {b.by})") for b in stops]
                await self._dispatcher.commit([*bodies, *ends])
        return question_of(asked)

    async def interrupt_left(self, run_ids: Collection[str], reason: str) -> None:
        """Interrupt those of these runs that a node which died left behind, and that nobody took up or ended since."""
        async with self._taking_up:
            left = {run_id for run_id, *_ in self.log.live_runs()}.difference(self.runs.live())
            await self._dispatcher.commit([e.RunInterrupted(run=r, reason=reason) for r in run_ids if r in left])

    @asynccontextmanager
    async def _held(self, run_id: str) -> AsyncIterator[bool]:
        """Whether a run is live. Within the block nobody takes one up that isn't."""
        if run_id in self.runs.live():
            yield True
            return
        async with self._taking_up:
            yield run_id in self.runs.live()
