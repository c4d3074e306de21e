"""Tokens are drawn as the settings say, and the same ones for the same seed."""

from __future__ import annotations

import ctypes
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.engine.sampling import PENALTY_TOKENS, Sampler, _likeliest
from gx.core.errors import GxError
from gx.core.ids import digest_of
from gx.core.message import Sampling

ROW = np.log(np.array([0.4, 0.3, 0.2, 0.06, 0.04], np.float32))


def draws(n: int, row: np.ndarray = ROW, **settings: Any) -> Counter[int]:
    sampler = Sampler(Sampling(**{"temperature": 1.0, **settings}))
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
        ({"typical_p": 0.25}, {1}),  # the entropy is 1.36: 0.3 (1.20) is nearest, then 0.2 (1.61)
        ({"typical_p": 0.45}, {1, 2}),
        ({"typical_p": 0.6}, {0, 1, 2}),
        ({"typical_p": 1.0}, {0, 1, 2, 3, 4}),
        ({"top_k": 2, "typical_p": 0.5}, {0}),
        ({"typical_p": 0.6, "top_p": 0.5}, {0, 1}),
        ({"typical_p": 0.45, "min_p": 0.9}, {1}),
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


def test_the_presence_penalty_counts_a_token_once_and_the_frequency_penalty_each_time() -> None:
    row = np.array([2.0, 1.9, 0.5], np.float32)
    for penalty, lost in (({"presence_penalty": 0.5}, [0.5, 0.5, 0]), ({"frequency_penalty": 0.5}, [1.0, 0.5, 0])):
        sampler = Sampler(Sampling(**penalty), prompt=[0, 1])  # type: ignore[arg-type]
        sampler.accept([0])
        assert sampler._changed(row).tolist() == pytest.approx((row - np.array(lost)).tolist())
    assert Sampler(Sampling(presence_penalty=0.5), prompt=[0]).pick(row, best=0) == 1
    assert row.tolist() == pytest.approx([2.0, 1.9, 0.5])


def test_penalties_look_back_on_the_last_tokens_only() -> None:
    sampler = Sampler(Sampling(frequency_penalty=1.0), prompt=[0] * 9)
    sampler.accept([1] * PENALTY_TOKENS)
    assert sampler._changed(np.zeros(2, np.float32)).tolist() == [0.0, -PENALTY_TOKENS]


def test_a_logit_bias_moves_tokens_before_anything_else() -> None:
    assert Sampler(Sampling(logit_bias={"3": 10.0})).pick(ROW, best=0) == 3
    assert set(draws(500, logit_bias={"0": -100.0}, top_k=1)) == {1}
    assert Sampler(Sampling(logit_bias={"3": 10.0})).pick(ROW, np.array([1, 2])) == 1


def test_settings_are_equal_whatever_the_order_of_their_bias() -> None:
    one, same = (Sampling(logit_bias=dict(pairs)) for pairs in ([("5", 1.0), ("3", 2.0)], [("3", 2.0), ("5", 1.0)]))
    assert digest_of(one) == digest_of(same) != digest_of(Sampling())


@pytest.mark.parametrize("bias", [{"99999999999999999999": 1.0}, {"-1": 1.0}, {"1": 1e39}, {"1": float("nan")}])
def test_a_logit_bias_of_what_is_no_token_or_no_logit_is_an_error(bias: dict[str, float]) -> None:
    with pytest.raises(GxError, match="logit_bias must be") as caught:
        Sampler(Sampling(logit_bias=bias))
    assert caught.value.code == "sampling"


def test_a_logit_bias_of_a_token_that_the_model_has_not_is_an_error() -> None:
    with pytest.raises(GxError, match=r"logit_bias .* token 5, and the model has 5") as caught:
        Sampler(Sampling(logit_bias={"5": 1.0})).pick(ROW)
    assert caught.value.code == "sampling"


@pytest.mark.parametrize("seed", range(8))
def test_what_is_kept_is_what_llama_cpp_keeps(seed: int) -> None:
    random = np.random.default_rng(seed)
    row = random.normal(0, 2.5, 300).astype(np.float32)
    recent = random.integers(0, 300, 40).tolist()
    bias = {str(token): float(random.normal(0, 3)) for token in random.integers(0, 300, 5)}
    settings = {"top_k": 60, "typical_p": 0.9, "top_p": 0.8, "min_p": 0.02, "repetition_penalty": 1.3}
    settings |= {"presence_penalty": 0.4, "frequency_penalty": 0.2, "temperature": 0.7}
    theirs = _of_llama_cpp(row, recent, bias, settings)
    sampler = Sampler(Sampling(**settings, logit_bias=bias), prompt=recent)  # type: ignore[arg-type]
    ours = Counter(sampler.pick(row) for _ in range(6000))
    assert set(ours) <= set(theirs)
    for token, share in theirs.items():
        assert ours[token] / 6000 == pytest.approx(share, abs=0.03)
        assert token in ours or share < 0.005


def _of_llama_cpp(
    row: np.ndarray, recent: list[int], bias: dict[str, float], settings: dict[str, Any]
) -> dict[int, float]:
    """The tokens that llama.cpp's own chain keeps, with their shares."""
    import llama_cpp as llama

    biases = (llama.llama_logit_bias * len(bias))(
        *(llama.llama_logit_bias(int(token), more) for token, more in bias.items())
    )
    penalties = [settings[f"{name}_penalty"] for name in ("repetition", "frequency", "presence")]
    chain = (
        llama.llama_sampler_init_logit_bias(len(row), len(bias), biases),
        llama.llama_sampler_init_penalties(len(row), PENALTY_TOKENS, *penalties),
        llama.llama_sampler_init_top_k(settings["top_k"]),
        llama.llama_sampler_init_typical(settings["typical_p"], 1),
        llama.llama_sampler_init_top_p(settings["top_p"], 1),
        llama.llama_sampler_init_min_p(settings["min_p"], 1),
        llama.llama_sampler_init_temp(settings["temperature"]),
    )
    tokens = (llama.llama_token_data * len(row))(
        *(llama.llama_token_data(token, float(logit), 0.0) for token, logit in enumerate(row))
    )
    left = llama.llama_token_data_array(tokens, len(row), -1, False)
    for step in chain:
        for token in recent:
            llama.llama_sampler_accept(step, token)
        llama.llama_sampler_apply(step, ctypes.byref(left))
        llama.llama_sampler_free(step)
    logits = np.array([left.data[place].logit for place in range(left.size)])
    shares = np.exp(logits - logits.max())
    return {left.data[place].id: shares[place] / shares.sum() for place in range(left.size)}


@pytest.mark.parametrize(
    "setting",
    [
        {"temperature": -1.0},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"typical_p": 0.0},
        {"repetition_penalty": 0.0},
        {"presence_penalty": 2.5},
        {"frequency_penalty": -2.5},
        {"logit_bias": {"-1": 1.0}},
        {"logit_bias": {"the": 1.0}},
        {"logit_bias": {"1": float("inf")}},
        {"max_tokens": 0},
        {"logprobs": 21},
        {"logprobs": -1},
        {"seed": -1},
    ],
)
def test_a_setting_out_of_range_is_named(setting: dict[str, Any]) -> None:
    with pytest.raises(GxError, match=next(iter(setting))) as caught:
        Sampler(Sampling(**setting))  # type: ignore[arg-type]
    assert caught.value.code == "sampling"


def test_logits_that_are_not_numbers_are_an_error() -> None:
    with pytest.raises(GxError, match="aren't numbers"):
        Sampler(Sampling()).pick(np.full(5, np.nan, np.float32))
