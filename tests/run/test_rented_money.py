"""What stays reserved while a container may be alive, whatever a run ends with: one that goes on has the same cap."""

from __future__ import annotations

from pathlib import Path

import pytest

from gx.core import event as e
from gx.core.ports import RentRefused
from gx.core.terms import Terms
from gx.run.rent.renter import CLEARING_S
from tests.desk import Desk, open_desk
from tests.fakes import ManualClock, ScriptedLandlord, ScriptedWorker, echo
from tests.run.rented import NEVER, ROWS, folded, passes, rent, until_passing
from tests.run.test_dispatcher import FAN_OUT, texts

pytestmark = pytest.mark.anyio

ONE = Terms(mode="force", max_containers=1, usd=1.0)
START_S, WINDOW_S, LEASE_S, TIMEOUT_S = 10.0, 10.0, 60.0, 20.0
"""Of what `offer` offers."""


async def interrupted(desk: Desk, landlord: ScriptedLandlord, *, is_clear: bool, seen: bool) -> tuple[float, float]:
    """A run whose one container was given something and that is stopped at once: since when it is rented, and when."""
    clock = desk.clock
    active = await desk.begin(FAN_OUT, ROWS, burst=ONE)
    await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
    (seat,) = rent(active.state).ledger.alive.values()
    await passes(desk, 9)
    if seen:
        landlord.worker.seen("A")
        await passes(desk, 3)
    landlord.worker.is_clear = is_clear
    desk.dispatcher.stop(e.RunInterrupted(run="r", reason="its client went away"))
    await passes(desk, 0.0 if is_clear else 2 * CLEARING_S)
    await desk.finish(active)
    return seat.spawned_s, clock.now()


@pytest.mark.parametrize("seen", [True, False])
async def test_a_run_that_is_left_while_a_call_of_it_may_run_is_charged_all_that_it_may_cost(
    tmp_path: Path, seen: bool
) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        spawned_s, _ = await interrupted(desk, landlord, is_clear=False, seen=seen)
        ledger, usd_per_s = rent(folded(desk)).ledger, landlord.on_offer[0].usd_per_s
        most_s = START_S + LEASE_S + TIMEOUT_S + WINDOW_S
        assert ledger.exposure_usd == pytest.approx(usd_per_s * most_s, rel=0.05), spawned_s


async def test_nothing_is_renewed_for_calls_that_nobody_wants_and_that_can_t_be_cancelled(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=ONE)
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        await passes(desk, 60)
        n_renewed = len(desk.bodies(e.ContainersRenewed))
        assert n_renewed, "what is lent is paid for"
        landlord.worker.is_clear = False
        landlord.worker.say(RentRefused(reason="Modal refuses the token", code="cloud.token", stops=True))
        for task, _ in list(landlord.worker.open):
            landlord.worker.lose(task, is_suspect=False)
        seat_s = START_S + LEASE_S + TIMEOUT_S + WINDOW_S
        await passes(desk, 2 * seat_s)
        assert len(desk.bodies(e.ContainersRenewed)) == n_renewed
        assert not rent(active.state).ledger.alive, "it can't be alive any more"


async def test_nothing_is_renewed_for_a_run_that_is_held_up_though_a_call_of_it_may_run_that_nobody_knows(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=ONE)
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        desk.dispatcher.attend("r", is_attended=False)
        await passes(desk, 60)
        assert (n_renewed := len(desk.bodies(e.ContainersRenewed))), "what is lent is paid for"
        landlord.worker.is_clear = False
        for task, _ in list(landlord.worker.open):
            landlord.worker.lose(task, is_suspect=False)
        await passes(desk, 2 * (START_S + LEASE_S + TIMEOUT_S + WINDOW_S))
        assert len(desk.bodies(e.ContainersRenewed)) <= n_renewed + 1
        assert not rent(active.state).ledger.alive
        desk.dispatcher.attend("r", is_attended=True)
        await until_passing(desk, lambda: landlord.worker.open)


