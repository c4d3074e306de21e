"""A simulated bench: slots, prompts that are prefilled in their order, and rounds of all that write.

It knows a pace and instants that it is given; it draws nothing and reads no clock. Between two ends nothing changes but
how far everybody is, so it goes from end to end: a job costs a few steps, however many tokens it has.

Invariant: time never passes twice. `next_s` is the first instant at which a job ends, if nothing is submitted before.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import NamedTuple

from gx.run.replay.line import Pace


class Load(NamedTuple):
    """What a task asks of a bench: prompt tokens that must be computed, and tokens that it writes."""

    task: str
    tokens_in: float
    tokens_out: float


class Bench:
    """A bench with `slots`, from the instant `now_s` on. What doesn't fit waits within it, in order."""

    def __init__(self, pace: Pace, slots: int, now_s: float = 0.0) -> None:
        self._pace, self.slots, self._now_s = pace, slots, now_s
        self._waiting: deque[Load] = deque()
        self._prompts: deque[tuple[Load, float]] = deque()  # with the seconds of each
        self._writing: list[tuple[float, int, str]] = []  # by the round in which they end
        self._rounds, self._count = 0.0, 0

    @property
    def waiting(self) -> int:
        """How many tasks it has that wait for a slot."""
        return len(self._waiting)

    @property
    def held(self) -> int:
        """How many tasks it has, those that wait included."""
        return len(self._waiting) + self.running

    @property
    def running(self) -> int:
        """How many of them have a slot."""
        return len(self._prompts) + len(self._writing)

    def submit(self, load: Load) -> None:
        """Take a task at the present instant."""
        self._waiting.append(load)
        self._admit()

    def next_s(self) -> float | None:
        """The first instant at which something changes; `None` while it is idle."""
        if self._prompts:
            return self._now_s + self._prompts[0][1]
        if self._writing:
            return self._now_s + max(0.0, self._writing[0][0] - self._rounds) * self._pace.round_s(len(self._writing))
        return None

    def advance(self, to_s: float) -> list[str]:
        """The tasks that end until that instant, in order."""
        ended: list[str] = []
        while (at_s := self.next_s()) is not None and at_s <= to_s:
            ended += self._step(at_s)
            self._admit()
        self._pass(to_s)
        return ended

    def _step(self, at_s: float) -> list[str]:
        """What ends at the next instant: a prompt, which begins to write, or a task."""
        if self._prompts:
            load, _ = self._prompts.popleft()
            self._now_s = at_s
            rounds = load.tokens_out * self._pace.rounds
            if rounds <= 0:
                return [load.task]
            self._count += 1
            heappush(self._writing, (self._rounds + rounds, self._count, load.task))
            return []
        self._rounds = self._writing[0][0]
        self._now_s = at_s
        return [heappop(self._writing)[2]]

    def _pass(self, to_s: float) -> None:
        """Time goes on, and nothing ends."""
        passed_s, self._now_s = to_s - self._now_s, max(to_s, self._now_s)
        if passed_s <= 0:
            return
        if self._prompts:
            load, left_s = self._prompts[0]
            self._prompts[0] = (load, left_s - passed_s)
        elif self._writing:
            self._rounds += passed_s / self._pace.round_s(len(self._writing))

    def _admit(self) -> None:
        while self._waiting and self.running < self.slots:
            load = self._waiting.popleft()
            self._prompts.append((load, self._pace.prefill.seconds(load.tokens_in) if load.tokens_in > 0 else 0.0))
