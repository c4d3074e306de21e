"""A desk with a landlord, on which time passes: what tests of runs that rent have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel

from gx.core import event as e
from gx.core.message import Turn
from gx.core.projection import fold
from gx.core.task import Rate
from gx.core.terms import Terms
from gx.core.view import RunState, View
from tests.desk import Desk
from tests.fakes import ScriptedWorker
from tests.run.test_dispatcher import texts, until

FORCE = Terms(mode="force", max_containers=2, usd=1.0)
ROWS = texts(*(f"row {n}" for n in range(20)))
NEVER: Callable[[Turn], None] = lambda turn: None  # noqa: E731


class PacedWorker(ScriptedWorker):
    """A bench whose pace is known."""

    tokens_per_s = 100.0

    def rate(self) -> Rate:
        return Rate(tokens_in_per_s=self.tokens_per_s / 2, tokens_out_per_s=self.tokens_per_s / 2, tasks=9)


async def settled(desk: Desk) -> None:
    """Let the loop do what there is to do: it is, once the loop has waited for news for a while."""
    quiet = 0
    with anyio.fail_after(60):
        while quiet < 8:
            bell = desk.dispatcher._pending._bell
            quiet = quiet + 1 if bell.statistics().tasks_waiting and not bell.is_set() else 0
            await anyio.lowlevel.checkpoint()


async def passes(desk: Desk, seconds: float = 3.0) -> None:
    """Time passes, in steps in which nothing is missed."""
    ends = desk.clock.time + seconds
    while desk.clock.time < ends:
        desk.clock.time = min(ends, desk.clock.time + 3.0)
        desk.wake()
        await settled(desk)


async def until_passing(desk: Desk, condition: Callable[[], Any]) -> None:
    """Let time pass until that is so; none does before the bench here has begun."""
    await until(lambda: desk.worker.submitted)
    for _ in range(200):
        if condition():
            return
        await passes(desk)
    raise AssertionError("it never came to be")


def rent(state: RunState) -> Any:
    assert state.rent is not None
    return state.rent


def folded(desk: Desk) -> RunState:
    view = View()
    for event in desk.log.read():
        fold(view, event)
    return view.runs["r"]


def workers_of(desk: Desk) -> list[str]:
    return [body.worker for body in desk.bodies(e.TaskSucceeded)]
