"""A desk for tests: a real log, dispatcher and recipe, with a scripted worker in the bench's place."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gx.core import event as e
from gx.core.ports import Memory
from gx.core.projection import fold
from gx.core.view import RunState, View
from gx.flow import parse
from gx.flow.params import resolve_params
from gx.flow.plan import make_plan
from gx.run.active import ActiveRun
from gx.run.contents import Contents
from gx.run.dispatcher import Dispatcher
from gx.run.inputs import Row
from gx.run.log import EventLog
from gx.run.prepare import Preparer
from gx.run.record import Record
from tests.fakes import ManualClock, ScriptedLandlord, ScriptedWorker


def rows_of(items: list[Any]) -> Iterator[Row]:
    """Rows as an input would give them; an item that is an exception is a bad row. All of them are there at once."""
    return iter([_row(index, item) for index, item in enumerate(items)])


def _row(index: int, item: Any) -> Row:
    if isinstance(item, Exception):
        return Row(index=index, line=index + 1, id=str(index), value=None, error=str(item), is_batch=False)
    value = json.dumps(item).encode()
    return Row(index=index, line=index + 1, id=str(item.get("id", index)), value=value, error=None, is_batch=False)


class Desk:
    """Runs recipes against a log in `folder`; a new one on the same folder is a restart."""

    def __init__(
        self,
        log: EventLog,
        dispatcher: Dispatcher,
        view: View,
        contents: Contents,
        worker: ScriptedWorker,
        clock: ManualClock,
        memory: Memory | None = None,
    ):
        self.log, self.dispatcher, self.view, self.contents = log, dispatcher, view, contents
        self.worker, self.clock, self.memory = worker, clock, memory

    async def begin(
        self,
        recipe: str,
        items: list[Any] | Iterator[Row] = (),
        *,
        run: str = "r",
        reads_stream: bool = False,
        **created: Any,
    ) -> ActiveRun:
        """Create the run `run`, or resume it if the log has it."""
        parsed = parse.parse_recipe(recipe)
        plan = make_plan(parsed, resolve_params(parsed, {}))
        started = self.view.seq
        if self.log.has_run(run):
            for event in self.log.read(run=run):
                fold(self.view, event)
            await self.dispatcher.commit([e.RunResumed(run=run, **created)])
        else:
            made = e.RunCreated(run=run, name=parsed.name, fingerprint=run, recipe="", params="", **created)
            await self.dispatcher.commit([made])
        state = self.view.runs[run]
        models = {name: f"sha-{name}" for name in parsed.models}
        preparer = Preparer(
            plan,
            state,
            self.contents,
            models,
            lambda keys: self.log.find_results(keys, before_seq=started),
            memory=self.memory,
        )
        rows = items if not isinstance(items, list) else rows_of(items)
        given = rows if plan.reads_inputs else None
        active = ActiveRun(plan, state, preparer, self.contents, given, reads_stream=reads_stream)
        await self.dispatcher.activate(active)
        return active

    async def finish(self, active: ActiveRun) -> list[Record]:
        """All records of the run, when it is over."""
        records: list[Record] = []
        with active.results.watch() as chunks:
            async for chunk in chunks:
                records.extend(chunk)
        return records

    async def run(
        self, recipe: str, items: list[Any] | Iterator[Row] = (), **created: Any
    ) -> tuple[RunState, list[dict[str, Any]]]:
        """The run's last state and its records as they are printed."""
        active = await self.begin(recipe, items, **created)
        records = await self.finish(active)
        return active.state, [record.as_dict() for record in records]

    def wake(self) -> None:
        """Have the loop look what is so by now: the clock says nothing when it was moved."""
        self.dispatcher._pending.ring()

    def bodies(self, kind: type | None = None) -> list[Any]:
        """The bodies in the log, of one kind or all."""
        return [event.body for event in self.log.read() if kind is None or isinstance(event.body, kind)]


@asynccontextmanager
async def open_desk(
    folder: Path,
    worker: ScriptedWorker | None = None,
    clock: ManualClock | None = None,
    landlord: ScriptedLandlord | None = None,
    memory: Memory | None = None,
) -> AsyncIterator[Desk]:
    """A desk over the log in `folder`, in an epoch of its own."""
    worker, clock = worker or ScriptedWorker(), clock or ManualClock()
    log = EventLog.open(folder)
    try:
        view = View()
        for event in log.read(run=""):
            fold(view, event)
        worker.epoch = view.epoch + 1
        contents = Contents(log.blobs, log.sizes)
        dispatcher = Dispatcher(
            log=log,
            view=view,
            contents=contents,
            make_worker=lambda: worker,
            clock=clock,
            epoch=worker.epoch,
            landlord=landlord,
        )
        await dispatcher.commit([e.NodeStarted(epoch=worker.epoch, pid=0)])
        async with dispatcher:
            yield Desk(log, dispatcher, view, contents, worker, clock, memory)
    finally:
        log.close()
