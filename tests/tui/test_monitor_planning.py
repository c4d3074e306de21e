"""What is said on the screen while a burst is planned, and when that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from gx.core.errors import UsageError
from gx.core.terms import Terms
from gx.tui.app import Monitor
from gx.tui.intents import Offer
from gx.tui.screens.dialogs import Confirm
from tests.tui.screens import monitor, node_with, stand_still, until, watching
from tests.tui.written import a_run

pytestmark = pytest.mark.anyio
OFFER = Offer(lines=("1 x L4  $0.10",), terms=Terms(usd=0.1))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_run().write(tmp_path_factory.mktemp("planned") / ".gx")


def told(app: Monitor) -> list[str]:
    return [one.message for one in app._notifications]


async def test_a_plan_that_is_ready_takes_away_what_was_said_of_planning_and_nothing_else(place: Path) -> None:
    async with watching(place, plan_burst=lambda _: OFFER) as pilot:
        app = monitor(pilot)
        stand_still(app)
        app.feed.status = node_with(app.model.run)
        app.complain(UsageError("budget: expected a whole number, got 'x'"))
        await pilot.press("b")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.pause()
        assert told(app) == ["budget: expected a whole number, got 'x'"]


@pytest.mark.parametrize("error", [UsageError("nothing can be rented from here"), RuntimeError("[b]a bug[/b]")])
async def test_a_plan_that_fails_is_told_as_an_error_and_the_monitor_goes_on(place: Path, error: Exception) -> None:
    def plan(run: str) -> Offer:
        raise error

    async with watching(place, plan_burst=plan) as pilot:
        app = monitor(pilot)
        stand_still(app)
        app.feed.status = node_with(app.model.run)
        await pilot.press("b")
        await until(pilot, lambda: any(str(error).partition("\n")[0] in text for text in told(app)))
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert [one.severity for one in app._notifications] == ["error"]
        assert app.is_running
