"""How many leases of this machine's worker each live run may be granted now.

By tokens and priority that is `gx.run.fairness`'. Beside it stands what one run can't know of the others: a task that
was lost too often runs alone, so it waits until no run has any lease on this machine, and then nobody else gets one.
Invariant: while such a task runs, no other does; else each could be blamed for what the other did.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from gx.core.task import EdgeLease
from gx.run import scheduler
from gx.run.active import ActiveRun
from gx.run.fairness import Fairness


class Shares(NamedTuple):
    """Leases by run, none for one that isn't named. `alone` is the run that may have a task run alone; empty: none."""

    leases: Mapping[str, int]
    alone: str = ""


def share(fairness: Fairness, live: Collection[ActiveRun], free: int, now: float) -> Shares:
    """Deal out `free` leases at the wall-clock instant `now`."""
    leased = [t for run in live for t in run.state.leased.values() if isinstance(t.lease, EdgeLease)]
    if any(task.is_alone for task in leased):
        return Shares({})
    runs = {run.state.id: run for run in live if not run.is_held_up and run.draining is None}
    states = [run.state for run in runs.values()]
    lonely = {n for n, run in runs.items() if scheduler.wants_to_be_alone(run.state, now, run.turns)}
    if lonely:
        first = next((name for name, n in fairness.share(min(1, free), states, now).items() if n), "")
        if first in lonely:
            return Shares({}) if leased else Shares({first: 1}, first)
    return Shares(fairness.share(free, states, now))
