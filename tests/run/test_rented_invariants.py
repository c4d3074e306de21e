"""Whatever landlords, containers and drivers do: the cap holds, each task ends once, and the log says all of it."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gx.core import event as e
from gx.core.errors import CloudError
from gx.core.message import Failure, Turn
from gx.core.projection import fold
from gx.core.terms import Terms
from gx.core.view import View
from tests.desk import Desk, open_desk
from tests.fakes import ManualClock, ScriptedLandlord, ScriptedWorker, echo, offer
from tests.run.rented import PacedWorker, folded, passes, rent
from tests.run.test_dispatcher import FAN_OUT, texts

pytestmark = pytest.mark.anyio


async def live_through(folder: Path, seed: int) -> tuple[list[e.Event], ScriptedLandlord]:
    """A run with a tight cap, under answers, losses, refusals, silence and drivers that are killed, all at random."""
    chance = random.Random(seed)
    clock = ManualClock()

    def answer(turn: Turn):
        drawn = chance.random()
        if drawn < 0.3:
            return echo(turn)
        return Failure(code="bad", message="no", retryable=True) if drawn < 0.4 else None

    usd_per_s = chance.uniform(0.0001, 0.01)
    on_offer = [offer(usd_per_s=usd_per_s), offer("A10", usd_per_s=2 * usd_per_s, tokens_per_s=2500.0)]
    landlord = ScriptedLandlord(clock, answer, offers=on_offer, inputs=chance.randint(1, 4))
    landlord.outlives_drivers = True
    cap = 100 * usd_per_s * chance.uniform(0.5, 6)
    mode = chance.choice(("auto", "force"))
    terms = Terms(mode=mode, usd=cap, max_containers=chance.randint(1, 5))  # type: ignore[arg-type]
    items = texts(*(f"row {n}" for n in range(chance.randint(5, 60))))
    restarts = chance.randint(0, 3)
    for life in range(restarts + 1):
        is_last = life == restarts
        edge = PacedWorker(echo if is_last else answer, leases=2)
        edge.tokens_per_s = chance.choice((1.0, 50.0))
        async with open_desk(folder, edge, clock, landlord) as desk:
            active = await desk.begin(FAN_OUT, items, **({} if life else {"burst": terms}))  # type: ignore[arg-type]
            for _ in range(chance.randint(5, 40)):
                await tick(desk, edge, landlord, chance)
                if active.is_over:
                    break
            if is_last:
                landlord.answer, landlord.makes_calls, landlord.failure = echo, True, None
                for _ in range(400):
                    if active.is_over:
                        break
                    for task in list(edge.running):
                        edge.end(task, echo(edge.running[task]))
                    for worker in landlord.workers[-1:]:
                        for task, _ in list(worker.open):
                            worker.end(task, echo(landlord.calls[worker.open[task, _]]))
                    await passes(desk, 3)
                assert active.is_over, f"it does not come to its end: {active.state.leased}"
                live, again = rent(active.state), rent(folded(desk))
                assert live.ledger == again.ledger and live.names == again.names
                return list(desk.log.read(run="r")), landlord
            if active.is_over:
                return list(desk.log.read(run="r")), landlord
    raise AssertionError


async def tick(desk: Desk, edge: ScriptedWorker, landlord: ScriptedLandlord, chance: random.Random) -> None:
    """Something happens, and time passes."""
    worker = landlord.workers[-1] if landlord.workers else None
    drawn = chance.random()
    if worker is not None and worker.open:
        task, attempt = chance.choice(list(worker.open))
        if drawn < 0.3:
            turn = landlord.calls[worker.open[task, attempt]]
            worker.end(task, echo(turn), container=f"C{chance.randint(1, 9)}")
        elif drawn < 0.4:
            worker.lose(task, is_suspect=chance.random() < 0.5, alone=chance.random() < 0.2)
        elif drawn < 0.45:
            landlord.failure = CloudError("gone") if chance.random() < 0.3 else None
            worker.seen("C1")
        elif drawn < 0.5:
            desk.dispatcher.requeue("r", [task], "me")
    if 0.5 < drawn < 0.55:
        landlord.makes_calls = not landlord.makes_calls
    elif drawn < 0.65 and edge.running:
        task = next(iter(edge.running))
        edge.end(task, echo(edge.running[task]))
    elif drawn < 0.7:
        edge.die()
    await passes(desk, chance.choice((0.5, 3.0, 3.0, 25.0, 70.0)))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_exposure_never_passes_the_cap_and_each_task_ends_once_whatever_happens(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        events, _ = anyio.run(live_through, Path(folder), seed)
    view = View()
    ended: list[str] = []
    for event in events:
        fold(view, event)
        ledger = rent(view.runs["r"]).ledger
        assert ledger.exposure_usd <= ledger.cap_usd + 1e-9, f"after {event}"
        if isinstance(event.body, e.TaskSucceeded | e.TaskFailed) and view.runs["r"].tasks[event.body.task].status:
            ended.append(event.body.task)
    run = view.runs["r"]
    assert not run.leased and run.live == 0
    assert len({*ended}) == len(run.tasks)
    reserved = [event.body.container for event in events if isinstance(event.body, e.ContainerReserved)]
    assert len(reserved) == len(set(reserved)), "a seat is reserved once"
    assert not rent(run).ledger.alive, "no seat is open when the run is over"
    assert all(task.lease is None for task in run.tasks.values())
