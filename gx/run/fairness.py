"""Who gets the next leases, of several runs: tokens in proportion to their priorities.

Start-time fair queueing (Goyal, Vin and Cheng 1996): each run has a virtual time, the tokens that it was served by its
priority, and the next lease goes to the run whose virtual time is the least. What is leased counts as served at the
mean of the run's tasks. A run that begins to want leases starts at the least virtual time of those that want some, so a
small run gets its share at once, a long one owes nothing for the time when it was alone, and one that could use none
for a while has saved nothing up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gx.core.task import Status
from gx.core.view import RunState

ASSUMED_TOKENS = 500.0
"""What a task takes until one of its run has ended."""


class Fairness:
    """Deals out leases. It remembers each run's virtual time, which goes on at its present priority."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._time = 0.0

    def share(self, free: int, runs: Iterable[RunState], now: float) -> dict[str, int]:
        """How many of `free` leases each of the runs may be granted at the instant `now`, by its id.

        A run gets no more than it can use, and what one can't use goes to the others.
        """
        wanting = {run.id: run for run in runs}
        room = {run_id: _usable(run, now) for run_id, run in wanting.items()}
        times = self._times(wanting, room)
        granted = dict.fromkeys(wanting, 0)
        for _ in range(max(0, free)):
            hungry = [run_id for run_id in wanting if room[run_id] > granted[run_id]]
            if not hungry:
                break
            chosen = min(hungry, key=times.__getitem__)
            granted[chosen] += 1
            times[chosen] += mean_tokens(wanting[chosen]) / wanting[chosen].priority
        return granted

    def _times(self, wanting: Mapping[str, RunState], room: Mapping[str, int]) -> dict[str, float]:
        """Bring the accounts up to now, and give the virtual times."""
        known = self._accounts
        self._accounts = {run_id: known.get(run_id) or _Account(_served(run)) for run_id, run in wanting.items()}
        for run_id, run in wanting.items():
            self._accounts[run_id].serve(_served(run), run.priority)
        going_on = [a.time for run_id, a in self._accounts.items() if a.is_hungry and room[run_id]]
        self._time = min(going_on, default=self._time)
        for run_id, account in self._accounts.items():
            if room[run_id] and not account.is_hungry:
                account.time = max(account.time, self._time)
            account.is_hungry = room[run_id] > 0
        return {run_id: account.time for run_id, account in self._accounts.items()}


class _Account:
    """A run's virtual time, the tokens that it had been served by then, and whether it could use more leases."""

    def __init__(self, served: float) -> None:
        self.time, self.served, self.is_hungry = float("-inf"), served, False

    def serve(self, served: float, priority: float) -> None:
        self.time += (served - self.served) / priority
        self.served = served


def _served(run: RunState) -> float:
    """The tokens that the run had, with those that it is taken to have under way."""
    return run.tokens_in + run.tokens_out + len(run.leased) * mean_tokens(run)


def mean_tokens(run: RunState) -> float:
    """Tokens that a task of the run takes, prompt and answer, at the mean of those that ended."""
    ended = run.count(Status.succeeded) + run.count(Status.failed) - run.reused
    return max(1.0, (run.tokens_in + run.tokens_out) / ended) if ended > 0 else ASSUMED_TOKENS


def _usable(run: RunState, now: float) -> int:
    """How many leases it has tasks for, as `gx.run.scheduler.decide` grants them: a suspect runs alone."""
    if any(task.is_alone for task in run.leased.values()):
        return 0
    waiting = len(run.ready) + sum(not_before <= now for not_before in run.delayed.values())
    if not waiting and not run.leased:
        waiting = min(1, len(run.suspects))
    return waiting if run.concurrency is None else min(waiting, max(0, run.concurrency - len(run.leased)))
