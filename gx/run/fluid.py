"""When work will be done if it flowed like water: seconds and tokens, without tasks, slots or luck.

Pure arithmetic over flows: a machine does so many tokens a second from an instant on, and until another one. The method
is the fluid approximation of a queue (Kleinrock, Queueing Systems II, 1976, chapter 2): it is a bound from below, and
close where there are many more tasks than slots. Instants are seconds from now.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import inf
from typing import NamedTuple


class Flow(NamedTuple):
    """So many tokens a second from `since_s` until `until_s`."""

    tokens_per_s: float
    since_s: float = 0.0
    until_s: float = inf


def finish_s(tokens: float, flows: Sequence[Flow]) -> float:
    """The instant at which the flows have done so many tokens; infinite where they never do."""
    if tokens <= 0:
        return 0.0
    moments = sorted({0.0, *(flow.since_s for flow in flows), *(flow.until_s for flow in flows)})
    for begin_s, end_s in zip(moments, [*moments[1:], inf], strict=True):
        pace = sum(flow.tokens_per_s for flow in flows if flow.since_s <= begin_s < flow.until_s)
        if pace > 0 and begin_s + tokens / pace <= end_s:
            return begin_s + tokens / pace
        tokens -= pace * (end_s - begin_s) if pace > 0 else 0.0
    return inf


class Work(NamedTuple):
    """A task that comes at an instant: its seconds of the full edge, or of a full container."""

    at_s: float
    edge_s: float
    rented_s: float


class Bound(NamedTuple):
    """What containers a lower bound may rent: they begin after a cold start, idle a window before they end, and cost by
    the second; at most so many at once, each with its reservation beside what is spent of the cap.
    """

    usd_per_s: float
    cold_start_s: float
    window_s: float
    containers: int
    cap_usd: float = inf
    reserve_usd: float = 0.0

    def alive_s(self, until_s: float, number: int) -> float:
        """The most container-seconds that so many may have until an instant: as many at each moment as there are
        reservations for beside what was spent. Containers are whole, so their number falls in steps.
        """
        if not self.reserve_usd or self.cap_usd == inf:
            return inf
        now_s = alive_s = 0.0
        for n in range(number, 0, -1):
            room_s = (self.cap_usd - n * self.reserve_usd) / self.usd_per_s - alive_s
            step_s = min(until_s - now_s, max(0.0, room_s) / n)
            now_s, alive_s = now_s + step_s, alive_s + n * step_s
        return alive_s


def lower_bound_s(tasks: Sequence[Work], rented: Bound, usd: float) -> float:
    """The least makespan of tasks, by any policy that spends no more than `usd` and keeps the rule of the cap.

    What comes from an instant on can't be done before it, nor by more than the edge and what the money rents from then
    on, be the tasks cut as one likes and each part done where it gains most. Only containers for the first instant have
    to start, and pay for that and for their end; those for a later one may be there already, which keeps the bound a
    bound.
    """
    first_s, least = min((task.at_s for task in tasks), default=0.0), 0.0
    for at_s in sorted({task.at_s for task in tasks}):
        later = [task for task in tasks if task.at_s >= at_s]
        machines = rented if at_s == first_s else rented._replace(cold_start_s=0.0, window_s=0.0, cap_usd=inf)
        least = max(least, at_s + min(_least_s(later, machines, n, usd) for n in range(machines.containers + 1)))
    return least


def _least_s(tasks: Sequence[Work], rented: Bound, number: int, usd: float) -> float:
    """The shortest time in which the edge and so many containers, for so much money, can do those tasks."""
    gaining = sorted(tasks, key=lambda task: task.rented_s / task.edge_s)
    rented_s = list(accumulate((task.rented_s for task in gaining), initial=0.0))
    spared_s = list(accumulate((task.edge_s for task in gaining), initial=0.0))
    bought_s = max(0.0, usd / rented.usd_per_s - number * (rented.cold_start_s + rented.window_s))
    low, high = 0.0, spared_s[-1]
    for _ in range(50):
        middle = (low + high) / 2
        there_s = min(number * max(0.0, middle - rented.cold_start_s), bought_s)
        there_s = min(there_s, max(0.0, rented.alive_s(middle, number) - number * rented.cold_start_s))
        left_s = spared_s[-1] - _at(there_s, rented_s, spared_s)
        low, high = (low, middle) if middle >= left_s else (middle, high)
    return high


def _at(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """The broken line through those points, flat after its end."""
    index = bisect_right(xs, x)
    if index == len(xs):
        return ys[-1]
    share = (x - xs[index - 1]) / (xs[index] - xs[index - 1])
    return ys[index - 1] + share * (ys[index] - ys[index - 1])
