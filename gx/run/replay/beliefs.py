"""What a decision knows while a trace is played: not the trace, only what ended so far, and what was assumed before.

Paces are what was done by the seconds in which it was done, as soon as enough tasks have ended; until then they are
what was believed. Of a task that runs, half is taken to be done.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from gx.core.task import Offer
from gx.core.view import RunState
from gx.run.placement import Figures
from gx.run.replay.engine import Bench
from gx.run.replay.rented import Pool
from gx.run.replay.trace import Edge, Job, Policy, Rental, Trace

ENOUGH = 1
"""Times the slots: so many tasks must have ended before a measured pace takes the place of an assumed one."""
PRIOR = 4
"""How many tasks that ended weigh as much as what was assumed."""


class Beliefs:
    """Sums over what ended, by worker; `bench` and `pool` are asked how they stand."""

    def __init__(self, trace: Trace, policy: Policy, edge: Edge, bench: Bench) -> None:
        self._policy, self._edge, self._bench = policy, edge, bench
        jobs = trace.jobs
        self._assumed_tokens = edge.believed_task_tokens or sum(job.tokens for job in jobs) / max(1, len(jobs))
        self._assumed_edge = edge.believed_tokens_per_s or trace.tokens_per_s(edge.pace, policy.slots)
        self._tasks = {"edge": 0, "cloud": 0}
        self._tokens = {"edge": 0.0, "cloud": 0.0}
        self._begun: list[str] = []
        self._sizes: dict[str, float] = {}
        self._known, self._known_tokens = 0, 0.0

    def began(self, job: Job) -> None:
        self._begun.append(job.task)

    def ended(self, job: Job, worker: str) -> None:
        self._tasks[worker] += 1
        self._tokens[worker] += job.tokens
        self._sizes[job.task] = job.tokens
        while self._known < len(self._begun) and (size := self._sizes.get(self._begun[self._known])) is not None:
            self._known, self._known_tokens = self._known + 1, self._known_tokens + size

    @property
    def task_tokens(self) -> float:
        """Of a task to come: the mean of those begun before any that still runs, since short ones end first."""
        return (PRIOR * self._assumed_tokens + self._known_tokens) / (PRIOR + self._known)

    def edge_tokens_per_s(self, now_s: float) -> float:
        busy_s = now_s - self._edge.startup_s
        if self._tasks["edge"] < ENOUGH * self._bench.slots or busy_s <= 0:
            return self._assumed_edge
        return (self._tokens["edge"] + self._bench.running * self.task_tokens / 2) / busy_s

    def edge_task_s(self, now_s: float) -> float:
        """How long the edge would take for a task that it took now, by Little's law."""
        return (self._bench.slots + self._bench.waiting) * self.task_tokens / self.edge_tokens_per_s(now_s)

    def offer(self, rental: Rental, pool: Pool, now_s: float) -> Offer:
        """The offer, with the pace that was measured, if there was one."""
        offer, ready_s = rental.offer, pool.ready_seconds(now_s)
        if self._tasks["cloud"] < ENOUGH * rental.slots or ready_s <= 0:
            return offer
        done = self._tokens["cloud"] + pool.running * self.task_tokens / 2
        return msgspec.structs.replace(offer, tokens_per_s=done / ready_s, tasks=self._tasks["cloud"])

    def waits(self, rental: Rental, pool: Pool, now_s: float) -> list[tuple[str, float]]:
        """The tasks that no container has begun, with the seconds until they would be done there."""
        task_s = rental.slots * self.task_tokens / self.offer(rental, pool, now_s).tokens_per_s
        begin_s = 0.0 if pool.ready(now_s) else pool.start_left_s(now_s)
        at_once = max(1, pool.alive) * rental.slots
        return [(task, begin_s + task_s * (1 + index // at_once)) for index, task in enumerate(pool.waiting())]

    def figures(self, rental: Rental, pool: Pool, now_s: float, run: RunState, shared: Collection[str]) -> Figures:
        """All that placement is told."""
        each, cost_usd, usd = self.task_tokens, pool.cost_usd(now_s), self._policy.usd
        exposure_usd = cost_usd + pool.alive * rental.offer.reserve_usd
        deadline_s = self._policy.deadline_s
        return Figures(
            backlog_tokens=(len(run.ready) + len(pool.waiting())) * each,
            private_tokens=(len(run.ready) - len(shared)) * each,
            edge_tokens=(self._bench.running / 2 + self._bench.waiting) * each,
            cloud_tokens=pool.running / 2 * each,
            edge_tokens_per_s=self.edge_tokens_per_s(now_s),
            is_edge_measured=self._tasks["edge"] >= ENOUGH * self._bench.slots,
            deadline_s=None if deadline_s is None else max(0.0, deadline_s - now_s),
            spendable_usd=None if usd is None else max(0.0, usd - cost_usd),
            reservable_usd=None if usd is None else max(0.0, usd - exposure_usd),
            max_containers=self._policy.containers,
            gpu=rental.offer.gpu if pool.alive else "",
            containers=pool.alive,
            starting=pool.alive - pool.ready(now_s),
            start_left_s=pool.start_left_s(now_s),
        )
