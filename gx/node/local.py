"""A node that lives in the client's process: it owns the workspace for as long as its block lasts.

It folds the log, takes an epoch, and drives runs through the dispatcher. Its interface is that of a node in a process
of its own: submissions in, records and progress out.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from gx import __version__, wiring
from gx.core import event as e
from gx.core import ids
from gx.core.errors import GxError, UsageError
from gx.core.projection import fold
from gx.core.recipe import Recipe
from gx.core.task import Status
from gx.core.view import RunState, RunStatus, View
from gx.flow import parse
from gx.flow.plan import Plan
from gx.node.bench import Bench
from gx.node.client import Progress, RunEnd, Started, Submission
from gx.node.workspace import Workspace
from gx.run.active import ActiveRun
from gx.run.contents import Contents
from gx.run.dispatcher import Dispatcher
from gx.run.inputs import Source, open_inputs, take
from gx.run.log import EventLog
from gx.run.prepare import Preparer
from gx.run.record import Record
from gx.settings import Settings


class LocalRun:
    """A run that this client is attached to: its records as they come, how it stands, how it ended.

    `warnings` say what makes its models slow here; they come with the first task that needs a bench.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        active: ActiveRun,
        started: Started,
        source: Source | None,
        began: float,
        warnings: AsyncIterator[str],
    ) -> None:
        self.started, self.warnings = started, warnings
        self._dispatcher, self._active, self._source, self._began = dispatcher, active, source, began

    async def records(self) -> AsyncIterator[list[Record]]:
        """Results of the output step, in the order of their coming, until the run is over for this client."""
        async with self._active.records as stream:
            async for chunk in stream:
                yield chunk

    def drain(self, reason: str) -> None:
        """Let what is running end, then stop."""
        if not self._active.is_over:
            self._dispatcher.drain(self.started.run, reason)

    def progress(self, now: float) -> Progress:
        """How the run stands."""
        state, plan = self._active.state, self._active.plan
        counted = {status: state.count(status) for status in Status}
        ended = sum(counted.values())
        opened = all(state.step(s.id).is_unfolded for s in plan.steps)
        return Progress(
            done=ended,
            failed=counted[Status.failed],
            reused=state.reused,
            running=len(state.leased),
            total=len(state.tasks),
            is_total_final=opened,
            tokens_in=state.tokens_in,
            tokens_out=state.tokens_out,
            elapsed_s=now - self._began,
        )

    def end(self, now: float, *, is_delivered: bool = True, error: GxError | None = None) -> RunEnd:
        """How the run ended for this client; whether all records were handed on, and what went wrong in that."""
        state, plan = self._active.state, self._active.plan
        tolerant = {s.id for s in plan.steps if s.step.continue_on_error}
        failed = [t for t in state.tasks.values() if t.status is Status.failed]
        excused = sum(t.step in tolerant for t in failed)
        stop = self._active.draining
        is_cut_off = state.status is RunStatus.finished and not is_delivered
        errors = [(t.row_id, *t.error) for t in failed[:5] if t.error]
        return RunEnd(
            run=state.id,
            is_streamed=state.created.is_streamed,
            status=RunStatus.interrupted if is_cut_off else state.status,
            limit=state.stopped_by if state.status is RunStatus.stopped else "",
            reason=getattr(stop, "reason", ""),
            succeeded=state.count(Status.succeeded),
            failed=len(failed) - excused,
            excused=excused,
            skipped=state.count(Status.skipped),
            cancelled=state.count(Status.cancelled),
            left=state.live,
            reused=state.reused,
            tokens_in=state.tokens_in,
            tokens_out=state.tokens_out,
            seconds=now - self._began,
            skipped_steps={s.id: s.skipped for s in state.steps.values() if s.skipped},
            first_errors=errors,
            warnings=list(self._source.warnings) if self._source else [],
            error=self._active.error or error,
        )


