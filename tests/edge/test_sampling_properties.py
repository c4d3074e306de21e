"""Whatever the row, the settings leave what a plain reading of their definitions leaves."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.engine.sampling import PENALTY_TOKENS, Sampler
from gx.core.message import Sampling

rows = st.lists(st.floats(-8, 8, width=16), min_size=2, max_size=30).map(lambda row: np.array(row, np.float32))
quick = settings(deadline=None, max_examples=60)


def kept(row: npt.NDArray[np.float32], **fields: Any) -> set[int]:
    sampler = Sampler(Sampling(temperature=1.0, **fields))
    return {sampler.pick(row) for _ in range(300)}


@quick
@given(rows, st.data())
def test_a_bias_forbids_and_forces(row: npt.NDArray[np.float32], data: st.DataObject) -> None:
    token = data.draw(st.integers(0, len(row) - 1))
    assert token not in kept(row, logit_bias={str(token): -100.0})
    assert kept(row, logit_bias={str(token): 100.0}) == {token}


@quick
@given(rows, st.data(), st.integers(0, 2**32 - 1))
def test_a_bias_is_as_if_the_model_had_said_so(row: npt.NDArray[np.float32], data: st.DataObject, seed: int) -> None:
    bias = data.draw(st.dictionaries(st.integers(0, len(row) - 1), st.floats(-5, 5, width=16)))
    biased, plain = row.copy(), row.copy()
    for token, more in bias.items():
        biased[token] += np.float32(more)
    named = {str(token): more for token, more in bias.items()}
    one = Sampler(Sampling(temperature=0.9, top_p=0.9, seed=seed, logit_bias=named))
    other = Sampler(Sampling(temperature=0.9, top_p=0.9, seed=seed))
    assert [one.pick(row) for _ in range(20)] == [other.pick(biased) for _ in range(20)]
    assert row.tolist() == plain.tolist()


@quick
@given(rows, st.floats(0.05, 0.99))
def test_typical_tokens_are_the_nearest_to_the_entropy(row: npt.NDArray[np.float32], typical_p: float) -> None:
    shares = np.exp(row.astype(np.float64) - np.logaddexp.reduce(row.astype(np.float64)))
    entropy = -sum(share * math.log(share) for share in shares)
    distances = [abs(-math.log(share) - entropy) for share in shares]
    found = kept(row, typical_p=typical_p)
    farthest = max(distances[token] for token in found)
    nearer = [token for token, distance in enumerate(distances) if distance < farthest - 1e-9]
    assert sum(shares[nearer]) <= typical_p + 1e-9  # without the last ones it would be too little


@quick
@given(
    rows,
    st.data(),
    st.floats(0.5, 2),
    st.floats(-2, 2),
    st.floats(-2, 2),
)
def test_penalties_are_what_their_definitions_say(
    row: npt.NDArray[np.float32], data: st.DataObject, repetition: float, presence: float, frequency: float
) -> None:
    tokens = st.integers(0, len(row) - 1)
    prompt, answer = data.draw(st.lists(tokens, max_size=90)), data.draw(st.lists(tokens, max_size=90))
    penalties = {"presence_penalty": presence, "frequency_penalty": frequency, "repetition_penalty": repetition}
    sampler = Sampler(Sampling(**penalties), prompt)  # type: ignore[arg-type]
    for token in answer:
        sampler.accept([token])
    expected = row.astype(np.float64)
    for token, count in Counter([*prompt, *answer][-PENALTY_TOKENS:]).items():
        expected[token] *= 1 / repetition if expected[token] > 0 else repetition
        expected[token] -= presence + frequency * count
    assert expected[sampler.pick(row)] >= expected.max() - 1e-3
    assert Sampler(Sampling(), prompt).pick(row) == int(row.argmax())


@pytest.mark.parametrize("fields", [{"top_k": 3}, {"top_p": 0.99}, {"typical_p": 0.99}, {"top_k": 3, "top_p": 0.99}])
def test_a_last_bit_that_falls_otherwise_changes_no_draw(fields: dict[str, Any]) -> None:
    row = np.array([1.0, 1.0, -9.0, 1.0], np.float32)
    for token in range(4):
        other = row.copy()
        other[token] = np.nextafter(row[token], np.float32(9))
        one, same = (Sampler(Sampling(temperature=1.0, **fields)) for _ in range(2))
        assert [one.pick(row) for _ in range(50)] == [same.pick(other) for _ in range(50)]


@quick
@given(st.lists(rows, min_size=1, max_size=8), st.integers(0, 2**32 - 1), st.booleans())
def test_each_token_takes_one_number_of_the_seeds_own_stream(
    many: list[npt.NDArray[np.float32]], seed: int, is_filtered: bool
) -> None:
    fields: dict[str, Any] = {"top_k": 5, "top_p": 0.8, "min_p": 0.01} if is_filtered else {}
    sampler, plain = Sampler(Sampling(temperature=0.8, seed=seed, **fields)), np.random.Generator(np.random.PCG64(seed))
    for row in many:
        sampler.pick(row)
    plain.random(len(many))
    assert sampler._random.random() == plain.random()
