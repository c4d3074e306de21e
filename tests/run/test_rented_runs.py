"""Runs that may rent: what is decided, reserved, renewed and settled, with a landlord and a clock by hand."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gx.core import event as e
from gx.core.errors import CloudError
from gx.core.terms import Terms
from gx.core.view import RunStatus
from tests.desk import open_desk
from tests.fakes import ManualClock, ScriptedLandlord, ScriptedWorker, echo, offer
from tests.run.rented import FORCE, NEVER, ROWS, PacedWorker, passes, rent, settled, until_passing, workers_of
from tests.run.test_dispatcher import FAN_OUT, texts

pytestmark = pytest.mark.anyio


# ── what is rented ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_forced_burst_uses_this_machine_and_containers(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=2), ScriptedLandlord(clock, NEVER, inputs=4)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 8)
        assert len(edge.running) == 2 and landlord.worker.containers == 2
        kinds = [type(body) for body in desk.bodies()]
        order = [kinds.index(kind) for kind in (e.PlacementDecided, e.ContainerReserved, e.CallMade)]
        assert order == sorted(order), "reserved before anything is asked for"
        edge.answer = landlord.answer = echo
        for task in list(edge.running):
            edge.end(task, echo(edge.running[task]))
        for task, _ in list(landlord.worker.open):
            landlord.worker.end(task, echo(landlord.calls[landlord.worker.open[task, 1]]))
        await desk.finish(active)
        assert sorted(r.task.id for r in await desk.finish(active)) == sorted(active.state.tasks)
        assert {"edge", "cloud"} == set(workers_of(desk)) and len(workers_of(desk)) == len(ROWS)


@pytest.mark.parametrize("usd", [None, 0.0, 0.05])
async def test_nothing_is_reserved_without_money_for_one_container(tmp_path: Path, usd: float | None) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock)
    async with open_desk(tmp_path, ScriptedWorker(NEVER), clock, landlord) as desk:
        await desk.begin(FAN_OUT, ROWS, burst=Terms(mode="force", usd=usd))
        await until_passing(desk, lambda: desk.bodies(e.PlacementDecided))
        await passes(desk, 30)
        (decided,) = desk.bodies(e.PlacementDecided)
        assert decided.verdict == "edge" and "within the cap" in decided.reason
        assert not desk.bodies(e.ContainerReserved) and not landlord.workers


async def test_no_more_is_reserved_than_the_ledger_has_room_for_whatever_the_offer_says(tmp_path: Path) -> None:
    clock = ManualClock()
    cheap = msgspec.structs.replace(offer(), reserve_usd=0.0)
    landlord = ScriptedLandlord(clock, NEVER, offers=[cheap])
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        await desk.begin(FAN_OUT, ROWS, burst=Terms(mode="force", max_containers=3, usd=0.15))
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        assert len(desk.bodies(e.ContainerReserved)) == 1 and landlord.worker.containers == 1


async def test_the_verdict_is_written_once_a_change_and_follows_the_deadline(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = PacedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER)
    edge.tokens_per_s = 1.0
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        terms = Terms(usd=1.0, target_s=600.0, max_containers=1)
        active = await desk.begin(FAN_OUT, ROWS, burst=terms, started_at=clock.time)
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        await passes(desk, 12)
        (decided,) = desk.bodies(e.PlacementDecided)
        assert (decided.verdict, decided.gpu, decided.containers) == ("burst", "L4", 1)
        assert decided.figures["deadline_s"] <= 600 and decided.edge_s > 600 and "deadline" in decided.reason
        desk.dispatcher.steer([e.BurstAllowed(run="r", terms=Terms(mode="off", usd=1.0))])
        await passes(desk, 6)
        assert [body.verdict for body in desk.bodies(e.PlacementDecided)] == ["burst", "edge"]
        assert landlord.worker.lease() is None and landlord.worker.open, "what is under way ends"
        assert active.state.status is RunStatus.running


async def test_a_run_that_is_paused_reserves_nothing_and_what_is_under_way_is_paid(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 8)
        desk.dispatcher.change(e.RunPaused(run="r"))
        await passes(desk, 90)
        assert landlord.worker.until > clock.now(), "its driver still vouches"
        for task, _ in list(landlord.worker.open):
            landlord.worker.end(task, echo(landlord.submitted[0]))
        await passes(desk, 60)
        assert not rent(active.state).ledger.alive and len(desk.bodies(e.ContainerReserved)) == 2
        await passes(desk, 60)
        assert len(desk.bodies(e.ContainerReserved)) == 2


async def test_containers_that_the_cap_has_no_room_to_renew_get_nothing_more_and_what_waits_comes_back(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=Terms(mode="force", max_containers=1, usd=0.101))
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 4)
        landlord.makes_calls = False
        landlord.worker.end(next(iter(landlord.worker.open))[0], echo(landlord.submitted[0]))
        await until_passing(desk, lambda: landlord.worker.waiting)
        await passes(desk, 63)
        assert landlord.worker.lease() is None and not landlord.worker.waiting
        ledger = rent(active.state).ledger
        assert ledger.exposure_usd <= ledger.cap_usd and len(active.state.leased) == 1 + len(landlord.worker.open)


async def test_a_live_run_rents_from_when_it_may(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        await desk.begin(FAN_OUT, ROWS)
        await passes(desk, 9)
        assert not landlord.workers and not desk.bodies(e.PlacementDecided)
        desk.dispatcher.steer([e.BurstAllowed(run="r", terms=FORCE)])
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)


async def test_what_is_paid_for_is_not_rehearsed_though_it_was_asked_before_it_was_reserved(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    rehearsed = msgspec.structs.replace(FORCE, is_rehearsal=True)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        dearer = msgspec.structs.replace(FORCE, usd=(FORCE.usd or 0) + 1)
        desk.dispatcher.steer([e.BurstAllowed(run="r", terms=rehearsed), e.BurstAllowed(run="r", terms=dearer)])
        await until_passing(desk, lambda: desk.bodies(e.BurstAllowed))
        assert [body.terms for body in desk.bodies(e.BurstAllowed)] == [dearer]
        assert active.state.rent is not None and active.state.rent.terms == dearer


async def test_at_most_so_many_tasks_run_at_once_wherever_that_is(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=2), ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        desk.dispatcher.change(e.RunChanged(run="r", concurrency=3))
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        await passes(desk, 9)
        assert len(active.state.leased) == 3 and len(landlord.worker.open) == 1


# ── containers ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_idle_containers_are_taken_to_have_ended(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER, inputs=1)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        terms = Terms(mode="force", max_containers=1, usd=1.0)
        active = await desk.begin(FAN_OUT, texts("a", "b"), burst=terms)
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        (seat,) = rent(active.state).ledger.alive.values()
        await passes(desk, 30)
        ((task, _),) = landlord.worker.open
        landlord.worker.end(task, echo(landlord.submitted[0]))
        await passes(desk, 50)
        ledger = rent(active.state).ledger
        assert not ledger.alive and seat.usd_per_s * 30 < ledger.settled_usd < seat.usd_per_s * 60


async def test_what_was_reserved_and_never_begun_costs_nothing(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, failure=CloudError("there is no token for Modal", code="cloud.token"))
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, texts("a", "b"), burst=FORCE)
        await until_passing(desk, lambda: desk.bodies(e.ContainerEnded))
        assert rent(active.state).ledger.settled_usd == 0


async def test_each_container_is_seen_once_in_a_while_and_a_new_one_takes_the_seat_of_the_silent_one(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        for name in ("A", "A", "B", "B", "A"):  # in one batch
            landlord.worker.seen(name)
        await settled(desk)
        assert sorted(body.name for body in desk.bodies(e.ContainerSeen)) == ["A", "B"]
        assert len(set(rent(active.state).names)) == 2
        await passes(desk, 18)
        landlord.worker.seen("B")
        await settled(desk)
        before = rent(active.state).ledger.exposure_usd
        landlord.worker.seen("C")
        await settled(desk)
        assert sorted(rent(active.state).names.values()) == ["B", "C"]
        assert len(rent(active.state).ledger.alive) == 2 and rent(active.state).ledger.exposure_usd <= before + 1e-12
        landlord.worker.seen("D")  # one more than there may be: nobody was silent
        await settled(desk)
        assert sorted(rent(active.state).names.values()) == ["B", "C"]


async def test_what_a_start_took_is_what_the_next_one_is_taken_to_need(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        assert active.renter is not None
        await passes(desk, 9)
        (reserved, _) = desk.bodies(e.ContainerReserved)
        landlord.worker.seen("A")
        took_s = clock.now() - reserved.at
        await passes(desk, 9)
        landlord.worker.seen("A")
        await passes(desk, 3)
        assert active.renter._outlook.offers["L4"].cold_start_s == pytest.approx(min(took_s, 10.0)) and took_s > 5
