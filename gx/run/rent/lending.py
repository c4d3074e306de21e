"""Leases of a run that rents: which of its tasks leave this machine now, which this machine should begin, what of its
slots has nothing to do, and what it then has back.

Invariant: a task that may not travel gets no lease of a container, and each lease stands behind the event of what
leaves with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gx.core import event as e
from gx.core.message import Turn
from gx.core.ports import Worker
from gx.core.terms import REHEARSAL
from gx.run import egress, scheduler
from gx.run.active import ActiveRun
from gx.run.rent.outlook import Here
from gx.run.station import Station


def here(run: ActiveRun, edge: Station) -> Here | None:
    """This machine's bench as a run that rents sees it; None without one."""
    worker: Worker | None = edge.worker
    if worker is None:
        return None
    state, slots = run.state, worker.capacity().slots
    has_work = state.ready or state.unprepared or state.delayed or state.suspects
    is_up = edge.lease() is not None
    return Here(worker.rate(), slots, 0 if has_work or not is_up else max(0, slots - edge.n_held))


def to_begin(run: ActiveRun, edge: Station, at: scheduler.Moment) -> Mapping[str, Turn]:
    """The turns at hand that this machine should begin: all, or what can't be done elsewhere where the containers end
    all that there is before this machine would be done with one task more.
    """
    renter, seen = run.renter, here(run, edge)
    if renter is None or seen is None or not renter.is_outlasted(seen, at.wall):
        return run.turns
    state = run.state
    stays = {*renter.tail.home, *state.suspects}
    return {
        task_id: turn
        for task_id, turn in run.turns.items()
        if task_id in stays or not scheduler.may_travel(state, task_id, run.turns)
    }


def lend(run: ActiveRun, at: scheduler.Moment, granted: Collection[e.Body]) -> list[e.Body]:
    """Leases of the run's rented worker, for other tasks than were `granted` to this machine's in the same batch."""
    if run.renter is None:
        return []
    state, station = run.state, run.renter.station
    lease, free = station.lease(), station.room
    taken = {body.task for body in granted if isinstance(body, e.TaskLeased)}
    if state.concurrency is not None:
        free = min(free, state.concurrency - len(state.leased) - len(taken))
    if lease is None or free <= 0 or run.renter.is_resting:
        return []
    stays = {*taken, *run.renter.tail.home}
    may_go = {
        task_id: turn
        for task_id, turn in run.turns.items()
        if task_id not in stays and scheduler.may_travel(state, task_id, run.turns)
    }
    made = scheduler.decide(state, at.wall, worker=station.name, lease=lease, free=free, at_hand=may_go)
    leased = [body for body in made if isinstance(body, e.TaskLeased) and not body.alone]
    for body in leased:
        run.renter.tail.lent(body.task, at.wall)
    return [*(_leaving(run, body.task) for body in leased), *leased]


def have_back(run: ActiveRun, edge: Station, at: scheduler.Moment) -> None:
    """This machine has nothing to do for the run: have as much back from its rented worker as there is room for."""
    if run.renter is not None and edge.lease() is not None and edge.room > 0:
        run.renter.give_back(edge.room, here(run, edge), at.wall)


def _leaving(run: ActiveRun, task_id: str) -> e.Egress:
    """What of a task is about to leave this machine."""
    task, rent = run.state.tasks[task_id], run.state.rent
    turn = scheduler.own_turn(task, run.turns[task_id])
    to = REHEARSAL if rent is not None and rent.terms.is_rehearsal else "modal"
    read = egress.fields(run.plan, run.state, task)
    return egress.leaving(turn, read, run=run.state.id, task=task_id, attempt=task.attempt, to=to)
