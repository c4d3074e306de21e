"""Rates, estimates, and what the ledger makes of a container's life."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.cost import (
    COLD_START_S,
    GIB_USD_PER_S,
    LEAST_GIB,
    RATES,
    SCALEDOWN_S,
    estimate,
    input_s,
    memory_gib,
    sized,
)
from gx.core.ledger import LEASE_S, Container, Ledger, ended, given_up, may_spawn, renewable, renewed, settled, spawned

MONEY = st.floats(0, 10)
SECONDS = st.floats(0, 10_000)


def container(id: str = "c1", at_s: float = 0.0, usd_per_s: float = 0.001, timeout_s: float = 120.0) -> Container:
    return Container(
        id=id, gpu="L4", usd_per_s=usd_per_s, spawned_s=at_s, settled_s=at_s, renewed_s=at_s, timeout_s=timeout_s,
        cold_start_s=COLD_START_S, window_s=SCALEDOWN_S,
    )  # fmt: skip


def test_every_rate_says_where_it_is_from_and_counts_more_than_the_gpu() -> None:
    assert {"T4", "L4", "A10", "H100"} <= set(RATES)
    for rates in RATES.values():
        assert rates.source.startswith("https://") and rates.date
        assert rates.usd_per_s > rates.gpu_usd_per_s


def test_a_containers_exposure_is_its_age_start_lease_time_out_and_tail() -> None:
    one = container()
    assert one.exposure_usd == pytest.approx(0.001 * (COLD_START_S + LEASE_S + 120 + SCALEDOWN_S))
    (later,) = renewed(spawned(Ledger(cap_usd=1), one), ["c1"], 100.0).alive.values()
    assert later.exposure_usd == pytest.approx(one.exposure_usd + 0.1)


def test_a_spawn_needs_room_for_its_whole_reservation() -> None:
    one = container()
    assert may_spawn(Ledger(cap_usd=one.exposure_usd), one)
    assert not may_spawn(Ledger(cap_usd=one.exposure_usd - 1e-6), one)
    assert not may_spawn(spawned(Ledger(cap_usd=1.5 * one.exposure_usd), one), container("c2"))


def test_a_life_costs_its_seconds_and_frees_the_rest() -> None:
    ledger = ended(spawned(Ledger(cap_usd=1), container(at_s=10.0)), "c1", 60.0)
    assert ledger.settled_usd == ledger.exposure_usd == pytest.approx(0.05)
    assert ended(ledger, "c1", 90.0) == ledger


def test_settling_changes_what_is_known_and_not_what_is_at_stake() -> None:
    ledger = renewed(spawned(Ledger(cap_usd=1), container()), ["c1"], 50.0)
    seen = settled(ledger, "c1", 40.0)
    assert seen.settled_usd == pytest.approx(0.04)
    assert seen.exposure_usd == pytest.approx(ledger.exposure_usd)
    assert settled(seen, "c1", 30.0) == seen


def test_a_container_nobody_heard_of_again_costs_the_most_it_can() -> None:
    ledger = spawned(Ledger(cap_usd=1), container())
    bound_s = COLD_START_S + LEASE_S + 120 + SCALEDOWN_S
    assert given_up(ledger, bound_s - 1) == ledger
    assert given_up(ledger, bound_s).settled_usd == pytest.approx(0.001 * bound_s)


def test_at_the_cap_the_oldest_are_spoken_for_first() -> None:
    ledger = Ledger(cap_usd=2 * container().exposure_usd + 0.015)
    for id, at_s in (("b", 0.0), ("a", 1.0)):
        ledger = spawned(ledger, container(id, at_s))
    assert renewable(ledger, 5.0) == ["b", "a"]
    assert renewable(ledger, 12.0) == ["b"]
    assert renewable(ledger, 100.0) == []


@given(cap=MONEY, steps=st.lists(st.tuples(st.sampled_from("sren"), st.integers(0, 4), st.floats(0, 300)), max_size=40))
def test_exposure_never_passes_the_cap_whatever_happens_when(cap: float, steps: list[tuple[str, int, float]]) -> None:
    ledger, now_s = Ledger(cap_usd=cap), 0.0
    for kind, index, passed_s in steps:
        now_s += passed_s
        alive = sorted(ledger.alive)
        if kind == "s" and may_spawn(ledger, one := container(f"c{len(alive)}-{now_s}", now_s)):
            ledger = spawned(ledger, one)
        elif kind == "r":
            ledger = renewed(ledger, renewable(ledger, now_s), now_s)
        elif kind == "e" and index < len(alive):
            ledger = settled(ledger, alive[index], min(now_s, ledger.alive[alive[index]].latest_end_s))
        elif kind == "n" and index < len(alive):
            ledger = ended(ledger, alive[index], min(now_s, ledger.alive[alive[index]].latest_end_s))
        ledger = given_up(ledger, now_s)
        assert ledger.exposure_usd <= cap + 1e-9


def test_an_estimate_is_a_range_that_more_containers_widen_by_their_starts() -> None:
    few, many = (
        estimate(RATES["L4"], tokens=1e6, slow_tokens_per_s=500, fast_tokens_per_s=1000, containers=n) for n in (1, 8)
    )
    assert 0 < few.low_usd < few.high_usd < many.high_usd
    assert few.low_usd == pytest.approx(RATES["L4"].usd_per_s * 1070, abs=1e-3)
    assert (few.source, few.date) == (RATES["L4"].source, RATES["L4"].date)


def test_an_estimate_is_no_more_than_the_cap_and_nothing_for_nothing() -> None:
    args = {"slow_tokens_per_s": 500.0, "fast_tokens_per_s": 1000.0}
    assert estimate(RATES["L4"], tokens=1e7, containers=4, cap_usd=0.5, **args).high_usd == 0.5
    assert estimate(RATES["L4"], tokens=0, containers=4, **args).high_usd == 0.0


def test_a_container_has_memory_for_its_models_and_is_priced_with_it() -> None:
    gib = 1 << 30
    assert [memory_gib(n * gib) for n in (0, 1, 4, 40)] == [LEAST_GIB, LEAST_GIB, 11, 56]
    large = sized(RATES, 40 * gib)["L4"]
    assert large.usd_per_s == pytest.approx(RATES["L4"].usd_per_s + 48 * GIB_USD_PER_S)
    assert sized(RATES, gib) == RATES


@pytest.mark.parametrize("turn_s", [15.0, 600.0])
def test_an_input_has_time_for_its_model_another_turn_and_its_own(turn_s: float) -> None:
    assert input_s(turn_s) > COLD_START_S + turn_s + turn_s
    assert input_s(None) > 600, "where nobody says how long"
