"""Attempts that wait for a call at the landlord's: who has them back, and that nobody passes them to and fro."""

from __future__ import annotations

from pathlib import Path

import pytest

from gx.core import event as e
from gx.core.terms import Terms
from tests.desk import open_desk
from tests.fakes import ManualClock, ScriptedLandlord, echo
from tests.run.rented import NEVER, PacedWorker, passes, settled, until_passing
from tests.run.test_dispatcher import FAN_OUT, texts

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("pace, is_had_back", [(0.01, False), (10.0, True)])
async def test_a_machine_with_nothing_to_do_has_back_what_waits_for_a_call_unless_it_would_outlast_the_containers(
    tmp_path: Path, pace: float, is_had_back: bool
) -> None:
    clock = ManualClock()
    edge, landlord = PacedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER)
    edge.tokens_per_s = 10.0
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        await desk.begin(FAN_OUT, texts(*"abcdef"), burst=Terms(usd=1.0, max_containers=1))
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 4)
        landlord.makes_calls, edge.tokens_per_s = False, pace
        ended = next(iter(landlord.worker.open))[0]
        landlord.worker.end(ended, echo(landlord.submitted[0]))
        await settled(desk)
        assert landlord.worker.waiting
        (task,) = edge.running
        edge.end(task, echo(edge.running[task]))
        await settled(desk)
        assert bool(desk.bodies(e.AttemptLost)) is is_had_back and bool(edge.running) is is_had_back
        assert bool(landlord.worker.waiting) is not is_had_back


async def test_what_may_have_had_a_call_comes_back_later_where_nothing_more_is_rented(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = PacedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER)
    landlord.makes_calls = False
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        await desk.begin(FAN_OUT, texts(*"abcdef"), burst=Terms(mode="force", usd=1.0, max_containers=1))
        await until_passing(desk, lambda: landlord.workers and landlord.worker.waiting)
        landlord.worker.is_unsure = True
        desk.dispatcher.steer([e.BurstAllowed(run="r", terms=Terms(mode="off", usd=1.0))])
        await passes(desk, 70)
        assert desk.bodies(e.PlacementDecided)[-1].verdict == "edge" and landlord.worker.waiting
        landlord.worker.is_unsure = False
        await passes(desk, 6)
        assert not landlord.worker.waiting and not any(body.is_suspect for body in desk.bodies(e.AttemptLost))
