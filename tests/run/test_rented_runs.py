"""Runs that may rent: what the dispatcher decides, reserves, lends and settles, with a landlord and a clock by hand."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gx.core import event as e
from gx.core.errors import CloudError
from gx.core.message import Failure, Turn
from gx.core.projection import fold
from gx.core.task import CloudLease, EdgeLease, Rate
from gx.core.terms import Terms
from gx.core.view import RunState, RunStatus, View
from tests.desk import Desk, open_desk
from tests.fakes import ManualClock, ScriptedLandlord, ScriptedWorker, echo, offer
from tests.run.test_dispatcher import FAN_OUT, texts, until

pytestmark = pytest.mark.anyio

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
    with anyio.fail_after(10):
        while quiet < 8:
            news = desk.dispatcher._news
            quiet = quiet + 1 if news.statistics().tasks_waiting and not news.is_set() else 0
            await anyio.lowlevel.checkpoint()


async def passes(desk: Desk, seconds: float = 3.0) -> None:
    """Time passes, in steps in which nothing is missed."""
    ends = desk.clock.time + seconds
    while desk.clock.time < ends:
        desk.clock.time = min(ends, desk.clock.time + 3.0)
        desk.dispatcher._wake()
        await settled(desk)


async def until_passing(desk: Desk, condition: Callable[[], Any]) -> None:
    """Let time pass until that is so."""
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


async def test_a_live_run_rents_from_when_it_may(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        await desk.begin(FAN_OUT, ROWS)
        await passes(desk, 9)
        assert not landlord.workers and not desk.bodies(e.PlacementDecided)
        desk.dispatcher.steer([e.BurstAllowed(run="r", terms=FORCE)])
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)


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
        assert landlord.worker.cancelled == [(one, 1), (two, 1)]
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
        landlord.on_offer = []
        clock.time += 3  # the next round both lends and ends it
        landlord.worker.end(next(iter(landlord.worker.open))[0], echo(landlord.submitted[0]))
        await until_passing(desk, lambda: len(desk.bodies(e.PlacementDecided)) == 2)
        await passes(desk, 6)
        held = {task for task, _ in landlord.worker.open} | set(edge.running)
        assert set(active.state.leased) == held


# ── whatever happens ─────────────────────────────────────────────────────────────────────────────────────────────


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
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
    assert all(not isinstance(task.lease, EdgeLease | CloudLease) for task in run.tasks.values())
