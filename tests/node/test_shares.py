"""Who gets the next leases: tokens by priority, at once for who joins, within every limit, and nobody starves."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gx.core import event as e
from gx.core.task import EdgeLease, Status
from gx.core.view import RunState, StepState, TaskState
from gx.run import scheduler
from gx.run.fairness import ASSUMED_TOKENS, Fairness

LEASE = EdgeLease(epoch=1, incarnation=1)


class Simulated:
    """A run whose tasks take so many tokens each, with as many of them waiting as it is given."""

    def __init__(self, name: str, *, waiting: int = 10_000, tokens: int = 100, **more: Any) -> None:
        self.tokens = tokens
        created = e.RunCreated(run=name, name=name, fingerprint="", recipe="", params="")
        self.state = RunState(id=name, created=created, **more)
        self.state.steps["s"] = StepState(id="s")
        self.state.ready = {str(n): None for n in range(waiting)}
        self.done = 0

    def lease(self, count: int) -> None:
        for _ in range(count):
            task = next(iter(self.state.ready))
            del self.state.ready[task]
            self.state.leased[task] = _task(task)

    def end_one(self) -> None:
        del self.state.leased[next(iter(self.state.leased))]
        self.state.tokens_in += self.tokens
        ended = self.state.steps["s"].ended
        ended[Status.succeeded] = ended.get(Status.succeeded, 0) + 1
        self.done += 1


class Bench:
    """So many leases, shared by runs; those that are leased end in the order of their leasing."""

    def __init__(self, leases: int) -> None:
        self.leases, self.fairness = leases, Fairness()
        self.order: list[Simulated] = []

    def grant(self, *runs: Simulated) -> dict[str, int]:
        free = self.leases - len(self.order)
        shares = self.fairness.share(free, [run.state for run in runs], 0.0)
        assert sum(shares.values()) <= free
        for run in runs:
            run.lease(shares[run.state.id])
            self.order.extend([run] * shares[run.state.id])
        return shares

    def go_on(self, rounds: int, *runs: Simulated) -> Counter[str]:
        """So many tasks end, one after the other; the tokens that each run got by that."""
        got: Counter[str] = Counter()
        for _ in range(rounds):
            self.grant(*runs)
            if not self.order:
                break
            first = self.order.pop(0)
            first.end_one()
            got[first.state.id] += first.tokens
        return got


def _task(name: str, **more: Any) -> TaskState:
    return TaskState(id=name, step="s", path="", index=0, row_id="", order=0, status=Status.leased, lease=LEASE, **more)


@pytest.mark.parametrize(("first", "second"), [(1.0, 1.0), (2.0, 1.0), (0.5, 4.0)])
@pytest.mark.parametrize(("short", "long"), [(100, 100), (10, 1000)])
def test_tokens_are_shared_in_proportion_to_priorities(first: float, second: float, short: int, long: int) -> None:
    a, b = Simulated("a", tokens=short, priority=first), Simulated("b", tokens=long, priority=second)
    bench = Bench(8)
    bench.go_on(1000, a, b)
    got = bench.go_on(2000, a, b)
    assert got["a"] / got["b"] == pytest.approx(first / second, rel=0.1)


def test_a_small_run_that_joins_a_long_one_gets_its_share_at_once() -> None:
    a, b = Simulated("a"), Simulated("b", waiting=20)
    bench = Bench(8)
    bench.go_on(5000, a)
    bench.go_on(2 * 20 + 4 * 8, a, b)
    assert b.done == 20


def test_a_long_run_owes_nothing_for_the_time_when_it_was_alone() -> None:
    a, b = Simulated("a"), Simulated("b")
    bench = Bench(4)
    bench.go_on(3000, a)
    assert a.state.tokens_in == 300_000
    got = bench.go_on(100, a, b)
    assert got["a"] >= 0.35 * got.total()


def test_a_run_whose_priority_changes_neither_starves_nor_starves_others() -> None:
    for before, after in ((1.0, 0.1), (1.0, 10.0), (100.0, 0.01)):
        a, b = Simulated("a", priority=before), Simulated("b", priority=1.0)
        bench = Bench(4)
        bench.go_on(3000, a, b)
        a.state.priority = after
        bench.go_on(50, a, b)
        got = bench.go_on(1000, a, b)
        assert got["a"] / got["b"] == pytest.approx(after, rel=0.25, abs=0.01)


def test_a_run_that_had_nothing_to_do_has_saved_nothing_up() -> None:
    idle, a, b = Simulated("idle", waiting=0), Simulated("a"), Simulated("b")
    bench = Bench(4)
    bench.grant(idle, a)
    bench.go_on(3000, idle, a)
    joined = bench.go_on(200, idle, a, b)
    assert joined["a"] >= 0.35 * joined.total(), "who joins begins where those are that want leases"
    idle.state.ready = dict.fromkeys(map(str, range(10_000)))
    woken = bench.go_on(300, idle, a, b)
    assert min(woken.values()) >= 0.25 * woken.total()


def test_a_run_under_its_own_limit_has_saved_nothing_up_when_that_is_lifted() -> None:
    limited, a = Simulated("limited", concurrency=1), Simulated("a")
    bench = Bench(8)
    bench.go_on(4000, limited, a)
    c = Simulated("c")
    joined = bench.go_on(300, limited, a, c)
    assert joined["a"] >= 0.3 * joined.total(), "who joins begins where those are that want leases"
    limited.state.concurrency = None
    got = bench.go_on(300, limited, a, c)
    assert min(got.values()) >= 0.25 * got.total()


def test_what_one_run_cannot_use_goes_to_the_others() -> None:
    """A run that waits until a task may be tried again, or for one that must run alone, holds back no lease."""
    for waits in ("delayed", "suspects", "alone"):
        a, b = Simulated("a", waiting=0), Simulated("b")
        if waits == "delayed":
            a.state.delayed = {str(n): 60.0 for n in range(8)}
        elif waits == "suspects":
            a.state.suspects = {"1": None, "2": None}
            a.state.leased = {"0": _task("0")}
        else:
            a.state.ready = {"1": None}
            a.state.leased = {"0": _task("0", is_alone=True)}
        assert Fairness().share(4, [a.state, b.state], 0.0) == {"a": 0, "b": 4}


def test_a_delayed_task_counts_when_its_time_has_come_and_a_suspect_when_nothing_else_runs() -> None:
    delayed, suspect = Simulated("delayed", waiting=0), Simulated("suspect", waiting=0)
    delayed.state.delayed = {"1": 60.0, "2": 61.0}
    suspect.state.suspects = {"1": None, "2": None}
    assert Fairness().share(4, [delayed.state, suspect.state], 60.0) == {"delayed": 1, "suspect": 1}


def test_what_is_leased_counts_before_it_has_ended() -> None:
    a, b = Simulated("a"), Simulated("b")
    bench = Bench(10)
    assert bench.grant(a, b) == {"a": 5, "b": 5}
    assert ASSUMED_TOKENS > 1


queued = st.integers(0, 12)
runs = st.lists(
    st.fixed_dictionaries(
        {
            "ready": queued,
            "due": queued,
            "delayed": queued,
            "suspects": queued,
            "leased": queued,
            "alone": st.booleans(),
            "concurrency": st.none() | st.integers(1, 12),
            "priority": st.floats(0.01, 100),
            "tokens": st.integers(0, 10**9),
            "ended": st.integers(0, 1000),
        }
    ),
    max_size=5,
)


def _state(name: str, drawn: dict[str, Any]) -> RunState:
    run = Simulated(name, waiting=0, priority=drawn["priority"], concurrency=drawn["concurrency"]).state
    places = {kind: [f"{kind}{n}" for n in range(drawn[kind])] for kind in ("ready", "due", "delayed", "suspects")}
    run.ready, run.suspects = dict.fromkeys(places["ready"]), dict.fromkeys(places["suspects"])
    run.delayed = dict.fromkeys(places["due"], 5.0) | dict.fromkeys(places["delayed"], 15.0)
    alone = drawn["alone"] and drawn["leased"] == 1
    run.leased = {f"leased{n}": _task(f"leased{n}", is_alone=alone) for n in range(drawn["leased"])}
    for names in places.values():
        run.tasks |= {task: _task(task) for task in names}
    run.tokens_out = drawn["tokens"]
    run.steps["s"].ended[Status.succeeded] = drawn["ended"]
    return run


@settings(deadline=None)
@given(st.integers(-2, 40), st.lists(runs, min_size=1, max_size=4))
def test_whatever_the_runs_are_every_lease_is_granted_that_can_be_used_and_no_other(
    free: int, turns: list[Any]
) -> None:
    fairness = Fairness()
    for drawn in turns:
        states = [_state(str(place), one) for place, one in enumerate(drawn)]
        shares = fairness.share(free, states, 10.0)
        usable = 0
        for run in states:
            at_hand = run.tasks.keys()
            most = scheduler.decide(run, 10.0, worker="w", lease=LEASE, free=10**6, at_hand=at_hand)
            limit = len(most)
            if run.concurrency is not None:
                limit = min(limit, max(0, run.concurrency - len(run.leased)))
            assert shares[run.id] <= limit
            usable += limit
        assert sum(shares.values()) == min(max(free, 0), usable)


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.tuples(st.integers(1, 400), st.floats(0.2, 5), st.none() | st.integers(1, 4)), min_size=1, max_size=5),
    st.integers(1, 8),
    st.integers(0, 400),
)
def test_no_run_starves(drawn: list[tuple[int, float, int | None]], leases: int, alone: int) -> None:
    every = [
        Simulated(str(place), tokens=tokens, priority=priority, concurrency=concurrency)
        for place, (tokens, priority, concurrency) in enumerate(drawn)
    ]
    bench = Bench(leases)
    bench.go_on(alone, every[0])
    before = [run.done for run in every]
    got = bench.go_on(3000, *every)
    for run, was in zip(every, before, strict=True):
        assert run.done > was
        if run.state.concurrency is None:
            share = run.state.priority / sum(other.state.priority for other in every)
            assert got[run.state.id] >= 0.6 * share * got.total() - 400 * leases
