"""The owner of a workspace: it folds the log, takes an epoch, and drives runs through the dispatcher.

It knows submissions and runs, and nothing of how clients speak to it. A run that nobody attends to any more, and that
was not detached on purpose, gets no grants, and is interrupted if nobody comes back. Once the node is leaving, it takes
up no run: what is taken up while it is told so is interrupted as if it had been live by then. It is long because
whatever begins, changes or ends a run meets here, so that no two of these can pass each other by.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup

from gx import wiring
from gx.core import event as e
from gx.core import ids
from gx.core.errors import GxError, NotFound, UsageError, WorkspaceError
from gx.core.projection import fold
from gx.core.view import RunState, RunStatus, View
from gx.flow import parse
from gx.node import beginning, problem, telemetry, wire
from gx.node.attached import LocalRun
from gx.node.bench import Bench
from gx.node.bounds import check_offline
from gx.node.client import OpenQuestion, RunEnd, Started, Submission
from gx.node.memories import Memories
from gx.node.notices import check_targets
from gx.node.notify import Notifiers
from gx.node.previews import Previews
from gx.node.rulewatch import RuleWatch
from gx.node.runmemory import RunMemory
from gx.node.standing import chosen, continuations, end_of, question_of
from gx.node.upload import Upload
from gx.node.wanted import Wanted, read
from gx.run import rules
from gx.run.active import ActiveRun
from gx.run.contents import Contents
from gx.run.dispatcher import Dispatcher
from gx.run.freshly import FreshPreparer, steps_from
from gx.run.inputs import StreamSource, take
from gx.run.log import EventLog
from gx.run.scheduler import LastWord
from gx.settings import Settings

REATTACH_S = 10.0
"""How long a run whose client vanished waits for it."""


class _Ending(Exception):
    """The run that is wanted is live, and about to be interrupted: it can be resumed when it has ended."""

    def __init__(self, run: LocalRun) -> None:
        super().__init__(run.state.id)
        self.run = run


def _stream_is_gone(run_id: str) -> UsageError:
    return UsageError(f"the input of {run_id} was a stream, and is gone", hint="give the rows again to `gx run`")


class LocalNode:
    """The owner of a workspace, inside its process."""

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
        self.runs: dict[str, LocalRun] = {}
        """The live ones, and those whose clients haven't taken everything."""
        self._dispatcher, self._contents, self._models = dispatcher, contents, models
        self._taking_up = anyio.Lock()
        self.n_taking_up = 0
        """Submissions that are read or taken up just now: the node stays for them."""
        self._why_leaving: str | None = None
        self.previews = Previews()
        dispatcher.on_signal = self.previews.take
        self._group: TaskGroup
        self._waits: dict[str, anyio.CancelScope] = {}
        self._left: list[tuple[str, str | None, bool]] = []
        self.notifiers = Notifiers(commit=dispatcher.commit, now=self.clock.now)
        self.telemetry = telemetry.Telemetry(log, commit=dispatcher.commit)

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
                        self.drain(run, self._why_leaving, "")
                    self.check_staying()
                    return run
                except _Ending as ending:
                    await ending.run.active.results.ended()
        finally:
            self.n_taking_up -= 1

    @property
    def n_telling(self) -> int:
        """Notices and runs' traces that are not all told: the node stays for them."""
        return self.notifiers.n_runs + self.telemetry.n_runs

    def live(self) -> list[str]:
        """The runs that are not over."""
        return [run_id for run_id, run in self.runs.items() if not run.active.is_over]

    def run(self, run_id: str) -> LocalRun:
        """A live run. :raises NotFound: if there is none of that name."""
        if run_id not in self.runs:
            raise NotFound(f"no run {run_id} is live", hint="`gx ps` lists those that are, `gx runs` all")
        return self.runs[run_id]

    @property
    def is_leaving(self) -> bool:
        """Whether it was told to: it takes no run up any more."""
        return self._why_leaving is not None

    def leave(self, reason: str) -> None:
        """Drain all runs, and take up none from now on. The first reason is the one that counts."""
        self._why_leaving = self._why_leaving or reason
        for run in self.runs.values():
            self.drain(run, self._why_leaving, "")

    def check_staying(self) -> None:
        """:raises WorkspaceError: if the node is leaving."""
        if self.is_leaving:
            raise WorkspaceError("the node is leaving", code="workspace.leaving", hint="try again")

    def drain(self, run: LocalRun, reason: str, by: str) -> None:
        """Let what is running end, then interrupt the run."""
        if not run.active.is_over:
            self._dispatcher.drain(run.state.id, reason, by)

    def stop(self, run: LocalRun, last: LastWord) -> None:
        """End the run now."""
        if not run.active.is_over:
            self._dispatcher.stop(last)

    def cancel_tasks(self, run: LocalRun, tasks: list[str], reason: str, by: str) -> None:
        """End some of its tasks."""
        if not run.active.is_over:
            self._dispatcher.cancel(run.state.id, reason, by=by, tasks=tasks)

    def requeue(self, run: LocalRun, tasks: list[str], by: str) -> None:
        """Take tasks back from the workers; they run anew."""
        if not run.active.is_over:
            self._dispatcher.requeue(run.state.id, tasks, by)

    def rented(self, run_id: str) -> wiring.Rented:
        """What is to be known of a live run that rents."""
        run = self.runs[run_id]
        plan, terms = run.active.plan, run.state.rent
        limits = [step.step.timeout_s for step in plan.steps if step.step.timeout_s is not None]
        return wiring.Rented(
            models=tuple(self._models[digest] for digest in run.active.preparer.digests()),
            timeout_s=max(limits, default=None),
            is_rehearsal=terms is not None and terms.terms.is_rehearsal,
            is_offline=run.is_offline,
        )

    def steer(self, run: LocalRun, bodies: list[e.Body]) -> None:
        """Change what a live run does."""
        if not run.active.is_over:
            self._dispatcher.steer(bodies)

    async def give_up(self, run_id: str, reason: str, by: str) -> None:
        """End a run for good, live or not. :raises NotFound: if there is no such run, or it is over."""
        last = e.RunCancelled(run=run_id, reason=reason, by=by)
        async with self._held(run_id) as is_live:
            if is_live:
                self.stop(self.runs[run_id], last)
            elif self.log.is_unfinished(run_id):
                await self._dispatcher.commit([last])
            else:
                raise NotFound(f"the run {run_id} is over: there is nothing to cancel")

    @asynccontextmanager
    async def _held(self, run_id: str) -> AsyncIterator[bool]:
        """Whether a run is live. Within the block nobody takes one up that isn't."""
        if run_id in self.live():
            yield True
            return
        async with self._taking_up:
            yield run_id in self.live()

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
                if (wait := self._waits.pop(run_id, None)) is not None:
                    wait.cancel()
                self.change(live, e.RunChanged(run=run_id, is_detached=True, by=by))
            self._unpause(live, by)
            return
        if not self.log.is_unfinished(run_id):
            raise UsageError(f"the run {run_id} is over: there is nothing to resume", hint=f"gx retry {run_id}")
        asked = await anyio.to_thread.run_sync(self.asked, run_id)
        wanted = msgspec.structs.replace(asked.submission, is_detached=True, by=by, token=asked.submission.token)
        if wanted.inputs == "-":
            raise _stream_is_gone(run_id)
        run = await self.submit(msgspec.structs.replace(asked, submission=wanted))
        self._unpause(run, by)

    def asked(self, run_id: str) -> wire.Asked:
        """What was asked for when the run began. :raises NotFound: if the log doesn't say."""
        ref = self.log.asked_of(run_id)
        content = self.log.blobs([ref]) if ref is not None else {}
        if ref is None or ref not in content:
            raise NotFound(f"the log doesn't say how {run_id} was asked for", hint="give the command again")
        found: wire.Asked = problem.decode(content[ref], wire.Asked)
        return found

    def look_back(self, run_id: str) -> RunEnd:
        """How a run that isn't live ended, or stands. It reads the log, and takes a while."""
        asked, view = self.asked(run_id), View()
        for event in self.log.read(run=run_id):
            fold(view, event)
        wanted = asked.submission
        plan = parse.plan_recipe(wanted.recipe_text, wanted.params, file=wanted.recipe_file)
        return end_of(view.runs[run_id], plan, seconds=0.0)

    def change(self, run: LocalRun, body: e.RunPaused | e.RunContinued | e.RunChanged) -> None:
        """Pause it, let it go on, or change its limits."""
        if not run.active.is_over:
            self._dispatcher.change(body)

    def _unpause(self, run: LocalRun, by: str) -> None:
        if not run.active.is_over:
            self._dispatcher.steer(continuations(run.state, by))

    def stands(self, run_id: str) -> RunState:
        """The state of a run, live or not; that of one that isn't live takes a while, as the log is read."""
        if (live := self.runs.get(run_id)) is not None:
            return live.state
        view = View()
        for event in self.log.read(run=run_id):
            fold(view, event)
        return view.runs[run_id]

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

    def attend(self, run: LocalRun) -> None:
        """A client came or went."""
        run_id = run.state.id
        if (before := self._waits.pop(run_id, None)) is not None:
            before.cancel()
        self._dispatcher.attend(run_id, is_attended=run.is_attended)
        if run.active.is_over and not run.n_clients:
            self._forget(run)
        elif not run.active.is_over and not run.is_attended:
            wait = self._waits[run_id] = anyio.CancelScope()
            self._group.start_soon(self._wait_for, run, wait)

    async def _wait_for(self, run: LocalRun, scope: anyio.CancelScope) -> None:
        """Give a client that vanished the time to come back."""
        with scope:
            await anyio.sleep(REATTACH_S)
            if not run.is_attended:  # somebody may have said since that it needs no client
                self.drain(run, "its client went away", "")

    def _tell_others(self, run: LocalRun, wanted: Submission) -> None:
        """See to it that those whom the submission names are told of the run."""
        self.notifiers.follow(run, wanted, self._group)
        self.telemetry.follow(run, wanted.otel, self._group)

    async def _over(self, run: LocalRun) -> None:
        """Clear up once the run is over and nobody watches it."""
        await run.active.results.ended()
        if run.upload is not None:
            run.upload.refuse()
        if not run.had_client and not run.state.is_detached:
            await anyio.sleep(REATTACH_S)  # its client is on its way
        if not run.n_clients:
            self._forget(run)

    def _forget(self, run: LocalRun) -> None:
        if self.runs.get(run.state.id) is run:
            del self.runs[run.state.id]
            self.view.runs.pop(run.state.id, None)

    async def _submit(self, asked: wire.Asked, read: Wanted, upload: Upload | None) -> LocalRun:
        wanted, recipe = asked.submission, read.plan.recipe
        state, is_resumed = await self._take_up(asked, read)
        if (live := self.runs.get(state.id)) is not None and (live.state is state):
            self._tell_others(live, wanted)
            return live
        self._models.update({model.digest: model for model in read.models.values()})
        self.bench.offer(list(read.models.values()))
        first_seq = self.view.seq
        digests = {name: model.digest for name, model in read.models.items()}
        preparer = FreshPreparer(
            read.plan,
            state,
            self._contents,
            digests,
            lambda keys: self.log.find_results(keys, before_seq=first_seq),
            fresh=steps_from(read.plan, wanted.fresh_from),
            memory=RunMemory(self.memories, asked.settings.memory_reranker),
        )
        source = read.source
        rows = take(source.rows(), limit=wanted.limit, sample=wanted.sample, seed=0) if source is not None else None
        active = ActiveRun(
            read.plan, state, preparer, self._contents, rows, reads_stream=isinstance(source, StreamSource)
        )
        started = Started(
            run=state.id,
            name=recipe.name,
            is_resumed=is_resumed,
            model=", ".join(recipe.models[name].source for name in read.models),
            done_before=sum(sum(step.ended.values()) for step in state.steps.values()),
            total=len(state.tasks),
        )
        sources = {recipe.models[name].source: digest for name, digest in digests.items()}
        run = LocalRun(
            active,
            started,
            source,
            upload,
            now=self.clock.now,
            on_clients=self.attend,
            warnings=lambda: self.bench.warnings(sources),
            is_offline=asked.settings.offline,
        )
        if state.status is RunStatus.running:
            await self._dispatcher.activate(active)
            self.runs[state.id] = run  # not before: who finds it there may end it, and the dispatcher must have it
            self.attend(run)
            self._group.start_soon(RuleWatch(active, self.log, self._dispatcher.steer, self.clock).watch)
        else:  # its client died with the last node, before it had everything
            self.runs[state.id] = run
            active.end()
        self._tell_others(run, wanted)
        self._group.start_soon(self._over, run)
        return run

    async def _take_up(self, asked: wire.Asked, read: Wanted) -> tuple[RunState, bool]:
        """The run's state: the live or unfinished one that was asked for, or a new one."""
        wanted, now = asked.submission, self.clock.now()
        name = wanted.name or read.plan.recipe.name
        own = ids.run_id(name, bytes.fromhex(wanted.token) if wanted.token else os.urandom(6))
        run_id = own if wanted.token and self.log.has_run(own) else None
        if run_id is None and read.fingerprint is not None and not wanted.fresh:
            run_id = self.log.newest_run(read.fingerprint)
        if run_id is None:
            created, blobs = beginning.created(own, asked, read, self._contents, now)
            await self._dispatcher.commit([created], blobs)
            return self.view.runs[own], False
        is_asked_anew = run_id != own  # and not by one who waits for it since it was live
        live = self.runs.get(run_id)
        if live is not None and not live.active.is_over:
            if live.is_ending:
                raise _Ending(live)
            if is_asked_anew:
                self.steer(live, beginning.joined(live.state, wanted, now))
            return live.state, True
        state = await self._unfold(run_id)
        if state.status not in (RunStatus.finished, RunStatus.cancelled):
            wanted = wanted if is_asked_anew else beginning.rejoined(state, wanted)
            goes_on = continuations(state, wanted.by) if is_asked_anew else []
            try:
                resumed = beginning.resumed(state, wanted, now, deadline_s=read.plan.recipe.deadline_s)
            except GxError:
                self.view.runs.pop(run_id)  # it isn't live, and `let_go` is to find it so
                raise
            await self._dispatcher.commit([*resumed, *goes_on])
        return state, True

    async def _unfold(self, run_id: str) -> RunState:
        """The state of a run that isn't live, read from the log into the view."""
        self.runs.pop(run_id, None)
        self.view.runs.pop(run_id, None)
        view = View()  # of its own: what a bench did back then is no news of the one that is up
        for event in self.log.read(run=run_id):
            fold(view, event)
        self.view.runs[run_id] = view.runs[run_id]
        return view.runs[run_id]

    async def take_up(self) -> None:
        """Look after the runs that a node which died left behind: go on with those that need no client, and interrupt
        the others, unless their clients come back.
        """
        left = self._left = self.log.live_runs()
        for run_id, ref, is_detached in left:
            if not is_detached or ref is None:
                continue
            try:
                await self.submit(problem.decode(self.log.blobs([ref])[ref], wire.Asked))
            except (GxError, KeyError, msgspec.MsgspecError) as error:  # as one that another version wrote
                async with self._held(run_id) as is_live:  # if so, the node was told to leave meanwhile, and drains it
                    if not is_live and run_id in {one for one, *_ in self.log.live_runs()}:
                        await self._dispatcher.commit([e.RunInterrupted(run=run_id, reason=str(error))])
        if left:
            await anyio.sleep(REATTACH_S)
            await self.let_go()

    async def let_go(self) -> None:
        """Interrupt the runs that a node which died left behind, and nobody came back for."""
        left, self._left = self._left, []
        gone = [run_id for run_id, _, is_detached in left if not is_detached and run_id not in self.view.runs]
        if gone:
            reason = "its node died, and its client did not come back"
            async with self._taking_up:
                still = {run_id for run_id, *_ in self.log.live_runs()}.difference(self.live())
                await self._dispatcher.commit([e.RunInterrupted(run=r, reason=reason) for r in gone if r in still])

    async def _keep_time(self) -> None:
        while True:
            for run in self.runs.values():
                run.tempo.saw(run.progress())
            await anyio.sleep(1.0)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Keep time and look after runs as long as the block lasts."""
        async with anyio.create_task_group() as group:
            self._group = group
            group.start_soon(self._keep_time)
            yield
            group.cancel_scope.cancel()
