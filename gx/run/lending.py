"""Leases for containers: which of a run's tasks leave this machine now, and what of them.

Invariant: a task that may not travel gets none, and each lease stands behind the event of what leaves with it.
"""

from __future__ import annotations

from collections.abc import Collection

from gx.core import event as e
from gx.run import egress, scheduler
from gx.run.active import ActiveRun
from gx.run.station import Station


def lend(run: ActiveRun, station: Station, at: scheduler.Moment, granted: Collection[str]) -> list[e.Body]:
    """Leases of the run's rented worker, for tasks that were not `granted` to this machine's in the same batch."""
    state, lease, free = run.state, station.lease(), station.room
    if state.concurrency is not None:
        free = min(free, state.concurrency - len(state.leased) - len(granted))
    if lease is None or free <= 0:
        return []
    may_go = {
        task_id: turn
        for task_id, turn in run.turns.items()
        if task_id not in granted and scheduler.may_travel(state, task_id, run.turns)
    }
    made = scheduler.decide(state, at.wall, worker=station.name, lease=lease, free=free, at_hand=may_go)
    leased = [body for body in made if isinstance(body, e.TaskLeased) and not body.alone]
    return [*(_leaving(run, body.task) for body in leased), *leased]


def _leaving(run: ActiveRun, task_id: str) -> e.Egress:
    """What of a task is about to leave this machine."""
    task, rent = run.state.tasks[task_id], run.state.rent
    turn = scheduler.own_turn(task, run.turns[task_id])
    to = "rehearsal" if rent is not None and rent.terms.is_rehearsal else "modal"
    read = egress.fields(run.plan, run.state, task)
    return egress.leaving(turn, read, run=run.state.id, task=task_id, attempt=task.attempt, to=to)
