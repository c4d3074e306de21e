"""A run that asks a person at its cap, and goes on later under other terms."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gx.core import event as e
from gx.core.terms import Terms
from tests.desk import open_desk
from tests.fakes import ManualClock, ScriptedLandlord, ScriptedWorker, echo
from tests.run.rented import NEVER, ROWS, until_passing
from tests.run.test_dispatcher import FAN_OUT

pytestmark = pytest.mark.anyio

LITTLE = Terms(mode="force", usd=0.05, at_cap="ask")


async def test_a_run_that_asked_at_its_cap_and_is_resumed_under_another_waits_for_nobody(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, ScriptedWorker(NEVER), clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=LITTLE)
        await until_passing(desk, lambda: active.state.questions)
        desk.dispatcher.stop(e.RunInterrupted(run="r", reason="its client went away"))
        await desk.finish(active)
        more = msgspec.structs.replace(LITTLE, usd=1.0)
        await desk.dispatcher.commit([e.RunResumed(run="r"), e.BurstAllowed(run="r", terms=more, by="me")])
    async with open_desk(tmp_path, ScriptedWorker(echo), clock, ScriptedLandlord(clock, echo)) as desk:
        active = await desk.begin(FAN_OUT, ROWS)
        await until_passing(desk, lambda: active.is_over)
        assert len(await desk.finish(active)) == len(ROWS)
        (answered,) = desk.bodies(e.QuestionAnswered)
        assert answered.choice == "local"
