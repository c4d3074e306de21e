"""An answer is taken as its settings say: it ends where it must, and tells what it was asked to tell."""

from __future__ import annotations

import math
from itertools import takewhile
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.engine.writing import Writing
from gx.core.message import Sampling, TokenLogprob

# Token 0 ends an answer. The others stand for bytes, some of which are parts of characters.
PIECES = [b"", b"a", b"b", b"ab", b"ba", b"\xc3", b"\xa9", "é".encode(), b"aab"]
N_VOCAB = len(PIECES)


def writing(limit_tokens: int = 64, **fields: Any) -> Writing:
    return Writing(
        np.array([1], np.int32),
        limit_tokens=limit_tokens,
        sampling=Sampling(**fields),
        constraint=None,
        piece=PIECES.__getitem__,
        eog=frozenset({0}),
    )


def row_of(token: int) -> npt.NDArray[np.float32]:
    """Logits that make one token the likeliest."""
    row = np.zeros(N_VOCAB, np.float32)
    row[token] = 9.0
    return row


@settings(deadline=None)
@given(
    st.lists(st.integers(0, N_VOCAB - 1), min_size=1, max_size=40),
    st.lists(st.sampled_from(["aa", "bab", "éa", "ab", "aé", ""]), max_size=3),
    st.integers(1, 30),
)
def test_an_answer_ends_at_a_stop_string_an_end_token_or_the_limit(
    tokens: list[int], stop: list[str], limit_tokens: int
) -> None:
    one, fed, previews = writing(limit_tokens, stop=tuple(stop)), list[int](), ""
    for token in tokens:
        if one.finish is None:
            fed.append(token)
            one.advance(row_of(token))
            previews += one.fresh_text()
    taken = list(takewhile(bool, fed))
    whole = b"".join(PIECES[token] for token in taken).decode("utf-8", "replace")
    ends = [whole.index(text) for text in stop if text and text in whole]
    is_cut = len(taken) == limit_tokens
    assert one.tokens_out == len(taken) <= limit_tokens
    assert one.finish == ("stop" if ends or len(taken) < len(fed) else "length" if is_cut else None)
    if one.finish is None:
        assert whole.startswith(one.text) and one.text.startswith(previews)
    else:
        assert previews == one.text == whole[: min(ends, default=len(whole))]


@settings(deadline=None)
@given(st.lists(st.integers(1, N_VOCAB - 1), min_size=2, max_size=30), st.floats(0.1, 2))
def test_the_frequency_penalty_counts_what_was_written(tokens: list[int], penalty: float) -> None:
    one = writing(frequency_penalty=penalty)
    for token in tokens:
        one.advance(row_of(token) * 100)
    counts = np.bincount([1, *tokens], minlength=N_VOCAB)
    (drawn,) = one.advance(row_of(0) * -100)  # all but the end are equally likely
    assert counts[drawn] == counts[1:].min()


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 20), st.sampled_from([0.0, 0.7, 1.5]))
def test_logprobs_are_of_the_models_own_distribution(seed: int, n_top: int, temperature: float) -> None:
    rows = np.random.default_rng(seed).normal(0, 3, (6, N_VOCAB)).astype(np.float32)
    rows[:, 0] = -50.0
    harsh: Any = {"repetition_penalty": 1.5, "presence_penalty": 1.0, "logit_bias": {"2": 5.0}, "top_k": 3}
    one = writing(temperature=temperature, seed=seed, logprobs=n_top, **harsh)
    drawn = [one.advance(row.copy())[0] for row in rows]
    logs = rows.astype(np.float64) - np.logaddexp.reduce(rows.astype(np.float64), axis=1, keepdims=True)
    assert [told.token for told in one.logprobs] == drawn
    for told, log in zip(one.logprobs, logs, strict=True):
        assert told.piece == PIECES[told.token]
        assert told.logprob == pytest.approx(log[told.token], abs=1e-5)
        assert [other.token for other in told.top] == np.argsort(-log, kind="stable")[:n_top].tolist()
        assert [other.logprob for other in told.top] == pytest.approx(np.sort(log)[::-1][:n_top].tolist(), abs=1e-5)


def test_logprobs_are_told_only_where_they_are_asked_for() -> None:
    one = writing()
    one.advance(row_of(3))
    assert one.logprobs == []


def test_an_end_token_is_not_told_and_a_stop_strings_tokens_are() -> None:
    ended, stopped = writing(logprobs=0), writing(logprobs=0, stop=("ab",))
    for token in (1, 2, 0):
        ended.advance(row_of(token))
    for token in (2, 1, 2):
        stopped.advance(row_of(token))
    assert [told.token for told in ended.logprobs] == [1, 2] and ended.text == "ab"
    assert [told.token for told in stopped.logprobs] == [2, 1, 2] and stopped.text == "b"


class Forcing:
    """A constraint that forces two tokens at first, and two more after the first that is drawn."""

    subject, is_json, is_complete = "shape", False, False

    def forced(self) -> list[int]:
        return [5, 6]

    def pick(self, row: npt.NDArray[np.float32], sampler: object, *, best: int | None = None) -> int:
        return 3


def test_what_a_constraint_forced_has_no_logprob() -> None:
    one = Writing(
        np.array([1], np.int32),
        limit_tokens=4,
        sampling=Sampling(logprobs=1),
        constraint=Forcing(),  # type: ignore[arg-type]
        piece=PIECES.__getitem__,
        eog=frozenset(),
    )
    assert one.prompt.tolist() == [1, 5, 6]
    assert one.advance(row_of(1)) == [3, 5]
    first, second, drawn, last = one.logprobs
    assert [first, second, last] == [TokenLogprob(token=t, piece=PIECES[t]) for t in (5, 6, 5)]
    likeliest = 9.0 - math.log(math.exp(9.0) + N_VOCAB - 1)
    assert drawn.logprob == pytest.approx(likeliest - 9.0, abs=1e-5)
    assert [(other.token, other.piece) for other in drawn.top] == [(1, b"a")]
    assert drawn.top[0].logprob == pytest.approx(likeliest, abs=1e-5)
