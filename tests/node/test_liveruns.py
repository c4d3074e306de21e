"""Who attends to which run, where one goes on as another while a client of the first is still there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from gx.node.attached import LocalRun
from gx.node.liveruns import LiveRuns
from gx.run.dispatcher import Dispatcher

pytestmark = pytest.mark.anyio


class Told:
    """Notes whom the dispatcher is told to grant anything."""

    def __init__(self) -> None:
        self.view = SimpleNamespace(runs={})
        self.attended: list[tuple[str, bool]] = []

    def attend(self, run_id: str, *, is_attended: bool) -> None:
        self.attended.append((run_id, is_attended))


def run(n_clients: int, *, is_over: bool) -> LocalRun:
    async def ended() -> None:
        if not is_over:
            await anyio.sleep_forever()

    active = SimpleNamespace(is_over=is_over, results=SimpleNamespace(ended=ended))
    state = SimpleNamespace(id="r", is_detached=False)
    made = SimpleNamespace(
        state=state, active=active, n_clients=n_clients, is_attended=n_clients > 0, had_client=True, upload=None
    )
    made.tempo = SimpleNamespace(saw=lambda progress: None)
    made.progress = lambda: None
    return cast(LocalRun, made)


async def test_who_leaves_a_run_that_goes_on_as_another_takes_nothing_from_that_one() -> None:
    told = Told()
    runs = LiveRuns(cast(Dispatcher, told))
    async with runs.serving():
        before, after = run(1, is_over=True), run(1, is_over=False)
        runs.add(before)
        runs.add(after)
        assert told.attended == [("r", True)]
        cast(Any, before).n_clients, cast(Any, before).is_attended = 0, False
        runs.attend(before)
        assert told.attended == [("r", True)] and runs["r"] is after
        cast(Any, after).n_clients, cast(Any, after).is_attended = 0, False
        runs.attend(after)
        assert told.attended == [("r", True), ("r", False)] and runs["r"] is after
