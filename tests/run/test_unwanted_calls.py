"""Calls that nobody wants any more and that can't be cancelled: what they cost is within the cap."""

from __future__ import annotations

from pathlib import Path

import pytest

from gx.core import event as e
from tests.desk import open_desk
from tests.fakes import ManualClock, ScriptedLandlord, ScriptedWorker, echo
from tests.run.rented import FORCE, NEVER, passes, rent, until_passing
from tests.run.test_dispatcher import FAN_OUT, texts

pytestmark = pytest.mark.anyio


async def test_a_container_keeps_its_reservation_until_the_calls_that_nobody_wants_are_cancelled(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER, inputs=1)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, texts("a", "b", "c"), burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 2)
        landlord.worker.seen("A")
        landlord.worker.is_clear = False
        for task, _ in list(landlord.worker.open):
            landlord.worker.end(task, echo(landlord.submitted[0]))
        await passes(desk, 90)
        assert len(rent(active.state).ledger.alive) == 2 and not desk.bodies(e.ContainerEnded)
        landlord.worker.is_clear = True
        await passes(desk, 90)
        assert not rent(active.state).ledger.alive
