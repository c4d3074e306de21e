"""A recorded run on a simulated clock: lines through calls, benches, containers, and the play itself."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gx.core.message import Counts
from gx.core.task import Offer
from gx.run.replay.engine import Bench, Load
from gx.run.replay.line import Line, Pace, fitted, pace_of
from gx.run.replay.play import play
from gx.run.replay.rented import Pool
from gx.run.replay.trace import Edge, Job, Policy, Rental, Trace

PACE = Pace(decode=Line(fixed_s=0.01, each_s=0.002), prefill=Line(each_s=0.001))
EDGE = Edge(pace=PACE, slots=4)
OFFER = Offer(gpu="L4", tokens_per_s=2000, usd_per_s=0.001, cold_start_s=20, window_s=5, reserve_usd=0.1)
RENTAL = Rental(offer=OFFER, pace=PACE.faster(10), slots=8)


def jobs(n: int, **more: object) -> tuple[Job, ...]:
    return tuple(msgspec.structs.replace(Job(task=f"t{i}", tokens_in=50, tokens_out=100), **more) for i in range(n))


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.floats(1e-4, 0.1), st.floats(1e-5, 0.01), st.lists(st.integers(1, 64), min_size=2, max_size=50))
def test_a_line_is_found_from_sums_alone(fixed_s: float, each_s: float, rows: list[int]) -> None:
    times = [fixed_s + each_s * n for n in rows]
    sums = (
        len(rows),
        sum(rows),
        sum(n * n for n in rows),
        sum(times),
        sum(n * t for n, t in zip(rows, times, strict=True)),
    )
    line = fitted(*sums)
    assert len(rows) * line.fixed_s + sum(rows) * line.each_s == pytest.approx(sum(times))
    if not line.is_assumed:
        assert (line.fixed_s, line.each_s) == (pytest.approx(fixed_s, rel=1e-3), pytest.approx(each_s, rel=1e-3))


def test_calls_that_are_all_alike_tell_no_line_but_their_sum() -> None:
    line = fitted(100, 800, 6400, 4.0, 32.0)
    assert line.is_assumed and 100 * line.fixed_s + 800 * line.each_s == pytest.approx(4.0)


def test_no_side_of_a_line_is_negative() -> None:
    falling, steep = fitted(2, 6, 20, 3.0, 8.0), fitted(2, 6, 20, 3.0, 13.0)
    assert falling.each_s == 0 and falling.fixed_s == 1.5
    assert steep.fixed_s == 0 and steep.each_s == 0.5
    assert fitted(0, 0, 0, 0, 0) == Line()


def test_what_the_engine_does_beside_its_calls_counts_by_the_row() -> None:
    counts = Counts(decode_calls=10, decode_tokens=50, decode_squares=300, decode_s=1.0, decode_token_s=5.5, busy_s=1.5)
    pace = pace_of(counts, 100)
    assert (pace.row_s, pace.rounds) == (pytest.approx(0.01), 0.5)


# ── benches ──────────────────────────────────────────────────────────────────────────────────────────────────────


def run_out(bench: Bench) -> float:
    last = 0.0
    while (at_s := bench.next_s()) is not None:
        last = at_s
        bench.advance(at_s)
    return last


def test_a_bench_takes_prompts_one_by_one_and_writes_together() -> None:
    bench = Bench(PACE, slots=4)
    for i in range(4):
        bench.submit(Load(f"t{i}", 50, 100))
    assert run_out(bench) == pytest.approx(4 * 0.05 + 100 * (0.01 + 4 * 0.002))


def test_what_does_not_fit_waits_for_a_slot() -> None:
    bench = Bench(PACE, slots=1, now_s=5.0)
    for i in range(2):
        bench.submit(Load(f"t{i}", 0, 100))
    assert (bench.running, bench.waiting, bench.held) == (1, 1, 2)
    assert run_out(bench) == pytest.approx(5.0 + 2 * 100 * 0.012)


@given(st.lists(st.floats(0.01, 3.0), max_size=20))
def test_looking_at_a_bench_more_often_changes_nothing(looks: list[float]) -> None:
    once, often = Bench(PACE, slots=3), Bench(PACE, slots=3)
    loads = [Load(f"t{i}", 10 * i, 5 + 7 * i) for i in range(6)]
    for load in loads:
        once.submit(load)
        often.submit(load)
    now_s, ended = 0.0, list[str]()
    for passed_s in looks:
        now_s += passed_s
        ended += often.advance(now_s)
    ended += often.advance(1000.0)
    assert ended == once.advance(1000.0) and len(ended) == 6


def test_a_container_costs_from_its_spawn_to_the_end_of_its_idling() -> None:
    pool = Pool(RENTAL)
    pool.scale(2, 0.0)
    pool.submit(Load("t", 0, 1000), 0.0)
    assert (pool.ready(10.0), pool.start_left_s(10.0), pool.running) == (0, 10.0, 0)
    assert pool.advance(20.0) == [] and pool.running == 1
    done_s = 20.0 + 1000 * PACE.faster(10).round_s(1)
    assert pool.advance(done_s) == ["t"]
    pool.scale(0, done_s)
    pool.advance(1000.0)
    assert pool.alive == 0 and pool.seconds(1000.0) == pytest.approx(2 * (done_s + 5), abs=5.0)


# ── plays ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_more_slots_end_sooner_and_no_faster_than_their_rows_cost() -> None:
    times = [play(Trace(jobs=jobs(64)), Policy(slots=n), EDGE).makespan_s for n in (1, 4, 16)]
    assert times == sorted(times, reverse=True)
    assert times[2] > 64 * (0.05 + 100 * 0.002)


def test_a_group_begins_when_those_it_needs_have_ended() -> None:
    first, second = jobs(4, group="a"), tuple(msgspec.structs.replace(j, task=f"u{j.task}", group="b") for j in jobs(4))
    apart = play(Trace(jobs=first), Policy(slots=4), EDGE).makespan_s
    both = Trace(jobs=(*first, *second), after={"b": ("a",)})
    assert play(both, Policy(slots=8), EDGE).makespan_s == pytest.approx(2 * apart)


def test_the_same_play_gives_the_same_figures() -> None:
    policy = Policy(slots=4, burst="auto", containers=3, usd=1.0)
    assert play(Trace(jobs=jobs(300)), policy, EDGE, RENTAL) == play(Trace(jobs=jobs(300)), policy, EDGE, RENTAL)


def test_every_change_of_verdict_is_told_once_with_its_sentence() -> None:
    played = play(Trace(jobs=jobs(600)), Policy(slots=4, burst="auto", containers=3), EDGE, RENTAL)
    numbers = [verdict.containers for _, verdict in played.decisions]
    assert numbers[0] > 0 and numbers[-1] == 0
    assert all(one != other for one, other in pairwise(numbers))
    assert all("tokens/s" in verdict.reason for _, verdict in played.decisions)


def test_private_tasks_are_done_here_whatever_is_rented() -> None:
    played = play(Trace(jobs=jobs(200, is_private=True)), Policy(slots=4, burst="always", containers=2), EDGE, RENTAL)
    assert (played.edge_tasks, played.cloud_tasks) == (200, 0)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 120),
    usd=st.floats(0.05, 1.5),
    containers=st.integers(1, 6),
    burst=st.sampled_from(["auto", "always"]),
    gaps=st.lists(st.floats(0, 60), max_size=5),
)
def test_each_task_is_done_once_and_the_cap_is_kept(
    n: int, usd: float, containers: int, burst: str, gaps: list[float]
) -> None:
    arrivals = [0.0, *gaps]
    traced = tuple(msgspec.structs.replace(j, at_s=arrivals[i % len(arrivals)]) for i, j in enumerate(jobs(n)))
    policy = msgspec.convert({"slots": 4, "burst": burst, "containers": containers, "usd": usd}, Policy)
    played = play(Trace(jobs=traced), policy, EDGE, RENTAL)
    assert played.edge_tasks + played.cloud_tasks == n
    assert played.usd <= usd


def test_a_policy_that_rents_needs_something_to_rent() -> None:
    with pytest.raises(ValueError):
        play(Trace(jobs=jobs(1)), Policy(slots=1, burst="auto", containers=1), EDGE)
