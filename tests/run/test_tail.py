"""What this machine should have back of a run's tail, and what it should not begin."""

from __future__ import annotations

from math import inf

import pytest

from gx.run.placement import Verdict
from gx.run.tail import There, ends_s, outlasts


def test_in_a_cold_cloud_a_task_ends_a_start_and_a_round_later() -> None:
    there = There(task_s=10, at_once=2, start_s=30)
    assert ends_s([("a", 0), ("b", 0), ("c", 0)], there, 5) == [("a", 40), ("b", 40), ("c", 50)]


def test_a_task_that_runs_has_the_rest_of_its_time_and_one_that_waits_a_round_more() -> None:
    there = There(task_s=10, at_once=2, up_since_s=0)
    assert ends_s([("a", 4), ("b", 0), ("c", 4)], there, 6) == [("a", 8), ("b", 4), ("c", 20)]


def test_what_takes_longer_than_expected_is_expected_to_take_as_long_again() -> None:
    assert ends_s([("a", 0)], There(task_s=10, at_once=1), 25) == [("a", 25)]


def test_the_time_before_a_container_was_up_does_not_count() -> None:
    assert ends_s([("a", 0)], There(task_s=10, at_once=1, up_since_s=20), 25) == [("a", 5)]


@pytest.mark.parametrize(
    "verdict, there, expected",
    [
        (Verdict(gpu="L4", containers=1, finish_s=20), There(task_s=5, at_once=4, heard_s=95), True),
        (Verdict(gpu="L4", containers=1, finish_s=50), There(task_s=5, at_once=4, heard_s=95), False),
        (Verdict(gpu="L4", containers=1, finish_s=20), There(task_s=5, at_once=4, heard_s=10), False),
        (Verdict(gpu="L4", containers=1, finish_s=20), There(task_s=5, at_once=4, start_s=9), False),
        (Verdict(gpu="L4", containers=1), There(task_s=5, at_once=4, heard_s=95), False),
        (None, There(task_s=5, at_once=4, heard_s=95), False),
    ],
)
def test_a_task_outlasts_only_containers_that_answer_and_have_an_end(
    verdict: Verdict | None, there: There, expected: bool
) -> None:
    assert outlasts(verdict, there, edge_task_s=30, now=100) is expected
    assert not outlasts(verdict, there, edge_task_s=1, now=100)
    assert outlasts(verdict, there, edge_task_s=inf, now=100) is (
        expected or (verdict is not None and verdict.finish_s == 50)
    )
