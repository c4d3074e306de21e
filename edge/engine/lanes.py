"""The lanes of one model: short slots for most requests, long ones for a few, made as they are needed.

It does what `room` chooses, and belongs to the engine's thread, as its lanes do. How much memory there is shows only
when it is asked for: where a lane can't be made, the budget becomes what was had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edge.engine.job import Job
from edge.engine.lane import Lane
from edge.engine.llama import Model
from edge.engine.pace import Pace
from edge.engine.room import Make, Use, Wait, choose, merge, most_slots, slot_tokens
from edge.engine.statistics import Statistics
from edge.engine.tuning import UNTUNED, Tuning
from gx.core.errors import ModelError
from gx.core.protocol import SlotNow


class Lanes:
    """The lanes of one model, made as they are needed, of `n_slots` each where there is room for so many.

    `budget_tokens` is what all together may hold.
    """

    def __init__(
        self,
        model: Model,
        *,
        context_tokens: int,
        n_slots: int,
        budget_tokens: int,
        threads: int,
        statistics: Statistics,
        now: Callable[[], float],
        tuning: Tuning = UNTUNED,
    ) -> None:
        self._model, self._context_tokens = model, context_tokens
        self.n_slots, self._budget_tokens, self._given_tokens = n_slots, budget_tokens, budget_tokens
        self._pace, self._statistics, self._now = Pace(threads), statistics, now
        self._tuning = tuning
        self._lanes: list[Lane] = []
        self._ended: list[Job] = []  # of lanes that made way
        self._admitted = 0

    def __repr__(self) -> str:
        return f"<Lanes {self._lanes}>"

    @property
    def is_idle(self) -> bool:
        return all(lane.is_idle for lane in self._lanes)

    @property
    def threads(self) -> int:
        """How many a call gets now."""
        return self._pace.threads

    @property
    def most_slots(self) -> int:
        """How many short requests there is room for at a time."""
        shortest = slot_tokens(1, self._context_tokens)
        return most_slots(shortest, n_slots=self.n_slots, budget_tokens=self._given_tokens)

    def keeps(self, job: Job) -> bool:
        """Whether a slot is kept for a job."""
        return any(lane.keeps(job) for lane in self._lanes)

    def size(self, job: Job) -> int:
        """How long the slots are that suit a job: those of one size wait for the same."""
        return slot_tokens(job.need_tokens, self._context_tokens)

    def admit(self, job: Job, *, is_behind: bool = False) -> Wait | None:
        """Put a job into a lane, if there is room for it now; else what it waits for.

        `is_behind`: one that came before waits for a lane. :raises ModelError: if there isn't memory for one slot.
        """
        self._admitted += 1
        for lane in self._lanes:
            if lane.keeps(job):
                lane.admit(job, self._admitted)
                return None
            lane.expire()
        if self.is_idle:
            self._budget_tokens = self._given_tokens  # there may be more memory by now than there was
        while True:
            match self._choose(job, is_behind=is_behind):
                case Wait() as wait:
                    return wait
                case Use(index):
                    lane = self._lanes[index]
                case Make() as plan:
                    if not self._make(plan):
                        continue  # there is less memory than the budget said, which is less now
                    lane = self._lanes[-1]
            lane.admit(job, self._admitted, [other for other in self._lanes if other is not lane])
            return None

    def _choose(self, job: Job, *, is_behind: bool) -> Use | Make | Wait:
        return choose(
            job.need_tokens,
            [lane.state() for lane in self._lanes],
            context_tokens=self._context_tokens,
            n_slots=self.n_slots,
            budget_tokens=self._budget_tokens,
            is_behind=is_behind,
        )

    @property
    def n_writing(self) -> int:
        """How many jobs write."""
        return sum(lane.n_writing for lane in self._lanes)

    def slots_now(self) -> Iterator[SlotNow]:
        """What is in the busy slots, in the order of the lanes."""
        for lane in self._lanes:
            yield from lane.slots_now()

    def advance(self, n_writing: int) -> list[Job]:
        """One round of every lane that has jobs; which jobs ended. `n_writing` of them, also elsewhere, wait for it.

        First those leave that were cancelled or are late, and the jobs of one lane go to another with room for them.
        """
        busy = [lane for lane in self._lanes if not lane.is_idle]
        for lane in busy:
            lane.interrupt()
        pair = merge([lane.state() for lane in busy])
        if pair is not None:
            busy[pair[0]].hand_over(busy[pair[1]])
        for lane in busy:
            lane.round(n_writing)
        ended, self._ended = self._ended, []
        return [*ended, *(job for lane in self._lanes for job in lane.take_ended())]

    def close(self) -> None:
        """Free the memory. Jobs that are in a lane still are the caller's to end."""
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()
        self._ended.clear()

    @property
    def _tokens(self) -> int:
        """What all lanes together hold."""
        return sum(lane.tokens for lane in self._lanes)

    def _make(self, choice: Make) -> bool:
        """Make a lane of as many slots as there is memory for, at most as chosen; whether there is for one.

        :raises ModelError: if there isn't, and no other lane could make way.
        """
        for index in sorted(choice.drop, reverse=True):
            dropped = self._lanes.pop(index)
            self._ended += dropped.take_ended()
            dropped.close()
        n_slots = choice.n_slots
        while n_slots:
            try:
                self._lanes.append(self._lane(n_slots, choice.slot_tokens))
                break
            except ModelError:
                if n_slots == 1 and not self._lanes:
                    raise
                n_slots //= 2
        if n_slots < choice.n_slots:
            self._budget_tokens = self._tokens
        return n_slots > 0

    def _lane(self, n_slots: int, slot_tokens: int) -> Lane:
        return Lane(
            self._model,
            n_slots=n_slots,
            slot_tokens=slot_tokens,
            pace=self._pace,
            tuning=self._tuning,
            statistics=self._statistics,
            now=self._now,
        )