class LocalNode:
    """The owner of a workspace, inside this process."""

    def __init__(
        self,
        log: EventLog,
        settings: Settings,
        view: View,
        dispatcher: Dispatcher,
        contents: Contents,
        models: dict[str, wiring.LocalModel],
        bench: Bench,
    ) -> None:
        self._bench = bench
        self._log, self._settings, self._view = log, settings, view
        self._dispatcher, self._contents, self._models = dispatcher, contents, models
        self._clock = wiring.SystemClock()

    async def submit(self, asked: Submission) -> LocalRun:
        """Start the run, or go on with the newest unfinished one of the same recipe, params and inputs.

        :raises GxError: if the recipe, the params, the input or a model can't be used; then nothing is written.
        """
        began = self._clock.now()
        plan = parse.plan_recipe(asked.recipe_text, asked.params, file=asked.recipe_file)
        recipe, params = plan.recipe, plan.params
        models = wiring.resolve_models(recipe, self._settings, Path(asked.recipe_folder))
        self._models.update({model.digest: model for model in models.values()})
        source = source_of(asked, plan, self._settings)
        digests = {name: model.digest for name, model in models.items()}
        print_ = fingerprint(recipe, params, digests, asked, source)
        state, is_resumed = await self._take_up(asked, recipe, params, source, print_, began)
        first_seq = self._view.seq
        preparer = Preparer(
            plan,
            state,
            self._contents,
            digests,
            lambda keys: self._log.find_results(keys, before_seq=first_seq),
        )
        rows = take(source.rows(), limit=asked.limit, sample=asked.sample, seed=0) if source is not None else None
        active = ActiveRun(plan, state, preparer, self._contents, rows)
        started = Started(
            run=state.id,
            name=recipe.name,
            is_resumed=is_resumed,
            model=", ".join(recipe.models[name].source for name in models),
            done_before=sum(sum(step.ended.values()) for step in state.steps.values()),
            total=len(state.tasks),
        )
        await self._dispatcher.activate(active)
        sources = {recipe.models[name].source: digest for name, digest in digests.items()}
        return LocalRun(self._dispatcher, active, started, source, began, self._bench.warnings(sources))

    async def _take_up(
        self,
        asked: Submission,
        recipe: Recipe,
        params: dict[str, object],
        source: Source | None,
        print_: str | None,
        now: float,
    ) -> tuple[RunState, bool]:
        """The run's state: the unfinished one of the same fingerprint, resumed, or a new one."""
        deadline_s = asked.deadline_s if asked.deadline_s is not None else recipe.deadline_s
        budget = asked.budget_tokens if asked.budget_tokens is not None else recipe.budget.tokens
        run_id = self._log.newest_run(print_) if print_ is not None and not asked.fresh else None
        if run_id is not None:
            for event in self._log.read(run=run_id):
                fold(self._view, event)
            resumed = e.RunResumed(
                run=run_id,
                deadline_at=now + asked.deadline_s if asked.deadline_s is not None else None,
                budget_tokens=asked.budget_tokens,
            )
            await self._dispatcher.commit([resumed])
            return self._view.runs[run_id], True
        run_id = ids.run_id(asked.name or recipe.name, os.urandom(6))
        text = self._contents.put(asked.recipe_text.encode())
        settled = self._contents.put(ids.canonical(params))
        created = e.RunCreated(
            run=run_id,
            name=asked.name or recipe.name,
            fingerprint=print_ or "",
            recipe=text.digest,
            params=settled.digest,
            file=asked.recipe_file,
            inputs=source.describe() if source is not None else "",
            is_streamed=source is not None and print_ is None,
            fresh=asked.fresh,
            started_at=now,
            deadline_at=now + deadline_s if deadline_s is not None else None,
            budget_tokens=budget,
        )
        await self._dispatcher.commit([created], [text, settled])
        return self._view.runs[run_id], False


def source_of(asked: Submission, plan: Plan, settings: Settings) -> Source | None:
    """The input that was asked for, or the recipe's own; `None` if no step takes rows.

    :raises GxError: if there is none, or it can't be opened.
    """
    if not plan.reads_inputs:
        return None
    spec, base = asked.inputs, Path(asked.folder)
    if spec is None:
        spec, base = plan.recipe.inputs, Path(asked.recipe_folder)
    if spec is None:
        raise UsageError("the recipe takes rows and names no inputs", hint="give them with -i FILE, or -i - for stdin")
    return open_inputs(
        spec, base_dir=base, fmt=asked.input_format, stdin=sys.stdin.buffer, max_row_bytes=settings.max_row_bytes
    )


def fingerprint(
    recipe: Recipe, params: dict[str, object], models: dict[str, str], asked: Submission, source: Source | None
) -> str | None:
    """What makes two submissions the same run; `None` for streamed input without a name, which is always a new one.

    `models` are the digests of their files: another file of the same name makes another run. So does another version
    of gx, since prompts are made by its code; results are reused by key all the same.
    """
    content = source.digest() if source is not None else "none"
    if content is None and asked.name is None:
        return None
    rows = (content or "streamed", asked.input_format, asked.limit, asked.sample)
    made_by = (ids.digest(parse.fingerprint_source(recipe)), params, models, __version__)
    return ids.digest_of(asked.name, *rows, *made_by)


@asynccontextmanager
async def open_node(workspace: Workspace, settings: Settings) -> AsyncIterator[LocalNode]:
    """Own the workspace as long as the block lasts. :raises GxError: if it can't be owned, or its log can't be read."""
    async with AsyncExitStack() as stack:
        log = stack.enter_context(workspace.exclusive(wait_s=2.0))
        view = View()
        for event in log.read(run=""):
            fold(view, event)
        epoch = view.epoch + 1
        contents = Contents(log.blobs)
        models: dict[str, wiring.LocalModel] = {}
        bench = Bench(lambda: wiring.edge_worker(settings, epoch, lambda: list(models.values())))
        dispatcher = Dispatcher(
            log=log,
            view=view,
            contents=contents,
            make_worker=bench.open,
            clock=wiring.SystemClock(),
            epoch=epoch,
        )
        await dispatcher.commit([e.NodeStarted(epoch=epoch, pid=os.getpid(), host=socket.gethostname())])
        async with dispatcher:
            yield LocalNode(log, settings, view, dispatcher, contents, models, bench)
        await dispatcher.commit([*dispatcher.leftovers(), e.NodeStopped(epoch=epoch)])
