"""The tail of a run that rents: what containers have and this machine would end sooner, and what it should not begin.

The rule is placement's (`taken_back`, `edge_may_take`); here are the figures for it: since when containers have what
they have, and when each of them will be done there. A task that came home, taken back or since a container could not do
it, stays here: it is not lent again on the same terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from gx.core.task import CloudLease
from gx.core.view import RunState
from gx.run import placement
from gx.run.placement import Verdict

WORTH = 1.25
"""How many times as long it must take there: what a container has done of it is paid for and lost."""
LEAST_START_S = 1.0
"""What a start is taken to need yet that took longer than usual."""
LIVELY_S = 60.0
"""How long after their last answer containers are counted on for the end: a dead one would hold it up."""


class There(NamedTuple):
    """How it goes in the containers: a task takes `task_s` there, so many run `at_once`, as soon as one is up.

    That is in `start_s`; 0 since `up_since_s`, where one is up already. `heard_s` is when one gave an answer.
    """

    task_s: float
    at_once: int
    start_s: float = 0.0
    up_since_s: float = -inf
    heard_s: float = -inf


class Taken(NamedTuple):
    """An attempt to be taken back, and why, in words."""

    task: str
    attempt: int
    reason: str


class Tail:
    """What is known of one run's tail in this process."""

    def __init__(self) -> None:
        self.home: set[str] = set()
        """The tasks that were taken back, or that a container could not do, on the terms in force."""
        self._since: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Tail: {len(self._since)} lent, {len(self.home)} taken back>"

    def lent(self, task: str, now: float) -> None:
        """A task went to the containers at that instant."""
        self._since[task] = now

    def ended(self, task: str) -> None:
        """A task is over, wherever it was done."""
        self._since.pop(task, None)
        self.home.discard(task)

    def taken(self, run: RunState, there: There, *, free: int, edge_task_s: float, now: float) -> list[Taken]:
        """What this machine, which has room for so many and nothing else to do, should have back: at most `free`."""
        rented = [task for task in run.leased.values() if isinstance(task.lease, CloudLease)]
        since = [(task.id, self._since.setdefault(task.id, now)) for task in rented]
        waits = sorted(ends_s(since, there, now), key=lambda wait: wait[1])
        chosen = placement.taken_back(
            [(task, left_s / WORTH) for task, left_s in waits], free=free, edge_task_s=edge_task_s
        )
        self.home.update(chosen)
        left = dict(waits)
        return [Taken(one, run.tasks[one].attempt, _why(edge_task_s, left[one], there)) for one in chosen]


def _why(edge_task_s: float, left_s: float, there: There) -> str:
    which = "a container that starts" if there.start_s > 0 else "the containers"
    return f"taken back: this machine needs about {edge_task_s:.0f} s for it, {which} {left_s:.0f} s"


def outlasts(verdict: Verdict | None, there: There, *, edge_task_s: float, now: float) -> bool:
    """Whether a task that this machine began now would hold up the end, while containers that answer have room for it.

    `verdict` is placement's of this moment; a burst that was asked for by hand has no end that it expects, and this
    machine takes part all the same.
    """
    is_lively = there.start_s <= 0 and now - there.heard_s <= max(LIVELY_S, 2 * there.task_s)
    if verdict is None or verdict.finish_s <= 0:
        return False
    return not placement.edge_may_take(edge_task_s, verdict, containers_ready=int(is_lively))


def ends_s(since: Sequence[tuple[str, float]], there: There, now: float) -> list[tuple[str, float]]:
    """In how many seconds containers will be done with each of the tasks, which they have since those instants.

    The first of them run, the others wait. What has taken longer than expected is expected to take as long again.
    """
    found: list[tuple[str, float]] = []
    for index, (task, at) in enumerate(since):
        wave = index // max(1, there.at_once)
        age_s = now - max(at, there.up_since_s)
        if there.start_s > 0 or wave:
            left_s = there.start_s + there.task_s * (1 + wave)
        else:
            left_s = there.task_s - age_s if age_s < there.task_s else age_s
        found.append((task, left_s))
    return found