async def test_a_run_that_is_left_while_its_container_starts_is_charged_the_longest_start(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        spawned_s, left_s = await interrupted(desk, landlord, is_clear=True, seen=False)
        least_usd = landlord.on_offer[0].usd_per_s * (left_s + START_S + WINDOW_S - spawned_s)
        assert rent(folded(desk)).ledger.exposure_usd == pytest.approx(least_usd)


async def test_a_run_that_is_left_once_its_calls_are_cancelled_is_charged_what_its_container_idles(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        spawned_s, left_s = await interrupted(desk, landlord, is_clear=True, seen=True)
        ledger = rent(folded(desk)).ledger
        assert ledger.settled_usd == pytest.approx(landlord.on_offer[0].usd_per_s * (left_s + WINDOW_S - spawned_s))
        assert not ledger.alive


async def test_a_container_that_nobody_saw_keeps_its_reservation_for_the_longest_start_after_its_last_call(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER, inputs=1)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=2), clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, texts("a", "b", "c"), burst=ONE)
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        (seat,) = rent(active.state).ledger.alive.values()
        ((task, _),) = landlord.worker.open
        desk.dispatcher.cancel("r", "not wanted", tasks=[task])
        await passes(desk, 3)
        ended_s = clock.now()
        exposure_usd = rent(active.state).ledger.exposure_usd
        await passes(desk, WINDOW_S + 21)
        assert rent(active.state).ledger.alive, "it may be starting yet"
        assert rent(active.state).ledger.exposure_usd <= exposure_usd, "nobody vouches for what has nothing to do"
        await passes(desk, START_S + 6)
        (ended,) = desk.bodies(e.ContainerEnded)
        assert ended.container == seat.id and ended.at == pytest.approx(ended_s + START_S + WINDOW_S, abs=4)


async def test_what_a_node_that_died_may_have_left_running_keeps_its_reservation_for_the_run_that_goes_on(
    tmp_path: Path,
) -> None:
    """It may have taken something back, and have died before it could cancel that: nobody knows of that call."""
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER, inputs=1)
    landlord.outlives_drivers = True
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=2), clock, landlord) as desk:
        await desk.begin(FAN_OUT, texts("a", "b", "c"), burst=ONE)
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        await passes(desk, 6)
        landlord.worker.seen("A")
        await passes(desk, 3)
        ((task, _),) = landlord.worker.open
        desk.dispatcher.cancel("r", "not wanted", tasks=[task])
        await passes(desk, 1)
    edge = ScriptedWorker(NEVER, leases=3)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, texts("a", "b", "c"))
        began_s = clock.now()
        await passes(desk, WINDOW_S + 24)
        assert rent(active.state).ledger.alive, "an input that the dead node's lease paid for may run"
        await passes(desk, LEASE_S + TIMEOUT_S)
        assert not rent(active.state).ledger.alive
        (ended,) = desk.bodies(e.ContainerEnded)
        assert ended.at >= began_s + TIMEOUT_S + WINDOW_S
        edge.answer = echo


async def test_a_run_that_is_done_is_charged_what_its_containers_are_expected_to_idle(tmp_path: Path) -> None:
    """Nothing is rented under its cap any more: what is written then is what it cost, as far as can be told."""
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER, inputs=1)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, texts("a", "b"), burst=ONE)
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        (seat,) = rent(active.state).ledger.alive.values()
        for task in list(edge.running):
            edge.end(task, echo(edge.running[task]))
        ((task, _),) = landlord.worker.open
        landlord.worker.end(task, echo(landlord.submitted[0]))
        await desk.finish(active)
        spent = rent(folded(desk)).ledger
        assert not spent.alive and spent.settled_usd == pytest.approx(
            seat.usd_per_s * (clock.now() + WINDOW_S - seat.spawned_s)
        )


async def test_what_no_call_was_made_for_costs_nothing_and_reaches_no_cap(tmp_path: Path) -> None:
    """Its tasks were leased to containers, and the landlord took no call."""
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    landlord.makes_calls = False
    terms = Terms(mode="force", max_containers=1, usd=0.101, at_cap="stop")
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=terms)
        for number in (1, 2):
            await until_passing(desk, lambda: landlord.workers and landlord.worker.waiting)
            await passes(desk, 9)
            landlord.worker.say(RentRefused(reason="the quota is reached"))
            await until_passing(desk, lambda: len(desk.bodies(e.ContainerEnded)) == number)  # noqa: B023
            assert rent(active.state).ledger.settled_usd == 0
        assert not desk.bodies(e.CapReached) and not desk.bodies(e.RunStopped)
        landlord.makes_calls = True
        await until_passing(desk, lambda: landlord.worker.open)
        landlord.worker.seen("A")
        await passes(desk, 9)
        for task, _ in list(landlord.worker.open):
            landlord.worker.end(task, echo(landlord.submitted[0]))
        desk.dispatcher.steer([e.BurstAllowed(run="r", terms=Terms(mode="off", usd=0.101))])
        await until_passing(desk, lambda: len(desk.bodies(e.ContainerEnded)) == 3)
        assert rent(active.state).ledger.settled_usd > 0, "and what was called for costs what it did"


async def test_a_run_that_is_left_before_any_call_was_made_is_charged_nothing(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    landlord.makes_calls = False
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=ONE)
        await until_passing(desk, lambda: landlord.workers and landlord.worker.waiting)
        await passes(desk, 9)
        desk.dispatcher.stop(e.RunInterrupted(run="r", reason="its client went away"))
        await desk.finish(active)
        assert rent(folded(desk)).ledger.settled_usd == 0
