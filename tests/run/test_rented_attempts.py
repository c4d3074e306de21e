"""What becomes of attempts that containers have: lost, cancelled, drained, and found again by the next node."""

from __future__ import annotations

from pathlib import Path

import pytest

from gx.core import event as e
from gx.core.errors import CloudError
from gx.core.ports import RentRefused
from gx.core.task import CloudLease
from gx.core.terms import Terms
from gx.core.view import RunStatus
from tests.desk import open_desk
from tests.fakes import ManualClock, ScriptedLandlord, ScriptedWorker, echo, offer
from tests.run.rented import FORCE, NEVER, ROWS, PacedWorker, folded, passes, rent, settled, until_passing, workers_of
from tests.run.test_dispatcher import FAN_OUT, texts, until

pytestmark = pytest.mark.anyio


# ── attempts ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_attempt_that_is_lost_costs_no_retry_and_one_that_is_lost_twice_runs_alone_here(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER, inputs=1)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, texts("a", "b"), burst=Terms(mode="force", max_containers=1, usd=1.0))
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        ((task, _),) = landlord.worker.open
        landlord.worker.lose(task, is_suspect=False)
        await until_passing(desk, lambda: landlord.worker.open)
        assert active.state.tasks[task].losses == 0
        for _ in range(2):
            landlord.worker.lose(task)
            await passes(desk, 3)
        assert active.state.tasks[task].losses == 2 and task in active.state.suspects
        assert not landlord.worker.open and task not in edge.running, "it waits until nothing runs"
        (other,) = edge.running
        edge.end(other, echo(edge.running[other]))
        await until_passing(desk, lambda: task in edge.running)
        assert active.state.tasks[task].is_alone and active.state.tasks[task].failures == 0


async def test_what_a_container_could_not_do_is_done_here_and_not_lent_again(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER, inputs=1)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, texts("a", "b", "c"), burst=Terms(mode="force", max_containers=1, usd=1.0))
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        (at_home,) = edge.running
        lost = set[str]()
        while len(lost) < 2:
            await until_passing(desk, lambda: landlord.worker.open)
            ((task, _),) = landlord.worker.open
            landlord.worker.lose(task, is_suspect=False, is_home=True)
            assert task not in lost, "it was lent again"
            lost.add(task)
        await passes(desk, 60)
        assert not landlord.worker.open and len(landlord.submitted) == 2
        assert desk.bodies(e.PlacementDecided)[-1].verdict == "edge", "nothing waits that may be lent"
        edge.answer = echo
        edge.end(at_home, echo(edge.running[at_home]))
        await desk.finish(active)
        assert workers_of(desk) == ["edge"] * 3


async def test_an_attempt_that_was_alone_in_its_container_twice_when_that_died_fails_as_crashed(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER, inputs=1)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        await desk.begin(FAN_OUT, texts("a", "b"), burst=Terms(mode="force", max_containers=1, usd=1.0))
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        ((task, _),) = landlord.worker.open
        for _ in range(2):
            await until_passing(desk, lambda: landlord.worker.open)
            landlord.worker.lose(task, alone=True)
            await settled(desk)
        (failed,) = desk.bodies(e.TaskFailed)
        assert (failed.task, failed.code) == (task, "crashed")


async def test_a_landlord_that_fails_is_told_of_once_and_the_run_goes_on_here(tmp_path: Path) -> None:
    clock = ManualClock()
    edge = ScriptedWorker(NEVER, leases=2)
    landlord = ScriptedLandlord(clock, failure=CloudError("there is no token for Modal", code="cloud.token"))
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: desk.bodies(e.RentRefused))
        edge.answer = echo
        for task in list(edge.running):
            edge.end(task, echo(edge.running[task]))
        await desk.finish(active)
        (refused,) = desk.bodies(e.RentRefused)
        assert (refused.code, set(workers_of(desk))) == ("cloud.token", {"edge"})
        assert not desk.bodies(e.AttemptLost)


async def test_what_containers_had_when_the_landlord_failed_runs_here_and_costs_no_retry(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 8)
        landlord.failure = CloudError("the account is closed")
        landlord.worker.seen("A")
        await until_passing(desk, lambda: len(desk.bodies(e.AttemptLost)) == 8)
        edge.answer = echo
        for task in list(edge.running):
            edge.end(task, echo(edge.running[task]))
        records = await desk.finish(active)
        assert len(records) == len(ROWS) and all(task.failures == 0 for task in active.state.tasks.values())
        landlord.failure = None
    assert [body.reason for body in refusals(tmp_path)] == ["the account is closed"]


