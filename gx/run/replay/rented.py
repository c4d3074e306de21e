"""Simulated containers: they start, pull tasks of one queue while they have room, idle, end, and cost by the second.

A container that is no longer wanted takes nothing more, ends what it has, idles its window and is gone; one that is
wanted again before that goes on. Instants are given; nothing is drawn.

Invariant: a container costs its rate × the seconds from its spawn to its end, loading and idle tail included.
"""

from __future__ import annotations

from collections import deque
from math import inf

from gx.core.task import Offer
from gx.run.replay.engine import Bench, Load
from gx.run.replay.trace import Rental


class Container:
    """One of them, from its spawn on."""

    def __init__(self, rental: Rental, spawned_s: float) -> None:
        self.offer: Offer = rental.offer
        self.spawned_s, self.ready_s = spawned_s, spawned_s + rental.starts_s
        self.bench = Bench(rental.pace, rental.slots, self.ready_s)
        self.idle_s: float | None = None
        self.ended_s: float | None = None
        self.is_wanted = True

    def seconds(self, now_s: float) -> float:
        """Its age, up to its end."""
        return (now_s if self.ended_s is None else min(now_s, self.ended_s)) - self.spawned_s

    @property
    def is_starting(self) -> bool:
        return self.idle_s is None and not self.bench.held

    @property
    def ends_s(self) -> float:
        """When it ends, as things stand: never, while it works or is wanted."""
        return inf if self.idle_s is None or self.is_wanted else self.idle_s + self.offer.window_s


class Pool:
    """The containers of a run, and the tasks that wait for one."""

    def __init__(self, rental: Rental) -> None:
        self._rental, self._slots = rental, rental.slots
        self._all: list[Container] = []
        self._alive: list[Container] = []
        self._waiting: deque[Load] = deque()

    @property
    def alive(self) -> int:
        return len(self._alive)

    @property
    def spawned(self) -> int:
        """How many there ever were."""
        return len(self._all)

    @property
    def running(self) -> int:
        """Tasks that a container has."""
        return sum(one.bench.held for one in self._alive)

    def ready(self, now_s: float) -> int:
        """How many of those alive take tasks by now."""
        return sum(one.ready_s <= now_s for one in self._alive)

    def start_left_s(self, now_s: float) -> float:
        """How long until the next one is ready; 0 if none starts."""
        return min((one.ready_s - now_s for one in self._alive if one.ready_s > now_s), default=0.0)

    def waiting(self) -> list[str]:
        """Tasks that no container has begun, in order."""
        return [load.task for load in self._waiting]

    def seconds(self, now_s: float) -> float:
        """Container-seconds so far, loading and idle tails included."""
        return sum(one.seconds(now_s) for one in self._all)

    def ready_seconds(self, now_s: float) -> float:
        """Those of them after a start."""
        return sum(max(0.0, one.seconds(now_s) - self._rental.starts_s) for one in self._all)

    def cost_usd(self, now_s: float) -> float:
        return self.seconds(now_s) * self._rental.offer.usd_per_s

    def scale(self, number: int, now_s: float) -> None:
        """Have so many containers from now on: wake those that are about to end, spawn, or let the youngest go."""
        for index, one in enumerate(self._alive):
            one.is_wanted = index < number
            if one.idle_s is not None:
                one.idle_s = max(one.idle_s, now_s - one.offer.window_s)  # nobody ends before he is let go
        for _ in range(number - len(self._alive)):
            one = Container(self._rental, now_s)
            self._all.append(one)
            self._alive.append(one)
        self._deal(now_s)

    def room(self) -> int:
        """How many tasks more the containers that are wanted could hold, those that start included."""
        wanted = [one for one in self._alive if one.is_wanted]
        return max(0, sum(self._slots - one.bench.held for one in wanted) - len(self._waiting))

    def submit(self, load: Load, now_s: float) -> None:
        self._waiting.append(load)
        self._deal(now_s)

    def stranded(self) -> list[str]:
        """Tasks that wait for containers of which none is wanted any more."""
        return [] if any(one.is_wanted for one in self._alive) else self.waiting()

    def take_back(self, task: str) -> None:
        """Give up a task that no container has begun."""
        self._waiting = deque(load for load in self._waiting if load.task != task)

    def next_s(self) -> float:
        """The next instant at which a task ends, or a container begins or ends; infinite if none is known."""
        instants = [at_s for one in self._alive if (at_s := one.bench.next_s()) is not None]
        instants += [one.ready_s if one.is_starting else one.ends_s for one in self._alive]
        return min(instants, default=inf)

    def advance(self, to_s: float) -> list[str]:
        """The tasks that end until an instant, up to which nothing else is submitted."""
        ended: list[str] = []
        while (at_s := self.next_s()) <= to_s:
            ended += self._at(at_s)
        return ended + self._at(to_s)

    def _at(self, now_s: float) -> list[str]:
        ended = [task for one in self._alive for task in one.bench.advance(now_s)]
        self._deal(now_s)
        for one in self._alive:
            if now_s >= one.ends_s:
                one.ended_s = one.ends_s
        self._alive = [one for one in self._alive if one.ended_s is None]
        return ended

    def _deal(self, now_s: float) -> None:
        """Tasks that wait go to containers with room, the emptiest first; whoever has none is idle from now on."""
        ready = [one for one in self._alive if one.ready_s <= now_s]
        while self._waiting:
            open_ = [one for one in ready if one.is_wanted and one.bench.held < self._slots]
            if not open_:
                break
            min(open_, key=lambda one: one.bench.held).bench.submit(self._waiting.popleft())
        for one in ready:
            if one.bench.held:
                one.idle_s = None
            elif one.idle_s is None:
                one.idle_s = max(now_s, one.ready_s)
