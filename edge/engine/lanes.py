"""The lanes of one model: short slots for most requests, long ones for a few, made as they are needed.

It does what `room` chooses, and belongs to the engine's thread, as its lanes do.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.engine.job import Job
from edge.engine.lane import Lane
from edge.engine.llama import Model
from edge.engine.pace import Pace
from edge.engine.room import Make, Wait, choose, merge
from edge.engine.statistics import Statistics
from edge.engine.tuning import UNTUNED, Tuning


class Lanes:
    """The lanes of one model, made as they are needed. `budget_tokens` is what all together may hold."""

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
        self._n_slots, self._budget_tokens = n_slots, budget_tokens
        self._pace, self._statistics, self._now = Pace(threads), statistics, now
        self._tuning = tuning
        self._lanes: list[Lane] = []
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
    def bytes(self) -> int:
        """What the caches take."""
        return self._model.token_bytes * sum(lane.state().tokens for lane in tuple(self._lanes))

    def keeps(self, job: Job) -> bool:
        """Whether a slot is kept for a job."""
        return any(lane.keeps(job) for lane in self._lanes)

    def admit(self, job: Job) -> bool:
        """Put a job into a lane, if there is room for it now. :raises ModelError: if a context can't be made."""
        self._admitted += 1
        for lane in self._lanes:
            if lane.keeps(job):
                lane.admit(job, self._admitted)
                return True
            lane.let_go()
        choice = choose(
            job.need_tokens,
            [lane.state() for lane in self._lanes],
            context_tokens=self._context_tokens,
            n_slots=self._n_slots,
            budget_tokens=self._budget_tokens,
        )
        if isinstance(choice, Wait):
            return False
        if isinstance(choice, Make):
            for index in sorted(choice.drop, reverse=True):
                self._lanes.pop(index).close()
            self._lanes.append(self._make(choice))
        lane = self._lanes[-1 if isinstance(choice, Make) else choice.lane]
        lane.admit(job, self._admitted)
        return True

    @property
    def n_writing(self) -> int:
        """How many jobs are past their prompts."""
        return sum(lane.n_writing for lane in self._lanes)

    def advance(self, n_writing: int) -> list[Job]:
        """One round of every lane that has jobs; which of them ended. `n_writing` jobs wait for it, also elsewhere."""
        busy = [lane for lane in self._lanes if not lane.is_idle]
        ended = [job for lane in busy for job in lane.interrupt()]
        pair = merge([lane.state() for lane in busy])
        if pair is not None:
            ended += busy[pair[0]].hand_over(busy[pair[1]])
        return ended + [job for lane in busy for job in lane.round(n_writing)]

    def close(self) -> None:
        """Free the memory. No job is in any lane."""
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()

    def _make(self, choice: Make) -> Lane:
        return Lane(
            self._model,
            n_slots=choice.n_slots,
            slot_tokens=choice.slot_tokens,
            pace=self._pace,
            tuning=self._tuning,
            statistics=self._statistics,
            now=self._now,
        )
