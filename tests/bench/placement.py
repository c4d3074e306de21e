"""The policy of a burst on 30 generated traces: makespan and dollars, beside the two simple policies and a lower bound.

`python -m tests.bench.placement` plays each trace three times on a simulated clock. The bound is the fluid one at the
dollars that the policy spent, for any policy that keeps a reservation for each container within the cap, and no less
than what the last and longest task takes on the faster machine. 'Always the maximum' keeps to the cap as well: it has
as many containers as there are reservations for. The exit code is 1 where a claim doesn't hold.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

import msgspec

from gx.core.task import Offer
from gx.run.fluid import Bound, Work, lower_bound_s
from gx.run.replay.line import Line, Pace
from gx.run.replay.play import play
from gx.run.replay.trace import Edge, Job, Played, Policy, Rental, Trace

KINDS = ("steady", "bursty", "heavy-tailed", "slow start", "wrong estimates")
SEEDS = 6
MOST_OF_BOUND = 1.2
MOST_OF_SIMPLE = 1.02
# What the triage recipe measures on two cores: a decode of n rows 14 + 2.4 n ms, a prompt 2.35 ms a token.
PACE = Pace(decode=Line(fixed_s=0.014, each_s=0.0024), prefill=Line(each_s=0.00235), row_s=0.0002)


class Case(NamedTuple):
    """A trace with its machines; `policy` is the one under test."""

    name: str
    trace: Trace
    edge: Edge
    rental: Rental
    policy: Policy


class Row(NamedTuple):
    """What a case came to. `simple_s` is the better simple policy within the budget."""

    name: str
    tasks: int
    budget: float
    ours: Played
    edge_s: float
    simple_s: float
    simple: str
    bound_s: float

    @property
    def of_bound(self) -> float:
        return self.ours.makespan_s / self.bound_s

    @property
    def of_simple(self) -> float:
        return self.ours.makespan_s / self.simple_s


def cases() -> Iterator[Case]:
    """All of them, the same each time."""
    for kind in KINDS:
        for seed in range(SEEDS):
            yield case(kind, seed)


def case(kind: str, seed: int) -> Case:
    """A trace of a kind."""
    rng = Random(f"{kind} {seed}")
    faster, usd_per_s = rng.choice([(6.0, 0.000266), (9.0, 0.00035), (15.0, 0.00063)])
    cold_s = rng.uniform(120, 300) if kind == "slow start" else rng.uniform(15, 60)
    n, mean_out = rng.randint(1500, 4000), rng.uniform(500, 1500)
    sigma = 1.2 if kind == "heavy-tailed" else 0.35
    at_s = _arrivals(rng, n) if kind == "bursty" else [0.0] * n
    jobs = tuple(
        Job(
            task=f"t{i}",
            at_s=at_s[i],
            tokens_in=rng.uniform(30, 200),
            tokens_cached=140,
            tokens_out=min(6000.0, mean_out * rng.lognormvariate(-sigma * sigma / 2, sigma)),
        )
        for i in range(n)
    )
    trace, slots = Trace(jobs=jobs), 8
    pace = PACE.faster(faster)
    per_s, rented_per_s = trace.tokens_per_s(PACE, slots), trace.tokens_per_s(pace, 16)
    wrong = kind == "wrong estimates"
    off = [2 ** rng.uniform(-1, 1) for _ in range(4)]  # half to twice, each on its own
    offs = off if wrong else [1.0] * 4
    offer = Offer(
        gpu="L4", tokens_per_s=rented_per_s * offs[0], usd_per_s=usd_per_s, cold_start_s=cold_s, window_s=10.0,
        reserve_usd=usd_per_s * (cold_s * max(1.0, offs[1]) + 60 + 60 + 10),
    )  # fmt: skip
    rental = Rental(offer=offer, pace=pace, slots=16, start_s=cold_s * offs[1])
    edge = Edge(
        pace=PACE, slots=slots, startup_s=1.0, believed_tokens_per_s=per_s * offs[2],
        believed_task_tokens=offs[3] * sum(job.tokens for job in jobs) / n,
    )  # fmt: skip
    policy = Policy(slots=slots, burst="auto", containers=rng.randint(2, 8))
    most = play(trace, msgspec.structs.replace(policy, burst="always"), edge, rental)
    usd = max(most.usd * rng.uniform(0.3, 1.6), 1.5 * offer.reserve_usd)
    return Case(f"{kind} {seed}", trace, edge, rental, msgspec.structs.replace(policy, usd=usd))


def _arrivals(rng: Random, n: int) -> list[float]:
    """Bursts of tasks, minutes apart."""
    bursts = [0.0, *sorted(rng.uniform(60, 7200) for _ in range(rng.randint(3, 6)))]
    return sorted(rng.choice(bursts) for _ in range(n))


def measure(case: Case) -> Row:
    """Play a case under the three policies."""
    ours = play(case.trace, case.policy, case.edge, case.rental)
    alone = play(case.trace, Policy(slots=case.policy.slots), case.edge)
    most = play(case.trace, msgspec.structs.replace(case.policy, burst="always"), case.edge, case.rental)
    budget = case.policy.usd or 0.0
    assert most.usd <= budget, "the cap is the pool's to keep, whatever the policy"
    simple_s, simple = min((alone.makespan_s, "edge"), (most.makespan_s, "max"))
    bound_s = bound(case, ours.usd)
    return Row(case.name, len(case.trace.jobs), budget, ours, alone.makespan_s, simple_s, simple, bound_s)


def bound(case: Case, usd: float) -> float:
    """The least makespan at so many dollars. Work is in seconds of machines with all of their slots taken."""
    slots, rented = case.policy.slots, case.rental

    def seconds(pace: Pace, job: Job, n: int) -> float:
        return pace.prefill.seconds(job.tokens_in) + job.tokens_out * pace.rounds * pace.round_s(n) / n

    jobs = case.trace.jobs
    work = [Work(j.at_s, seconds(case.edge.pace, j, slots), seconds(rented.pace, j, rented.slots)) for j in jobs]
    offer, cap_usd = rented.offer, case.policy.usd or 0.0
    most = min(case.policy.containers, int(cap_usd / offer.reserve_usd))
    machines = Bound(offer.usd_per_s, rented.starts_s, offer.window_s, most, cap_usd, offer.reserve_usd)
    fluid_s = lower_bound_s(work, machines, usd)
    faster = min((case.edge.pace, rented.pace), key=lambda pace: pace.round_s(1)) if usd else case.edge.pace
    return max(fluid_s, *(j.at_s + seconds(faster, j, 1) for j in jobs))


def main() -> int:
    """Print the table; 0 where every row holds."""
    rows = [measure(case) for case in cases()]
    head = ("trace", "tasks", "budget", "spent", "boxes", "edge s", "ours s", "× bound", "× simple", "of", "changes")
    print("{:<18}{:>6}{:>8}{:>8}{:>6}{:>8}{:>8}{:>9}{:>10}{:>6}{:>8}".format(*head))
    for row in rows:
        print(
            f"{row.name:<18}{row.tasks:>6}{row.budget:>8.3f}{row.ours.usd:>8.3f}{row.ours.containers:>6}"
            f"{row.edge_s:>8.0f}{row.ours.makespan_s:>8.0f}{row.of_bound:>9.3f}{row.of_simple:>10.3f}"
            f"{row.simple:>6}{len(row.ours.decisions):>8}"
        )
    bad = [r for r in rows if not holds(r)]
    worst = max(rows, key=lambda r: r.of_bound), max(rows, key=lambda r: r.of_simple)
    print(f"\nworst: {worst[0].of_bound:.3f} × the bound (≤ {MOST_OF_BOUND}), ", end="")
    print(f"{worst[1].of_simple:.3f} × the better simple policy (≤ {MOST_OF_SIMPLE})")
    print(f"{len(rows) - len(bad)} of {len(rows)} traces hold" + "".join(f"\n  not {r.name}" for r in bad))
    return 1 if bad else 0


def holds(row: Row) -> bool:
    """Both claims, and the cap."""
    return row.of_bound <= MOST_OF_BOUND and row.of_simple <= MOST_OF_SIMPLE and row.ours.usd <= row.budget


if __name__ == "__main__":
    sys.exit(main())
