"""Plays a trace on a simulated clock: the real fold, scheduler and placement between simulated benches.

Each moment goes as in the dispatcher: what ended and what came is committed and folded, placement decides, the
scheduler grants, and what was granted is begun; then the clock goes to the next moment at which something happens.
Deterministic: the same trace and policy give the same figures.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from math import inf

from gx.core import event as e
from gx.core.message import Label
from gx.core.projection import fold
from gx.core.task import CloudLease, EdgeLease, Lease
from gx.core.view import RunState, View
from gx.run import placement, scheduler
from gx.run.placement import Verdict
from gx.run.replay.beliefs import Beliefs
from gx.run.replay.engine import Bench, Load
from gx.run.replay.rented import Pool
from gx.run.replay.trace import Edge, Job, Played, Policy, Rental, Trace

DECIDE_EVERY_S = 2.0
"""How often placement is asked at the most: a container takes longer to start."""
_RUN = "replay"
_EDGE_LEASE = EdgeLease(epoch=1, incarnation=1)


def play(trace: Trace, policy: Policy, edge: Edge, rental: Rental | None = None) -> Played:
    """Play a trace under a policy. :raises ValueError: if the policy rents and there is no `rental`."""
    if policy.burst != "off" and rental is None:
        raise ValueError("a policy that rents needs what may be rented")
    playing = _Playing(trace, policy, edge, rental)
    while (at_s := playing.next_s()) < inf:
        playing.at(at_s)
    return playing.result()


class _Playing:
    """A run under way. Only `at` changes it, from moment to moment."""

    def __init__(self, trace: Trace, policy: Policy, edge: Edge, rental: Rental | None) -> None:
        self._policy, self._rental = policy, rental
        self._bench = Bench(edge.pace, policy.slots, edge.startup_s)
        self._leases = policy.slots + (policy.slots + 1) // 2  # as edge.worker has it
        self._pool = None if rental is None or policy.burst == "off" else Pool(rental)
        self._jobs = {job.task: job for job in trace.jobs}
        self._beliefs = Beliefs(trace, policy, edge, self._bench)
        self._after = trace.after
        self._left: defaultdict[str, int] = defaultdict(int)
        for job in trace.jobs:
            self._left[job.group] += 1
        self._held_up = {group for group in self._left if self._after.get(group)}
        first = (job for job in trace.jobs if job.group not in self._held_up)
        self._coming = deque(sorted(((job.at_s, job) for job in first), key=lambda pair: pair[0]))
        self._now_s, self._seq, self._view = 0.0, 0, View()
        self._commit(e.RunCreated(run=_RUN, name=_RUN, fingerprint="", recipe="", params=""))
        self._shared = _Shared(self._run)
        self._verdict = Verdict()
        self._decisions: list[tuple[float, Verdict]] = []
        self._placed_s, self._ended_s, self._taken_back = -inf, 0.0, 0
        self._done = {"edge": 0, "cloud": 0}

    @property
    def _run(self) -> RunState:
        return self._view.runs[_RUN]

    def next_s(self) -> float:
        """The next moment; infinite once nothing is left to happen."""
        bench_s = self._bench.next_s()
        instants = [inf if bench_s is None else bench_s, self._coming[0][0] if self._coming else inf]
        if self._pool is not None:
            instants.append(self._pool.next_s())
            if self._run.ready or self._run.leased or (self._coming and self._pool.alive):
                instants.append(self._placed_s + DECIDE_EVERY_S)
        return max(min(instants), self._now_s)

    def at(self, now_s: float) -> None:
        """All that happens at a moment."""
        self._now_s = now_s
        ended = [(task, "edge") for task in self._bench.advance(now_s)]
        if self._pool is not None:
            ended += [(task, "cloud") for task in self._pool.advance(now_s)]
        for task, worker in ended:
            self._end(self._jobs[task], worker)
        while self._coming and self._coming[0][0] <= now_s:
            self._come(self._coming.popleft()[1])
        if self._pool is not None:
            self._place(self._pool)
        self._grant()

    def result(self) -> Played:
        pool = self._pool
        return Played(
            makespan_s=self._ended_s,
            usd=0.0 if pool is None else pool.cost_usd(self._now_s),
            containers=0 if pool is None else pool.spawned,
            container_s=0.0 if pool is None else pool.seconds(self._now_s),
            edge_tasks=self._done["edge"],
            cloud_tasks=self._done["cloud"],
            taken_back=self._taken_back,
            decisions=tuple(self._decisions),
        )

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _commit(self, body: e.Body) -> None:
        self._seq += 1
        fold(self._view, e.Event(seq=self._seq, ts=round(self._now_s * 1e6), source=_RUN, body=body))

    def _come(self, job: Job) -> None:
        label = Label.private if job.is_private else Label.shared
        named = {"run": _RUN, "task": job.task, "label": label}
        self._commit(e.TaskQueued(**named, step=job.group, path=job.task, index=0, id=job.task))  # type: ignore[arg-type]
        self._commit(e.TaskPrepared(**named, attempt=1, key=job.task, model="", prompt=()))  # type: ignore[arg-type]

    def _end(self, job: Job, worker: str) -> None:
        attempt = self._run.tasks[job.task].attempt
        self._commit(e.TaskSucceeded(run=_RUN, task=job.task, attempt=attempt, key=job.task, output="", worker=worker))
        self._beliefs.ended(job, worker)
        self._done[worker] += 1
        self._ended_s = self._now_s
        self._left[job.group] -= 1
        if self._left[job.group] == 0:
            self._release()

    def _release(self) -> None:
        """A group has ended: those that waited for it, and for no other, come."""
        free = {group for group in self._held_up if not any(self._left[other] for other in self._after[group])}
        self._held_up -= free
        came = [(self._now_s + job.at_s, job) for job in self._jobs.values() if job.group in free]
        self._coming = deque(sorted([*self._coming, *came], key=lambda pair: pair[0]))

    # ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────

    def _place(self, pool: Pool) -> None:
        """Placement's word, as far as the cap goes, and what it means for tasks that wait in the cloud."""
        waits, is_due = bool(self._run.ready or pool.waiting()), self._now_s >= self._placed_s + DECIDE_EVERY_S
        if is_due:
            self._placed_s = self._now_s
        if self._policy.burst == "always":
            pool.scale(self._within_cap(pool, self._policy.containers if waits or self._coming else 0), self._now_s)
            if self._policy.takes_home and is_due:
                self._take_back(pool)
        elif is_due or waits != bool(self._verdict.containers):
            self._decide(pool)
        self._take_home(pool, pool.stranded())

    def _decide(self, pool: Pool) -> None:
        assert self._rental is not None
        figures = self._beliefs.figures(self._rental, pool, self._now_s, self._run, self._shared)
        offer = self._beliefs.offer(self._rental, pool, self._now_s)
        verdict = placement.decide(figures, [offer], self._verdict if self._decisions else None)
        if not self._decisions or verdict.containers != self._verdict.containers:
            self._decisions.append((self._now_s, verdict))
        self._verdict = verdict
        pool.scale(self._within_cap(pool, verdict.containers), self._now_s)
        self._take_back(pool)

    def _take_back(self, pool: Pool) -> None:
        """Take tasks home that no container has begun, and that this machine ends sooner."""
        assert self._rental is not None
        free = 0 if self._run.ready else self._policy.slots - self._bench.held
        waits = self._beliefs.waits(self._rental, pool, self._now_s) if free > 0 else []
        edge_s = self._beliefs.edge_task_s(self._now_s)
        self._take_home(pool, placement.taken_back(waits, free=free, edge_task_s=edge_s))

    def _within_cap(self, pool: Pool, number: int) -> int:
        """As many of the containers as the cap has a reservation for."""
        assert self._rental is not None
        usd, reserve_usd = self._policy.usd, self._rental.offer.reserve_usd
        if usd is None or reserve_usd <= 0:
            return number
        return min(number, max(0, int((usd - pool.cost_usd(self._now_s)) / reserve_usd)))

    def _take_home(self, pool: Pool, tasks: list[str]) -> None:
        """Tasks that no container has begun go back to the queue."""
        for task in tasks:
            pool.take_back(task)
            attempt, self._taken_back = self._run.tasks[task].attempt, self._taken_back + 1
            self._commit(
                e.AttemptLost(run=_RUN, task=task, attempt=attempt, worker="cloud", reason="home", is_suspect=False)
            )

    def _grant(self) -> None:
        edge_s, ready = (
            self._beliefs.edge_task_s(self._now_s),
            0 if self._pool is None else self._pool.ready(self._now_s),
        )
        if self._policy.burst == "always" or placement.edge_may_take(edge_s, self._verdict, containers_ready=ready):
            self._lease("edge", self._leases - self._bench.held, _EDGE_LEASE)
        if self._pool is not None:
            self._lease("cloud", self._pool.room(), CloudLease(call="", gpu=""))

    def _lease(self, worker: str, free: int, lease: Lease) -> None:
        at_hand = self._run.ready if worker == "edge" else self._shared
        for body in scheduler.decide(self._run, self._now_s, worker=worker, lease=lease, free=free, at_hand=at_hand):
            assert isinstance(body, e.TaskLeased)
            self._commit(body)
            job = self._jobs[body.task]
            self._beliefs.began(job)
            load = Load(job.task, job.tokens_in, job.tokens_out)
            if worker == "edge":
                self._bench.submit(load)
            elif self._pool is not None:
                self._pool.submit(load, self._now_s)


class _Shared:
    """The tasks that may leave the machine, as a collection that is only asked whether it has one."""

    def __init__(self, run: RunState) -> None:
        self._run = run

    def __contains__(self, task: object) -> bool:
        return isinstance(task, str) and self._run.tasks[task].label is Label.shared

    def __iter__(self) -> Iterator[str]:
        return (task for task in self._run.ready if task in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
