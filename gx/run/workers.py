"""The workers that live runs have: this machine's, for all of them, and the one that a run may rent for itself.

It knows whose an attempt is: there it is handed out, cancelled, and heard of. Which task is leased to whom was decided
before, by `gx.run.scheduler` and `gx.run.rent.lending`; what follows from what is heard is `gx.run.settling`'s.
Invariant: an attempt is handed out only while the worker is bound by the lease that was committed for it.
"""

from __future__ import annotations

from collections.abc import Collection

from gx.core import event as e
from gx.core.task import CloudLease
from gx.core.view import TaskState
from gx.run import outcomes, scheduler
from gx.run.active import ActiveRun
from gx.run.rent import lending
from gx.run.rent.renter import Renter
from gx.run.settling import Settling
from gx.run.station import Station


class Workers:
    """The worker at `edge`, and those that live runs rent."""

    def __init__(self, edge: Station, settling: Settling) -> None:
        self._edge, self._settling = edge, settling

    # ── before a commit ──────────────────────────────────────────────────────────────────────────────────────────

    def hear(self, live: Collection[ActiveRun], at: scheduler.Moment, blobs: list[e.Blob]) -> tuple[list[e.Body], int]:
        """What follows from what they said since, and how many leases of this machine's may be granted then.

        What is kept of it is put to `blobs`.
        """
        edge, bodies = self._edge, list[e.Body]()
        inbox, edge.inbox = edge.inbox, []
        for event in inbox:
            bodies.extend(self._settling.follow(edge, event, at, blobs))
        for run in live:
            if run.renter is not None:
                bodies.extend(self._hear_rented(run, run.renter, at, blobs))
        states = (run.state for run in live)
        free = min(edge.room, scheduler.free_leases(edge.leases or 0, states, inbox))
        return bodies, max(0, free)  # a model may turn out to have less room than it was granted leases

    def _hear_rented(self, run: ActiveRun, renter: Renter, at: scheduler.Moment, blobs: list[e.Blob]) -> list[e.Body]:
        """What follows from what a run rents, and from the time."""
        station, bodies = renter.station, list[e.Body]()
        inbox, station.inbox = station.inbox, []
        for event in inbox:
            bodies.extend(self._settling.follow(station, event, at, blobs))
            bodies.extend(renter.settle(event))
        if missing := renter.came_up(run.turns):
            run.turns.update(run.preparer.prepare(task_id for task_id, _ in missing).turns)
            bodies.extend(renter.lose(renter.came_up(run.turns), "its node ended before it was begun"))
        may_begin = run.draining is None and not run.is_held_up
        bodies.extend(renter.move(at.wall, lending.here(run, self._edge), may_begin=may_begin))
        return bodies

    # ── after a commit ───────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, run: ActiveRun, leased: e.TaskLeased) -> list[e.Body]:
        """Hand out what was leased; what is to be committed where that can't be any more."""
        task = run.state.tasks[leased.task]
        if run.is_given_up:  # while this lease was on its way into the log
            return outcomes.give_up(run.state, [task])
        turn = scheduler.turn_of(task, leased, run.turns[leased.task])
        renter = run.renter if run.renter is not None and leased.worker == run.renter.station.name else None
        station = self._edge if renter is None else renter.station
        if turn is not None and station.lease() == leased.lease:
            station.submit(turn)
        elif turn is not None and renter is not None:
            return renter.lose([(leased.task, leased.attempt)], "nothing is rented any more")
        return []

    def cancel(self, run: ActiveRun, tasks: Collection[TaskState]) -> None:
        """End the attempts of these tasks, which are leased."""
        for task in tasks:
            if run.renter is not None and isinstance(task.lease, CloudLease):
                run.renter.cancel(task.id, task.attempt)
            else:
                self._edge.cancel(task.id, task.attempt)
