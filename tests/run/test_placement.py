"""When to rent, of which GPU, how many, and when to let go: the policy's choices and its words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gx.core.task import Offer
from gx.run.fluid import Bound, Flow, Work, finish_s, lower_bound_s
from gx.run.placement import Figures, Verdict, decide, edge_may_take, taken_back
from tests.bench import placement as bench

L4 = Offer(gpu="L4", tokens_per_s=1000, usd_per_s=0.0003, cold_start_s=30, window_s=10, reserve_usd=0.03)
A10 = Offer(gpu="A10", tokens_per_s=2000, usd_per_s=0.0008, cold_start_s=30, window_s=10, reserve_usd=0.08)


def figures(**more: Any) -> Figures:
    """An hour of work for the edge."""
    known: dict[str, Any] = {"backlog_tokens": 360_000, "edge_tokens_per_s": 100, "max_containers": 8}
    return Figures(**(known | more))


# ── choices ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_deadline_is_met_at_the_least_cost() -> None:
    verdict = decide(figures(deadline_s=600), [L4, A10])
    assert (verdict.gpu, verdict.containers) == ("L4", 1)
    assert verdict.finish_s <= 540 < verdict.edge_s
    assert "cheapest" in verdict.reason and "$" in verdict.reason
    sooner = decide(figures(deadline_s=100), [L4, A10])
    assert sooner.finish_s <= 90 and sooner.containers > 1


def test_nothing_is_rented_where_the_edge_meets_the_deadline() -> None:
    verdict = decide(figures(deadline_s=5000), [L4, A10])
    assert (verdict.gpu, verdict.containers, verdict.usd) == ("", 0, 0.0)


def test_a_deadline_that_nothing_meets_gets_what_is_done_first() -> None:
    verdict = decide(figures(deadline_s=20, backlog_tokens=3_600_000), [L4, A10])
    assert (verdict.gpu, verdict.containers) == ("A10", 8)
    assert "nothing meets the deadline" in verdict.reason


def test_without_a_deadline_the_most_time_is_saved_within_the_money() -> None:
    assert decide(figures(spendable_usd=10.0, reservable_usd=10.0), [L4]).containers == 8
    little = decide(figures(spendable_usd=0.1, reservable_usd=0.1), [L4])
    assert 0 < little.containers < 4
    assert "within the $0.10" in little.reason


def test_where_few_and_many_are_alike_many_are_taken_until_a_pace_was_measured() -> None:
    money = figures(backlog_tokens=3_600_000, spendable_usd=0.8, reservable_usd=0.8)
    unmeasured = decide(money, [L4])
    measured = decide(money, [msgspec.structs.replace(L4, tasks=16)])
    assert unmeasured.containers > measured.containers == 1
    assert measured.finish_s <= unmeasured.finish_s <= 1.05 * measured.finish_s
    assert unmeasured.usd <= 1.05 * measured.usd
    held_up = decide(figures(private_tokens=180_000), [L4])  # by what may not leave: more would only cost more
    assert (
        held_up.containers == decide(figures(private_tokens=180_000), [msgspec.structs.replace(L4, tasks=9)]).containers
    )


def test_nothing_is_rented_without_room_for_a_reservation() -> None:
    verdict = decide(figures(spendable_usd=0.5, reservable_usd=0.02), [L4])
    assert verdict.containers == 0 and "cap" in verdict.reason


def test_private_tasks_stay_and_are_no_reason_to_rent() -> None:
    verdict = decide(figures(private_tokens=360_000), [L4])
    assert verdict.containers == 0 and "nothing waits that may leave" in verdict.reason
    half = decide(figures(private_tokens=180_000), [L4])
    assert half.containers > 0 and half.finish_s >= 1800


def test_a_start_that_takes_longer_than_the_work_is_not_paid_for() -> None:
    assert decide(figures(backlog_tokens=2000), [L4]).containers == 0


def test_a_tail_that_is_begun_elsewhere_needs_no_container() -> None:
    alive = {"containers": 4, "gpu": "L4", "cloud_tokens": 3000}
    assert decide(figures(backlog_tokens=0, **alive), [L4], Verdict(gpu="L4", containers=4)).containers == 0


def test_fewer_containers_are_wanted_as_the_backlog_falls() -> None:
    last, numbers = None, []
    for backlog in (360_000, 60_000, 10_000, 1000, 0):
        alive: dict[str, Any] = {"gpu": "L4", "containers": last.containers} if last else {}
        last = decide(figures(backlog_tokens=backlog, deadline_s=60 + backlog / 1000, **alive), [L4], last)
        numbers.append(last.containers)
    assert numbers[0] > 0 and numbers[-1] == 0 and numbers == sorted(numbers, reverse=True)


@given(st.floats(-0.04, 0.04))
def test_figures_that_flicker_change_no_verdict(by: float) -> None:
    first = decide(figures(), [L4])
    alive = {"gpu": "L4", "containers": first.containers, "starting": first.containers, "start_left_s": 25.0}
    again = decide(figures(backlog_tokens=360_000 * (1 + by), **alive), [L4], first)
    assert (again.gpu, again.containers) == (first.gpu, first.containers)


@given(st.lists(st.floats(-0.1, 0.1), min_size=20, max_size=60), st.floats(3000, 4500))
def test_a_pace_that_wavers_around_the_deadline_pays_no_start_twice(wavers: list[float], deadline_s: float) -> None:
    last, numbers, left = None, list[int](), 360_000.0
    for look, by in enumerate(wavers):
        alive: dict[str, Any] = {"gpu": "L4", "containers": last.containers} if last and last.containers else {}
        seen = figures(
            backlog_tokens=left, deadline_s=deadline_s - 2 * look, edge_tokens_per_s=100 * (1 + by), **alive
        )  # fmt: skip
        last = decide(seen, [L4], last)
        numbers.append(last.containers)
        left -= 2 * (100 + 1000 * last.containers)
    starts = sum(max(0, after - before) for before, after in zip([0, *numbers], numbers, strict=False))
    assert starts <= 1, numbers


def test_no_second_pool_is_begun_beside_containers_that_are_alive() -> None:
    last = Verdict(gpu="L4", containers=2)
    assert decide(figures(gpu="L4", containers=2), [L4, A10], last).gpu == "L4"


@given(
    backlog=st.floats(0, 1e7), edge=st.floats(1, 1e4), usd=st.floats(0, 5), deadline=st.none() | st.floats(0, 1e5),
    alive=st.integers(0, 8),
)  # fmt: skip
def test_every_decision_is_finite_within_its_limits_and_says_why(
    backlog: float, edge: float, usd: float, deadline: float | None, alive: int
) -> None:
    asked = figures(
        backlog_tokens=backlog, edge_tokens_per_s=edge, spendable_usd=usd, reservable_usd=max(0.0, usd - 0.03 * alive),
        deadline_s=deadline, gpu="L4" if alive else "", containers=alive,
    )  # fmt: skip
    verdict = decide(asked, [L4, A10])
    tails_usd = alive * L4.window_s * L4.usd_per_s  # those that are alive idle before they end, whatever is decided
    assert 0 <= verdict.containers <= 8 and verdict.usd <= usd + tails_usd + 1e-9
    assert verdict.finish_s <= verdict.edge_s + 1e-6
    assert verdict.reason.count("\n") == 0 and len(verdict.reason) > 20
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


# ── tails ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_edge_leaves_a_task_that_would_outlast_all_the_rest() -> None:
    verdict = Verdict(gpu="L4", containers=2, finish_s=40)
    assert edge_may_take(30, verdict, containers_ready=2)
    assert not edge_may_take(50, verdict, containers_ready=2)
    assert edge_may_take(50, verdict, containers_ready=0)


def test_the_last_of_the_tasks_that_wait_come_home_where_that_ends_them_sooner() -> None:
    waits = [("a", 10.0), ("b", 30.0), ("c", 50.0)]
    assert taken_back(waits, free=1, edge_task_s=20) == ["c"]
    assert taken_back(waits, free=5, edge_task_s=20) == ["c", "b"]
    assert taken_back(waits, free=5, edge_task_s=60) == []
    assert taken_back(waits, free=0, edge_task_s=1) == []


# ── fluid times ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_work_flows_as_fast_as_whoever_is_there() -> None:
    assert finish_s(1000, [Flow(10)]) == 100
    assert finish_s(1000, [Flow(10), Flow(90, since_s=50)]) == pytest.approx(55)
    assert finish_s(1000, [Flow(10), Flow(90, 50, 52)]) == pytest.approx(82)
    assert finish_s(0, []) == 0.0 and finish_s(1, [Flow(1, 0, 0.5)]) == float("inf")


@given(st.floats(0.01, 5), st.floats(0.01, 5))
def test_more_money_never_raises_the_lower_bound(one: float, more: float) -> None:
    tasks = [Work(at_s, 100.0, 10.0) for at_s in (0.0, 0.0, 50.0, 400.0)]
    rented = Bound(usd_per_s=0.001, cold_start_s=30, window_s=10, containers=4)
    assert lower_bound_s(tasks, rented, one + more) <= lower_bound_s(tasks, rented, one) + 1e-6
    assert lower_bound_s(tasks, rented, 0.0) == pytest.approx(500.0)


def test_the_bound_counts_whole_containers_each_with_its_reservation() -> None:
    rented = Bound(usd_per_s=0.001, cold_start_s=0, window_s=0, containers=2, cap_usd=1.0, reserve_usd=0.3)
    assert rented.alive_s(100, 2) == pytest.approx(200)
    assert rented.alive_s(300, 2) == pytest.approx(400 + 100), "two for 200 s, then one, as 0.4 of a dollar are spent"
    assert rented.alive_s(1e6, 2) == rented.alive_s(1e6, 1) == pytest.approx(700), "a reservation is never spent"


@pytest.mark.parametrize("kind", bench.KINDS)
def test_a_trace_of_each_kind_is_played_near_the_bound_and_no_worse_than_simple_policies(kind: str) -> None:
    row = bench.measure(bench.case(kind, 0))
    assert bench.holds(row), row
