"""Threads are given up where somebody else takes a core, and taken back; where nobody does, nothing is tried.

The machines here are formulas: how long a call takes on so many threads, and which share of them it gets.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.engine.pace import LATEST, LONGEST_TRIAL, Pace

Machine = Callable[[int], tuple[float, float]]
"""By a number of threads: the milliseconds of a token, and the share of the threads that the processor had time for."""
A_TRIAL = LATEST + LONGEST_TRIAL


def ours(threads: int) -> tuple[float, float]:
    return 1 / threads, 0.97


def shared(threads: int) -> tuple[float, float]:
    """Somebody else keeps one of two cores busy."""
    return (1.0, 0.95) if threads == 1 else (1.4, 0.65)


def hogged(threads: int) -> tuple[float, float]:
    """Somebody else keeps one of 16 cores busy: with all of them taken, each waits for the one that is shared."""
    return (1 / threads, 0.97) if threads < 16 else (2 / threads, 0.8)


def elsewhere(threads: int) -> tuple[float, float]:
    """What computes is no processor: threads don't matter."""
    return 1.0, 0.1


class Run:
    """Plays calls on a machine, and remembers their threads and those that were tried."""

    def __init__(self, most: int, seed: int = 0, noise: float = 0.0) -> None:
        self.pace, self._dice, self._noise = Pace(most), random.Random(seed), noise
        self.threads: list[int] = []

    def play(self, n_calls: int, machine: Machine, kinds: tuple[Hashable, ...] = ("decode",)) -> list[int]:
        """The threads of `n_calls` calls."""
        for _ in range(n_calls):
            kind = self._dice.choice(kinds)
            threads = self.pace.next(kind)
            n_tokens = self._dice.randint(1, 32)
            seconds, share = machine(threads)
            seconds *= 0.001 * n_tokens * (1 + self._dice.uniform(-self._noise, self._noise))
            self.pace.took(kind, threads, n_tokens, seconds=seconds, cpu_seconds=seconds * share * threads)
            self.threads.append(threads)
        return self.threads[-n_calls:]


@pytest.mark.parametrize("most", [1, 2, 16])
def test_where_nobody_disturbs_nothing_is_tried(most: int) -> None:
    assert set(Run(most, noise=0.1).play(5000, ours)) == {most}


def test_of_two_cores_the_one_that_is_shared_is_given_up_and_taken_back() -> None:
    run = Run(2)
    run.play(100, ours)
    run.play(60, shared)
    assert run.pace.threads == 1
    steady = run.play(5000, shared)
    assert run.pace.threads == 1 and steady.count(2) <= 5000 * 3 // LATEST * 2
    run.play(A_TRIAL, ours)
    assert run.pace.threads == 2 and set(run.play(1000, ours)) == {2}


def test_a_core_that_is_shared_for_a_moment_is_soon_taken_back() -> None:
    run = Run(2)
    run.play(60, shared)
    run.play(60, ours)
    assert run.pace.threads == 2


def test_few_long_calls_tell_as_much_as_many_short_ones() -> None:
    """Beside a compiler a prompt of 512 tokens took 3 s on two threads: eight of those are too long to wait."""
    run = Run(2)
    taken = run.play(8, lambda threads: (3000.0 * shared(threads)[0], shared(threads)[1]))
    assert run.pace.threads == 1 and taken.count(2) <= 4


def test_of_sixteen_cores_few_are_given_up_for_one_that_is_shared() -> None:
    run = Run(16)
    run.play(200, hogged)
    assert 13 <= run.pace.threads <= 15
    run.play(2 * A_TRIAL, ours)
    assert run.pace.threads == 16


@pytest.mark.parametrize("seed", range(5))
def test_noise_seldom_changes_the_number(seed: int) -> None:
    run = Run(2, seed, noise=0.1)
    run.play(200, shared)
    assert run.pace.threads == 1
    numbers = []
    for _ in range(5000):
        run.play(1, shared)
        numbers.append(run.pace.threads)
    assert sum(one != other for one, other in pairwise(numbers)) <= 2


@pytest.mark.parametrize("most", [2, 16])
def test_where_threads_do_not_matter_they_are_seldom_tried(most: int) -> None:
    calls = Run(most).play(20_000, elsewhere)
    assert sum(threads != most for threads in calls) <= 3 * (20_000 // LATEST + 8)


def test_a_trial_compares_calls_of_the_same_kind() -> None:
    """Prompts are ten times as fast for each token: compared with answers they would make any number the better one."""
    run = Run(4)
    costs = {"decode": 1.0, "prefill": 0.1}
    for number in range(2000):
        kind = "prefill" if number % 2 else "decode"
        threads = run.pace.next(kind)
        run.pace.took(kind, threads, 1, seconds=costs[kind] / threads, cpu_seconds=costs[kind] * 0.5)
    assert run.pace.threads == 4


def test_a_clock_that_stands_still_decides_nothing() -> None:
    run = Run(2)
    run.play(60, lambda threads: (0.0, 0.0))
    run.play(12, lambda threads: (1.0, 0.1))
    run.play(60, lambda threads: (0.0, 0.0))
    assert run.pace.threads == 2


CALLS = st.tuples(
    st.integers(0, 5), st.integers(1, 2048), st.floats(0, 10, allow_nan=False), st.floats(0, 200, allow_nan=False)
)


@given(most=st.integers(1, 64), calls=st.lists(CALLS, max_size=300))
@settings(max_examples=200, deadline=None)
def test_whatever_calls_take_threads_stay_within_their_bounds(
    most: int, calls: list[tuple[int, int, float, float]]
) -> None:
    pace = Pace(most)
    for kind, n_tokens, seconds, cpu_seconds in calls:
        threads = pace.next(kind)
        assert 1 <= threads <= most and 1 <= pace.threads <= most
        pace.took(kind, threads, n_tokens, seconds=seconds, cpu_seconds=cpu_seconds)


@given(most=st.integers(2, 64), kinds=st.lists(st.integers(0, 999), min_size=LONGEST_TRIAL, max_size=LONGEST_TRIAL))
@settings(max_examples=100, deadline=None)
def test_every_trial_ends(most: int, kinds: list[int]) -> None:
    pace = Pace(most)
    while pace._trial is None:
        pace.took(0, pace.next(0), 1, seconds=0.01, cpu_seconds=0.001)
    trial = pace._trial
    for kind in kinds:
        pace.took(kind, pace.next(kind), 1, seconds=0.01, cpu_seconds=0.001)
    assert pace._trial is not trial
