"""What goes on beside the loop while a run is live: all that takes its time, and that the loop doesn't wait for.

Its input is read, its reduces are cut into groups, the memory is searched for its tasks, their long fields are looked
through, and a worker that it rents is kept up. This file decides nothing: what was found is put to what is pending, for
the loop to commit. Invariant: what goes wrong for one run, be it a bug, ends that run at the most, and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import anyio
from anyio.abc import TaskGroup

from gx.core import event as e
from gx.core.errors import GxError, ours
from gx.core.ports import Landlord
from gx.flow import graph
from gx.flow.privacy import private_fields
from gx.run import feeder, grouping, scheduler
from gx.run.active import ActiveRun
from gx.run.contents import Contents
from gx.run.inputs import Row
from gx.run.pending import Pending
from gx.run.rent.renter import Renter
from gx.run.station import Station


class Beside:
    """Begins such tasks, in `group`. Groups are measured by the worker at `edge`; `landlord`, if any, rents out.

    `on_failure` is told which run can't go on, and why.
    """

    def __init__(
        self,
        group: TaskGroup,
        pending: Pending,
        contents: Contents,
        edge: Station,
        landlord: Landlord | None,
        *,
        on_failure: Callable[[ActiveRun, GxError], None],
    ) -> None:
        self._group, self._pending, self._contents = group, pending, contents
        self._edge, self._landlord, self._on_failure = edge, landlord, on_failure

    def begin(self, run: ActiveRun, now: float) -> None:
        """Begin all of it for a run, at the wall-clock instant `now`."""
        ring, looks = self._pending.ring, run.preparer.looks
        self.rent(run, now)
        run.results.on_room = ring
        if run.rows is not None and not run.state.inputs_ended:
            self._group.start_soon(self._feed, run, run.rows)
        self.cut(run)
        self._group.start_soon(run.preparer.recalls.serve, run.over, ring)
        looks.bench = self._edge.settled
        self._group.start_soon(looks.serve, run.over, ring)

    # ── its input ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _feed(self, run: ActiveRun, rows: Iterator[Row]) -> None:
        async def commit(bodies: list[e.Body], blobs: list[e.Blob]) -> bool:
            while run.draining is None and (
                self._pending.is_full
                or run.has_rows_enough
                or self._contents.is_outrun_by(len(run.state.unprepared) + len(run.state.parked))
            ):
                await self._pending.taken()
            if run.draining is not None:  # an input without end would keep it from ending
                return False
            run.rows_given += sum(len(body.rows) for body in bodies if isinstance(body, e.InputsRead))
            self._pending.put(bodies, blobs)
            return True

        try:
            await feeder.feed(run.state, rows, self._contents, commit, private=private_fields(run.plan.recipe))
        except Exception as error:  # noqa: BLE001  whatever one input does to us, the other runs go on
            self._on_failure(run, ours(error))

    # ── its reduces ──────────────────────────────────────────────────────────────────────────────────────────────

    def cut(self, run: ActiveRun) -> None:
        """Cut the levels that have all their items by now, each once."""
        for wanted in graph.groupings(run.plan, run.state):
            if (wanted.step, wanted.level) not in run.is_grouping:
                run.is_grouping.add((wanted.step, wanted.level))
                self._group.start_soon(self._cut, run, wanted)

    async def _cut(self, run: ActiveRun, wanted: graph.Grouping) -> None:
        """Cut one level of a reduce into groups that fit the model's context."""
        worker = await self._edge.settled()
        if worker is None:
            return
        try:
            spans = await grouping.cut(run.plan, run.preparer, wanted, worker)
        except Exception as error:  # noqa: BLE001  as of an input: it ends this run, and no other
            self._on_failure(run, ours(error))
            return
        self._pending.put([e.StepGrouped(run=run.state.id, step=wanted.step, level=wanted.level, spans=spans)])

    # ── what it rents ────────────────────────────────────────────────────────────────────────────────────────────

    def rent(self, run: ActiveRun, now: float) -> None:
        """Where the run has terms on which it may rent, see to it, once."""
        rent = run.state.rent
        if rent is None or run.renter is not None or self._landlord is None:
            return

        def may_travel(task_id: str) -> bool:
            return scheduler.may_travel(run.state, task_id, run.turns)

        on_news = self._pending.ring
        run.renter = Renter(run.state, rent, self._landlord, may_travel=may_travel, on_news=on_news, now=now)
        self._group.start_soon(self._keep_rented, run, run.renter)

    async def _keep_rented(self, run: ActiveRun, renter: Renter) -> None:
        """Keep the run's rented worker up until the run is over; leaving it ends what is under way there."""
        async with anyio.create_task_group() as group:
            group.start_soon(renter.station.serve)
            await run.over.wait()
            group.cancel_scope.cancel()
