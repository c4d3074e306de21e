"""Who gets the next leases, of several runs: tokens in proportion to their priorities.

Start-time fair queueing (Goyal, Vin and Cheng 1996): each run has a virtual time, the tokens that it was served by its
priority, and the next lease goes to the run whose virtual time is the least. What is leased counts as served at the
mean of the run's tasks. A run that joins begins at the least virtual time of those that are there, so a small run gets
its share at once, and a long one owes nothing for the time when it was alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from gx.core.task import Status
from gx.core.view import RunState

ASSUMED_TOKENS = 500.0
"""What a task takes until one of its run has ended."""


class Fairness:
    """Deals out leases. It remembers since when each run takes part."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}

    def share(self, free: int, runs: Iterable[RunState]) -> dict[str, int]:
        """How many of `free` leases each of the runs may be granted now, by its id; only what it can use."""
        wanting = {run.id: run for run in runs}
        self._began = {run_id: began for run_id, began in self._began.items() if run_id in wanting}
        times = {run_id: _served(run) - self._began[run_id] for run_id, run in wanting.items() if run_id in self._began}
        least = min(times.values(), default=0.0)
        for run_id, run in wanting.items():
            if run_id not in times:
                self._began[run_id] = _served(run) - least
                times[run_id] = least
        granted = dict.fromkeys(wanting, 0)
        room = {run_id: _usable(run) for run_id, run in wanting.items()}
        for _ in range(max(0, free)):
            hungry = [run_id for run_id in wanting if room[run_id] > granted[run_id]]
            if not hungry:
                break
            chosen = min(hungry, key=times.__getitem__)
            granted[chosen] += 1
            times[chosen] += _mean_tokens(wanting[chosen]) / wanting[chosen].priority
        return granted


def _served(run: RunState) -> float:
    """The run's virtual time, in tokens by its priority."""
    return (run.tokens_in + run.tokens_out + len(run.leased) * _mean_tokens(run)) / run.priority


def _mean_tokens(run: RunState) -> float:
    ended = run.count(Status.succeeded) + run.count(Status.failed) - run.reused
    return max(1.0, (run.tokens_in + run.tokens_out) / ended) if ended > 0 else ASSUMED_TOKENS


def _usable(run: RunState) -> int:
    """How many leases it has tasks for."""
    waiting = len(run.ready) + len(run.delayed) + len(run.suspects)
    return waiting if run.concurrency is None else min(waiting, max(0, run.concurrency - len(run.leased)))