def refusals(folder: Path) -> list[e.RentRefused]:
    from gx.run.log import EventLog

    log = EventLog.open(folder)
    try:
        return [event.body for event in log.read() if isinstance(event.body, e.RentRefused)]
    finally:
        log.close()


async def test_after_a_failure_new_terms_are_a_new_try(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER, failure=CloudError("there is no token for Modal"))
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: desk.bodies(e.RentRefused))
        landlord.failure = None
        desk.dispatcher.steer([e.BurstAllowed(run="r", terms=FORCE)])
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        assert len(desk.bodies(e.RentRefused)) == 1


async def test_a_landlord_that_came_back_has_all_of_its_room(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 8)
        landlord.failure = CloudError("the account is closed")
        landlord.worker.seen("A")
        await until_passing(desk, lambda: len(desk.bodies(e.AttemptLost)) == 8)
        landlord.failure = None
        desk.dispatcher.steer([e.BurstAllowed(run="r", terms=FORCE)])
        await until_passing(desk, lambda: len(landlord.workers) == 2 and len(landlord.worker.open) == 8)
        assert len(desk.bodies(e.AttemptLost)) == 8


async def test_each_refusal_is_told_once_in_a_row(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        for _ in range(3):
            landlord.worker.say(RentRefused(reason="the quota is reached"))
        await settled(desk)
        assert len(desk.bodies(e.RentRefused)) == 1
        landlord.worker.seen("A")
        await settled(desk)
        landlord.worker.say(RentRefused(reason="the quota is reached"))
        await settled(desk)
        assert len(desk.bodies(e.RentRefused)) == 2


async def test_a_worker_that_is_up_is_given_no_other_gpu(tmp_path: Path) -> None:
    terms = Terms(mode="force", gpu=("A10",), max_containers=4, usd=1.0)
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER, offers=[offer(), offer("A10", usd_per_s=0.002)])
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        desk.dispatcher.steer([e.BurstAllowed(run="r", terms=terms)])
        await passes(desk, 12)
        assert {body.gpu for body in desk.bodies(e.ContainerReserved)} == {"L4"}
        assert len(desk.bodies(e.ContainerReserved)) == 2 and len(landlord.workers) == 1
        assert landlord.worker.lease() is None


async def test_what_no_call_was_made_for_comes_back_when_this_machine_is_idle(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=2), ScriptedLandlord(clock, NEVER)
    landlord.makes_calls = False
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, texts(*"abcdef"), burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.waiting) == 4)
        edge.answer = echo
        for task in list(edge.running):
            edge.end(task, echo(edge.running[task]))
        await desk.finish(active)
        assert set(workers_of(desk)) == {"edge"} and not landlord.claims
        assert all(not body.is_suspect for body in desk.bodies(e.AttemptLost))


async def test_when_nothing_is_to_be_rented_any_more_what_waits_comes_back_and_what_runs_ends(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 8)
        landlord.makes_calls = False
        landlord.worker.end(next(iter(landlord.worker.open))[0], echo(landlord.submitted[0]))
        await until_passing(desk, lambda: landlord.worker.waiting)
        desk.dispatcher.steer([e.BurstAllowed(run="r", terms=Terms(mode="off", usd=1.0))])
        await until_passing(desk, lambda: not landlord.worker.waiting)
        rented = [task for task in active.state.leased.values() if isinstance(task.lease, CloudLease)]
        assert len(rented) == len(landlord.worker.open) == 7
        await passes(desk, 12)
        assert len(landlord.submitted) == 9, "nothing more is lent"


async def test_cancelled_and_requeued_tasks_end_in_their_containers(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 8)
        (one, _), (two, _), *_ = landlord.worker.open
        desk.dispatcher.cancel("r", "enough", tasks=[one])
        desk.dispatcher.requeue("r", [two], "me")
        await until_passing(desk, lambda: active.state.tasks[two].attempt == 2)
        assert sorted(landlord.worker.cancelled) == sorted([(one, 1), (two, 1)])
        assert active.state.tasks[one].status.value == "cancelled" and active.state.tasks[two].losses == 0
        desk.dispatcher.stop(e.RunCancelled(run="r", reason="enough"))
        await until(lambda: active.is_over)
        assert not landlord.calls and not rent(active.state).ledger.alive
        assert folded(desk).status is RunStatus.cancelled


