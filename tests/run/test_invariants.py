"""Whatever a worker does, every task ends exactly once, and a restart loses and doubles nothing."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import anyio
import anyio.lowlevel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gx.core import event as e
from gx.core.message import Failure, Turn
from gx.core.projection import fold
from gx.core.view import View
from tests.desk import open_desk
from tests.fakes import ManualClock, ScriptedWorker, echo
from tests.run.test_dispatcher import FAN_OUT, texts

ENDS = (e.TaskSucceeded, e.TaskFailed, e.TaskCancelled, e.TaskSkipped)


async def live_through(folder: Path, seed: int, rows: int, restarts: int) -> list[e.Event]:
    """The events of a run under a worker that answers, fails, hangs and dies at random, in nodes that end."""
    chance = random.Random(seed)
    items = texts(*(f"row {chance.randrange(rows)}" for n in range(rows)))

    def answer(turn: Turn):
        drawn = chance.random()
        if drawn < 0.6:
            return echo(turn)
        if drawn < 0.8:
            return Failure(code="bad", message="no", retryable=drawn < 0.75)
        return None

    for attempt in range(restarts + 1):
        is_last = attempt == restarts
        if chance.random() < 0.3:  # somebody else computes some of the same keys meanwhile
            async with open_desk(folder, ScriptedWorker(leases=2)) as desk:
                await desk.finish(await desk.begin(FAN_OUT, items[: rows // 2], run=f"other{attempt}"))
        clock = ManualClock(1_000_000.0 + 1000 * attempt)
        worker = ScriptedWorker(echo if is_last else answer, leases=3)
        async with open_desk(folder, worker, clock) as desk:
            active = await desk.begin(FAN_OUT, items)
            if is_last:
                clock.time += 500
                records = await desk.finish(active)
                assert sorted(r.task.index for r in records) == list(range(rows))
                return list(desk.log.read(run="r"))
            for _ in range(chance.randrange(1, 60)):
                await anyio.lowlevel.checkpoint()
                drawn = chance.random()
                if drawn < 0.1:
                    worker.die()
                elif drawn < 0.3 and worker.running:
                    worker.end(next(iter(worker.running)), echo(next(iter(worker.running.values()))))
                elif drawn < 0.4:
                    clock.time += 20
                    desk.wake()
    raise AssertionError("the last node runs to the end")


def check_leases(bodies: list[e.Body]) -> None:
    """At most one live lease of each task, and none in the end."""
    holders: dict[str, int] = {}
    for body in bodies:
        if isinstance(body, e.TaskLeased):
            assert body.task not in holders, "two live leases of one task"
            holders[body.task] = body.attempt
        elif isinstance(body, e.AttemptLost | e.AttemptFailed | e.TaskSucceeded | e.TaskFailed | e.TaskCancelled):
            holders.pop(body.task, None)
    assert not holders


@given(seed=st.integers(0, 2**32), rows=st.integers(1, 40), restarts=st.integers(0, 3))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_task_ends_exactly_once_whatever_the_worker_does(seed: int, rows: int, restarts: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        events = anyio.run(live_through, Path(folder), seed, rows, restarts)
    bodies = [event.body for event in events]
    ended = [body.task for body in bodies if isinstance(body, ENDS)]
    assert len(ended) == len(set(ended)) == rows
    check_leases(bodies)
    view = View()
    for event in events:
        fold(view, event)
    (run,) = view.runs.values()
    assert run.live == 0 and not run.ready and not run.delayed and not run.suspects and not run.leased
