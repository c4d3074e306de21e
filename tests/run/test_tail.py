"""What this machine should have back of a run's tail, and what it should not begin."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest

from gx.core.terms import Terms
from gx.run.placement import Verdict
from gx.run.rent.outlook import Here
from gx.run.rent.tail import There, ends_s, outlasts
from tests.desk import open_desk
from tests.fakes import ManualClock, ScriptedLandlord
from tests.run.rented import NEVER, ROWS, PacedWorker, passes, until_passing
from tests.run.test_dispatcher import FAN_OUT
from tests.run.test_rented_turns import heavy

pytestmark = pytest.mark.anyio


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


async def test_this_machine_begins_all_while_nobody_pays_containers_or_they_are_refused(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER, inputs=4)
    edge = PacedWorker(NEVER, leases=1)
    edge.tokens_per_s = 1.0
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=Terms(usd=1.0, max_containers=1))
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 4)
        renter, here = active.renter, Here(edge.rate(), 1)
        assert renter is not None
        landlord.worker.seen("A")
        ((task, turn),) = edge.running.items()
        edge.end(task, heavy(turn))
        await passes(desk, 6)
        assert renter.is_outlasted(here, clock.time), "containers are up, and sooner done with all than one task here"
        landlord.worker.until = clock.time - 1
        assert not renter.is_outlasted(here, clock.time)
        landlord.worker.until = clock.time + 60
        assert renter.is_outlasted(here, clock.time)
        renter._refusals.rest("the quota is reached")
        assert not renter.is_outlasted(here, clock.time)
