"""A live run as its clients have it: what they see of it, how it stands, and what they may have it do.

A run is attended to while a client takes its results, or if it was detached on purpose. Once it is over, nothing that
is asked of it changes anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import msgspec

from gx.core import event as e
from gx.core.view import RunState
from gx.node.client import Progress, RunEnd, Started
from gx.node.delivery import RunTelemetry
from gx.node.standing import continuations, end_of, progress_of
from gx.node.tempo import Tempo
from gx.node.upload import Upload
from gx.run.active import ActiveRun
from gx.run.dispatcher import Dispatcher
from gx.run.inputs import Source
from gx.run.record import Record
from gx.run.scheduler import LastWord


class LocalRun:
    """A live run: its results as they come, how it stands, how it ended.

    The dispatcher drives it. `now` is the wall clock, `on_clients` hears of each client that comes or goes, `warnings`
    say what makes its models slow here. It `is_offline` if whoever asked for it is: nothing of it leaves this machine.
    """

    def __init__(
        self,
        active: ActiveRun,
        dispatcher: Dispatcher,
        started: Started,
        source: Source | None,
        upload: Upload | None,
        *,
        now: Callable[[], float],
        on_clients: Callable[[LocalRun], None],
        warnings: Callable[[], AsyncIterator[str]],
        is_offline: bool = False,
    ) -> None:
        self.started, self.active, self.upload, self.warnings = started, active, upload, warnings
        self.is_offline = is_offline
        self._dispatcher, self._source, self._now, self._on_clients = dispatcher, source, now, on_clients
        self._began = now()
        self.n_clients = 0
        self.had_client = self._is_greeted = False
        self.tempo = Tempo()
        self.telemetry: RunTelemetry | None = None

    def __repr__(self) -> str:
        return f"<LocalRun {self.started.run} {self.n_clients} clients>"

    @property
    def state(self) -> RunState:
        return self.active.state

    @contextmanager
    def watch(self, *, is_ordered: bool = False, with_input: bool = True) -> Iterator[AsyncIterator[list[Record]]]:
        """The output step's results, as they come or in the rows' order; while the block lasts, somebody attends."""
        self.n_clients, self.had_client = self.n_clients + 1, True
        self._on_clients(self)
        try:
            rows = self.active.rows_in_order() if is_ordered else None
            with self.active.results.watch(rows, with_input=with_input) as chunks:
                yield chunks
        finally:
            self.n_clients -= 1
            self._on_clients(self)

    @property
    def is_attended(self) -> bool:
        """Whether anybody wants it to go on."""
        return self.n_clients > 0 or self.state.is_detached

    @property
    def is_ending(self) -> bool:
        """Whether it is live, and begins nothing more: when what is running has ended, so has it."""
        return not self.active.is_over and self.active.draining is not None

    @property
    def is_wanted_by_others(self) -> bool:
        """Whether it goes on when one of its clients leaves."""
        return self.n_clients > 1 or self.state.is_detached

    def greet(self) -> Started:
        """What a client hears first: the first one, or one that joins."""
        first, self._is_greeted = not self._is_greeted, True
        if first:
            return self.started
        done = sum(sum(step.ended.values()) for step in self.state.steps.values())
        return msgspec.structs.replace(self.started, is_resumed=True, done_before=done, total=len(self.state.tasks))

    def progress(self) -> Progress:
        """How the run stands."""
        now = progress_of(self.state, self.active.plan, elapsed_s=self._now() - self._began)
        is_held = self.state.is_paused and not self.active.is_over and not self.is_ending
        paused = (f"it is paused, and goes on with: gx resume {self.state.id}",) if is_held else ()
        return msgspec.structs.replace(now, notes=(*paused, *now.notes, *self.active.preparer.looks.notes))

    def end(self) -> RunEnd:
        """How the run ended."""
        return end_of(
            self.state,
            self.active.plan,
            seconds=self._now() - self._began,
            reason=getattr(self.active.draining, "reason", ""),
            warnings=[
                *(self._source.warnings if self._source else ()),
                *self.active.preparer.recalls.notes,
                *(self.telemetry.notes if self.telemetry else ()),
            ],
            error=self.active.error,
        )

    # ── what it is asked to do ───────────────────────────────────────────────────────────────────────────────────

    def drain(self, reason: str, by: str) -> None:
        """Let what is running end, then interrupt the run."""
        if not self.active.is_over:
            self._dispatcher.drain(self.state.id, reason, by)

    def stop(self, last: LastWord) -> None:
        """End it now."""
        if not self.active.is_over:
            self._dispatcher.stop(last)

    def cancel_tasks(self, tasks: list[str], reason: str, by: str) -> None:
        """End some of its tasks."""
        if not self.active.is_over:
            self._dispatcher.cancel(self.state.id, reason, by=by, tasks=tasks)

    def requeue(self, tasks: list[str], by: str) -> None:
        """Take tasks back from the workers; they run anew."""
        if not self.active.is_over:
            self._dispatcher.requeue(self.state.id, tasks, by)

    def change(self, body: e.RunPaused | e.RunContinued | e.RunChanged) -> None:
        """Pause it, let it go on, or change its limits."""
        if not self.active.is_over:
            self._dispatcher.change(body)

    def steer(self, bodies: list[e.Body]) -> None:
        """Change what it does, in one commit."""
        if not self.active.is_over:
            self._dispatcher.steer(bodies)

    def unpause(self, by: str) -> None:
        """Let it, and the steps of it that are paused, go on."""
        self.steer(continuations(self.state, by))
