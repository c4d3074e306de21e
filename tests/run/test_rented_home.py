"""What came home from containers stays here, holds up nothing that may be lent, and is lent again on new terms."""

from __future__ import annotations

from pathlib import Path

import pytest

from gx.core import event as e
from gx.core.renting import rent_of
from gx.core.task import Rate
from gx.core.terms import Terms
from gx.core.view import RunState
from gx.run import scheduler
from gx.run.fairness import ASSUMED_TOKENS
from gx.run.rent import renting
from tests.desk import Desk, open_desk
from tests.fakes import ManualClock, ScriptedLandlord, ScriptedWorker
from tests.run.rented import NEVER, settled, until_passing
from tests.run.test_dispatcher import FAN_OUT, texts
from tests.run.test_scheduler import IDLE, run_of

pytestmark = pytest.mark.anyio
ONE = Terms(mode="force", max_containers=1, usd=1.0)


def waiting(ready: int, unprepared: int) -> RunState:
    """A run with so many tasks that may run, and so many whose turn was not made yet."""
    run = run_of(ready + unprepared)
    for task in list(run.ready)[ready:]:
        del run.ready[task]
        run.unprepared[task] = None
    return run


def test_what_came_home_is_counted_as_it_is_and_says_nothing_of_what_is_not_prepared() -> None:
    run = waiting(4, 6)
    *home, private, _ = run.ready
    found = renting.figures(
        run,
        rent_of(ONE),
        edge=Rate(tokens_in_per_s=1.0, tokens_out_per_s=1.0),
        start_left_s=0.0,
        may_travel=lambda task: task != private,
        home=home,
        now=0.0,
    )
    assert found.backlog_tokens == pytest.approx(10 * ASSUMED_TOKENS)
    assert found.private_tokens == pytest.approx((2 + 8 / 2) * ASSUMED_TOKENS)


def test_what_came_home_takes_no_room_from_what_is_prepared() -> None:
    run = waiting(64, 16)
    at_hand = dict.fromkeys(run.ready)
    assert not scheduler.next_to_prepare(run, IDLE._replace(at_hand=at_hand), 0.0, 2)
    held = IDLE._replace(at_hand=at_hand, home=[*list(run.ready)[:10], "one that runs"])
    assert scheduler.next_to_prepare(run, held, 0.0, 2) == list(run.unprepared)[:10]


async def come_home(desk: Desk, landlord: ScriptedLandlord, tasks: int) -> set[str]:
    """Have so many tasks come home, and say which."""
    home = set[str]()
    while len(home) < tasks:
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        for task, _ in list(landlord.worker.open):
            assert task not in home, "it was lent again"
            landlord.worker.lose(task, is_suspect=False, is_home=True)
            home.add(task)
        await settled(desk)
    return home


async def test_what_came_home_holds_up_nothing_that_may_be_lent_however_much_it_is(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        await desk.begin(FAN_OUT, texts(*(f"row {n}" for n in range(100))), burst=ONE)
        await come_home(desk, landlord, 80)
        await until_passing(desk, lambda: landlord.worker.open)
        assert {body.verdict for body in desk.bodies(e.PlacementDecided)} == {"burst"}


async def test_on_new_terms_what_came_home_is_lent_again(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER, inputs=1)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        await desk.begin(FAN_OUT, texts("a", "b", "c"), burst=ONE)
        home = await come_home(desk, landlord, 2)
        desk.dispatcher.steer([e.BurstAllowed(run="r", terms=Terms(mode="force", max_containers=1, usd=2.0))])
        await until_passing(desk, lambda: landlord.worker.open)
        assert {task for task, _ in landlord.worker.open} <= home
