"""The live runs of a node, by their ids, and who attends to them.

A run that nobody attends to any more, and that was not detached on purpose, gets no grants, and is interrupted if
nobody comes back. One that is over is kept for those who take its results, and forgotten when they have gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from gx.node.attached import LocalRun
from gx.run.dispatcher import Dispatcher

REATTACH_S = 10.0
"""How long a run whose client vanished waits for it."""
TEMPO_EVERY_S = 1.0
"""How often it is looked how far they have come."""


class LiveRuns(Mapping[str, LocalRun]):
    """Those that are live, and those whose clients haven't taken everything.

    What is done beside them, as long as they are served, is started in `group`.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._runs: dict[str, LocalRun] = {}
        self._waits: dict[str, anyio.CancelScope] = {}
        self.group: TaskGroup

    def __repr__(self) -> str:
        return f"<LiveRuns {len(self.live())} live, {len(self._runs)} kept>"

    def __getitem__(self, run_id: str) -> LocalRun:
        return self._runs[run_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def live(self) -> list[str]:
        """The runs that are not over."""
        return [run_id for run_id, run in self._runs.items() if not run.active.is_over]

    def add(self, run: LocalRun) -> None:
        """Keep the run until it is over and nobody watches it. One that isn't over is the dispatcher's by now."""
        self._runs[run.state.id] = run
        if not run.active.is_over:
            self.attend(run)
        self.group.start_soon(self._see_off, run)

    def forget(self, run_id: str) -> None:
        """Keep nothing of it any more; the log does."""
        self.wait_no_longer(run_id)
        self._runs.pop(run_id, None)
        self._dispatcher.view.runs.pop(run_id, None)

    def attend(self, run: LocalRun) -> None:
        """A client came or went. One that leaves a run which goes on as another by now says nothing of that one."""
        run_id = run.state.id
        if self._runs.get(run_id) is not run:
            return
        self.wait_no_longer(run_id)
        self._dispatcher.attend(run_id, is_attended=run.is_attended)
        if run.active.is_over and not run.n_clients:
            self._let_go(run)
        elif not run.active.is_over and not run.is_attended:
            wait = self._waits[run_id] = anyio.CancelScope()
            self.group.start_soon(self._wait_for_client, run, wait)

    def wait_no_longer(self, run_id: str) -> None:
        """Whether or not a client comes back, the run isn't interrupted for it."""
        if (wait := self._waits.pop(run_id, None)) is not None:
            wait.cancel()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Keep time and look after runs as long as the block lasts."""
        async with anyio.create_task_group() as group:
            self.group = group
            group.start_soon(self._keep_time)
            yield
            group.cancel_scope.cancel()

    async def _wait_for_client(self, run: LocalRun, scope: anyio.CancelScope) -> None:
        """Give a client that vanished the time to come back."""
        with scope:
            await anyio.sleep(REATTACH_S)
            if not run.is_attended:  # somebody may have said since that it needs no client
                run.drain("its client went away", "")

    async def _see_off(self, run: LocalRun) -> None:
        """Clear up once the run is over and nobody watches it."""
        await run.active.results.ended()
        if run.upload is not None:
            run.upload.refuse()
        if not run.had_client and not run.state.is_detached:
            await anyio.sleep(REATTACH_S)  # its client is on its way
        if not run.n_clients:
            self._let_go(run)

    def _let_go(self, run: LocalRun) -> None:
        """Forget it, unless it goes on meanwhile as another."""
        if self._runs.get(run.state.id) is run:
            self.forget(run.state.id)

    async def _keep_time(self) -> None:
        while True:
            for run in self._runs.values():
                run.tempo.saw(run.progress())
            await anyio.sleep(TEMPO_EVERY_S)