async def test_a_drained_run_waits_for_its_containers_and_pays_them(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 8)
        desk.dispatcher.drain("r", "its client went away")
        await passes(desk, 90)
        assert landlord.worker.until > clock.now() and len(landlord.submitted) == 8
        for task in list(edge.running):
            edge.end(task, echo(edge.running[task]))
        for task, _ in list(landlord.worker.open):
            landlord.worker.end(task, echo(landlord.submitted[0]))
        await until(lambda: active.is_over)
        assert active.state.count("succeeded") == 9 and active.state.status is RunStatus.interrupted  # type: ignore[arg-type]


async def test_past_its_deadline_what_containers_do_is_cut_off_and_the_bench_here_is_left_alone(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=FORCE, deadline_at=clock.time + 60)
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 8)
        await passes(desk, 63)
        await until(lambda: active.is_over)
        assert active.state.status is RunStatus.stopped and not landlord.calls
        assert edge.incarnation == 1


# ── restarts ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_new_node_finds_what_containers_have_by_its_call_and_submits_again_what_has_none(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    landlord.outlives_drivers = True
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 8)
        landlord.makes_calls = False
        ended = next(iter(landlord.worker.open))[0]
        landlord.worker.end(ended, echo(landlord.submitted[0]))
        await until_passing(desk, lambda: landlord.worker.waiting)
        waiting = next(iter(landlord.worker.waiting))
        known = set(landlord.calls)
    landlord.makes_calls, landlord.answer = True, echo
    edge = ScriptedWorker(NEVER, leases=1)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS)
        await until_passing(desk, lambda: len(landlord.workers) == 2 and set(landlord.reattached) == known)
        assert waiting in landlord.claims and landlord.submitted.count(landlord.submitted[8]) >= 1
        assert [turn.attempt for turn in landlord.submitted if turn.task == waiting[0]] == [1, 1]
        edge.answer = echo
        for task in list(edge.running):
            edge.end(task, echo(edge.running[task]))
        for task, _ in list(landlord.worker.open):
            landlord.worker.end(task, echo(landlord.submitted[0]))
        await desk.finish(active)
        lost = desk.bodies(e.AttemptLost)
        assert [body.worker for body in lost] == ["edge"], "what containers had is not lost"
        assert len(workers_of(desk)) == len(ROWS)


async def test_what_is_cancelled_before_it_was_found_again_is_cancelled_in_its_container(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    landlord.outlives_drivers = True
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 8)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS)
        one = next(t.id for t in active.state.leased.values() if isinstance(t.lease, CloudLease))
        desk.dispatcher.requeue("r", [one], "me")
        desk.dispatcher.stop(e.RunCancelled(run="r", reason="enough"))
        await until(lambda: active.is_over)
        assert not landlord.calls, "nothing is left running"


async def test_a_lease_that_comes_too_late_for_its_worker_is_lost_and_not_forgotten(tmp_path: Path) -> None:
    """The verdict turns to nothing in the same commit in which a task is lent."""
    clock = ManualClock()
    edge, landlord = PacedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 8)
        renewed = len(desk.bodies(e.ContainersRenewed))
        await until_passing(desk, lambda: len(desk.bodies(e.ContainersRenewed)) > renewed)
        landlord.on_offer = []
        clock.time += 3  # the next round both lends and decides
        landlord.worker.end(next(iter(landlord.worker.open))[0], echo(landlord.submitted[0]))
        await until_passing(desk, lambda: len(desk.bodies(e.PlacementDecided)) == 2)
        await passes(desk, 6)
        held = {task for task, _ in landlord.worker.open} | set(edge.running)
        assert set(active.state.leased) == held


async def test_nothing_is_reserved_under_a_cap_that_is_just_being_lowered(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until(lambda: edge.running)
        await settled(desk)
        clock.time += 3  # the next round decides
        desk.dispatcher.steer([e.BurstAllowed(run="r", terms=Terms(mode="force", usd=0.0))])
        await passes(desk, 9)
        assert rent(active.state).ledger.exposure_usd == 0 and not desk.bodies(e.ContainerReserved)
