"""A run that rents says its last word once nothing of it can cost more, or nobody can be told to stop it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gx.core import event as e
from gx.core.terms import Terms
from gx.run.rent.renter import CLEARING_S
from tests.desk import Desk, open_desk
from tests.fakes import ManualClock, ScriptedLandlord, ScriptedWorker, echo
from tests.run.rented import NEVER, folded, passes, rent, settled, until_passing
from tests.run.test_dispatcher import FAN_OUT, texts

pytestmark = pytest.mark.anyio

ONE = Terms(mode="force", max_containers=1, usd=1.0)
START_S, WINDOW_S, LEASE_S, TIMEOUT_S = 10.0, 10.0, 60.0, 20.0
"""Of what `offer` offers."""


async def done_but_for_a_stray_call(desk: Desk, edge: ScriptedWorker, landlord: ScriptedLandlord) -> None:
    """A run whose tasks have all ended while a call that nobody wants may still run."""
    await desk.begin(FAN_OUT, texts("a", "b"), burst=ONE)
    await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
    landlord.worker.seen("A")
    landlord.worker.is_clear = False
    ((task, attempt),) = landlord.worker.open
    landlord.worker.end(task, echo(landlord.calls[landlord.worker.open[task, attempt]]))
    for one in list(edge.running):
        edge.end(one, echo(edge.running[one]))
    await settled(desk)


async def test_a_run_is_not_over_while_a_call_that_nobody_wants_may_still_be_cancelled(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER, inputs=1)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        await done_but_for_a_stray_call(desk, edge, landlord)
        await passes(desk, CLEARING_S - 1)
        assert len(desk.bodies(e.TaskSucceeded)) == 2 and not desk.bodies(e.RunFinished)
        landlord.worker.is_clear = True
        await passes(desk, 0.5)
        assert len(desk.bodies(e.RunFinished)) == 1


async def test_a_run_ends_all_the_same_with_a_landlord_that_does_not_answer_and_books_all_that_it_may_cost(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER, inputs=1)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        await done_but_for_a_stray_call(desk, edge, landlord)
        await passes(desk, CLEARING_S + 1)
        assert len(desk.bodies(e.RunFinished)) == 1
        (seat,) = desk.bodies(e.ContainerReserved)
        spent = rent(folded(desk)).ledger
        most_s = START_S + LEASE_S + TIMEOUT_S + WINDOW_S
        assert not spent.alive and spent.settled_usd >= seat.usd_per_s * most_s - 1e-9


async def test_a_run_that_is_interrupted_waits_for_its_calls_too(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER, inputs=1)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        await desk.begin(FAN_OUT, texts("a", "b", "c"), burst=ONE)
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        landlord.worker.is_clear = False
        desk.dispatcher.stop(e.RunInterrupted(run="r", reason="its client went away"))
        await settled(desk)
        assert not desk.bodies(e.RunInterrupted)
        landlord.worker.is_clear = True
        await passes(desk, 0.5)
        assert len(desk.bodies(e.RunInterrupted)) == 1
