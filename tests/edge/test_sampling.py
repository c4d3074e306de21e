"""Tokens are drawn as the settings say, and the same ones for the same seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.engine.sampling import Sampler, _likeliest
from gx.core.errors import GxError
from gx.core.message import Sampling

ROW = np.log(np.array([0.4, 0.3, 0.2, 0.06, 0.04], np.float32))


def draws(n: int, row: np.ndarray = ROW, **settings: float | int | None) -> Counter[int]:
    sampler = Sampler(Sampling(**{"temperature": 1.0, **settings}))  # type: ignore[arg-type]
    return Counter(sampler.pick(row) for _ in range(n))


def test_temperature_zero_takes_the_likeliest() -> None:
    assert draws(20, temperature=0.0) == {0: 20}


def test_the_same_seed_draws_the_same() -> None:
    one, same, other = (Sampler(Sampling(temperature=1.0, seed=s)) for s in (5, 5, 6))
    first = [one.pick(ROW) for _ in range(50)]
    assert first == [same.pick(ROW) for _ in range(50)]
    assert first != [other.pick(ROW) for _ in range(50)]


def test_draws_follow_the_distribution() -> None:
    counts = draws(20_000)
    for token, share in enumerate([0.4, 0.3, 0.2, 0.06, 0.04]):
        assert counts[token] / 20_000 == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 1}, {0}),
        ({"top_p": 0.65}, {0, 1}),
        ({"top_p": 0.75}, {0, 1, 2}),
        ({"top_p": 0.0001}, {0}),
        ({"min_p": 0.4}, {0, 1, 2}),
        ({"min_p": 1.0}, {0}),
        ({"top_k": 3, "top_p": 0.5, "min_p": 0.1}, {0, 1}),
        ({}, {0, 1, 2, 3, 4}),
    ],
)
def test_filters_keep_the_likeliest(settings: dict[str, float], kept: set[int]) -> None:
    assert set(draws(2000, **settings)) == kept


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.999))
def test_a_nucleus_found_in_the_head_is_the_nucleus_of_the_whole_row(seed: int, top_p: float) -> None:
    row = np.random.default_rng(seed).normal(0, 4, 3000).astype(np.float32)
    order = np.argsort(-row, kind="stable")
    mass = np.cumsum(np.exp(row[order].astype(np.float64)))
    size = int(np.searchsorted(mass, top_p * mass[-1])) + 1
    kept = _likeliest(row, None, top_p)
    assert kept is not None and abs(len(kept) - size) <= 1  # sums in another order may differ in their last bits
    assert kept.tolist() == order[: len(kept)].tolist()


def test_only_allowed_tokens_are_drawn() -> None:
    allowed = np.array([2, 4])
    assert Sampler(Sampling()).pick(ROW, allowed) == 2
    sampler = Sampler(Sampling(temperature=1.0))
    assert {sampler.pick(ROW, allowed) for _ in range(200)} == {2, 4}


def test_the_repetition_penalty_makes_recent_tokens_less_likely_and_spares_the_row() -> None:
    row = np.array([2.0, 1.9, -1.0], np.float32)
    sampler = Sampler(Sampling(repetition_penalty=1.5), prompt=[0])
    assert sampler.pick(row) == 1
    sampler.accept([1])
    assert sampler.pick(np.array([2.0, 1.9, 1.5], np.float32)) == 2
    assert row.tolist() == pytest.approx([2.0, 1.9, -1.0])


@pytest.mark.parametrize(
    "setting",
    [
        {"temperature": -1.0},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"max_tokens": 0},
        {"seed": -1},
    ],
)
def test_a_setting_out_of_range_is_named(setting: dict[str, float]) -> None:
    with pytest.raises(GxError, match=next(iter(setting))) as caught:
        Sampler(Sampling(**setting))  # type: ignore[arg-type]
    assert caught.value.code == "sampling"


def test_logits_that_are_not_numbers_are_an_error() -> None:
    with pytest.raises(GxError, match="aren't numbers"):
        Sampler(Sampling()).pick(np.full(5, np.nan, np.float32))
