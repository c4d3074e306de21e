"""What a live run that rents changes of itself: the tail comes home, the cap is reached, refusals pass, paces count."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from gx.core import event as e
from gx.core.errors import CloudError
from gx.core.message import Answer, Turn, Usage
from gx.core.ports import RentRefused
from gx.core.terms import Terms
from gx.core.view import RunStatus
from tests.desk import Desk, open_desk
from tests.fakes import ManualClock, ScriptedLandlord, ScriptedWorker, echo, offer
from tests.run.rented import FORCE, NEVER, ROWS, PacedWorker, folded, passes, rent, settled, until_passing, workers_of
from tests.run.test_dispatcher import FAN_OUT, texts, until

pytestmark = pytest.mark.anyio
SMALL = 0.12
"""US dollars for one container, and not for a second one once it has run for a while."""


def end_all(edge: ScriptedWorker) -> None:
    for task in list(edge.running):
        edge.end(task, echo(edge.running[task]))


def heavy(turn: Turn) -> Answer:
    """An answer of 400 tokens."""
    return Answer(value=echo(turn).value, usage=Usage(tokens_in=300, tokens_out=100))  # type: ignore[union-attr]


async def exhausted(desk: Desk, landlord: ScriptedLandlord) -> None:
    """Containers work until the cap has no room for them any more, and end what they have."""
    await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
    for _ in range(60):
        await passes(desk, 3)
        landlord.worker.seen("A")
        if landlord.worker.lease() is None:
            break
    for task, _ in list(landlord.worker.open):
        landlord.worker.end(task, echo(landlord.submitted[0]))
    await passes(desk, 90)


# ── the tail ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_a_cold_cloud_has_comes_home_when_this_machine_ends_it_sooner(tmp_path: Path) -> None:
    clock = ManualClock()
    slow_start = [offer(tokens_per_s=1e6)]
    edge, landlord = PacedWorker(NEVER, leases=2), ScriptedLandlord(clock, NEVER, offers=slow_start)
    edge.tokens_per_s = 1e5
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, texts(*"abcdef"), burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 4)
        edge.answer = echo
        end_all(edge)
        await until_passing(desk, lambda: active.is_over)
        assert len(landlord.recalled) == 4 and set(workers_of(desk)) == {"edge"}
        lost = desk.bodies(e.AttemptLost)
        assert len(lost) == 4 and all(body.reason.startswith("taken back: this machine needs") for body in lost)
        assert not any(body.is_suspect for body in lost)
        assert all(task.failures == 0 for task in active.state.tasks.values())


async def test_what_containers_end_sooner_stays_with_them(tmp_path: Path) -> None:
    clock = ManualClock()
    fast = [offer(tokens_per_s=1e6)]
    edge, landlord = PacedWorker(NEVER, leases=2), ScriptedLandlord(clock, NEVER, offers=fast)
    edge.tokens_per_s = 1.0
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        await desk.begin(FAN_OUT, texts(*"abcdef"), burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 4)
        landlord.worker.seen("A")
        end_all(edge)
        await passes(desk, 12)
        assert not landlord.recalled


async def test_a_late_twin_is_superseded_and_its_cost_counts(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = PacedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER, offers=[offer(tokens_per_s=1e6)])
    edge.tokens_per_s = 1e5
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, texts("a", "b", "c"), burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 2)
        end_all(edge)
        await until_passing(desk, lambda: landlord.recalled and edge.running)
        (task, attempt), *_ = landlord.recalled
        landlord.worker.ended_late(task, attempt, echo(landlord.submitted[0]))
        await passes(desk, 3)
        (late,) = desk.bodies(e.AttemptSuperseded)
        assert (late.task, late.worker, late.outcome, late.tok_in, late.tok_out) == (task, "cloud", "answer", 10, 2)
        assert active.state.tasks[task].status.value == "leased", "it changes nothing"


async def test_near_the_end_this_machine_begins_nothing_that_outlasts_the_containers(tmp_path: Path) -> None:
    clock = ManualClock()
    edge = PacedWorker(NEVER, leases=1)
    landlord = ScriptedLandlord(clock, NEVER, offers=[offer(tokens_per_s=1000.0)], inputs=4)
    edge.tokens_per_s = 1.0
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        await desk.begin(FAN_OUT, ROWS, burst=Terms(usd=1.0, max_containers=1))
        await until_passing(desk, lambda: landlord.workers and len(landlord.worker.open) == 4)
        landlord.worker.seen("A")
        await passes(desk, 3)
        begun = len(edge.submitted)
        ((task, turn),) = edge.running.items()
        edge.end(task, heavy(turn))
        await passes(desk, 6)
        assert len(edge.submitted) == begun, "a task here takes longer than all the rest there"
        await passes(desk, 150)
        assert len(edge.submitted) == begun + 1, "nothing is heard of the containers any more"


# ── the cap ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_at_the_cap_this_machine_does_the_rest_and_an_event_says_so_once(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=Terms(mode="force", max_containers=1, usd=SMALL))
        await exhausted(desk, landlord)
        (capped,) = desk.bodies(e.CapReached)
        assert (capped.cap_usd, capped.then) == (SMALL, "local") and 0 < capped.usd <= SMALL
        edge.answer = echo
        end_all(edge)
        assert len(await desk.finish(active)) == len(ROWS)
        assert active.state.status is RunStatus.finished and len(desk.bodies(e.CapReached)) == 1


async def test_at_the_cap_a_run_stops_where_that_was_chosen_and_stays_so_until_there_are_other_terms(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER)
    terms = Terms(mode="force", max_containers=1, usd=SMALL, at_cap="stop")
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=terms)
        await exhausted(desk, landlord)
        end_all(edge)
        await until(lambda: active.is_over)
        (stopped,) = desk.bodies(e.RunStopped)
        assert stopped.limit == "cap" and f"of ${SMALL:.4f} are spent" in stopped.reason
        assert folded(desk).status is RunStatus.stopped
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS)
        await until(lambda: active.is_over)
        assert len(desk.bodies(e.RunStopped)) == 2


async def test_at_the_cap_a_person_is_asked_where_that_was_chosen_and_new_terms_are_an_answer(tmp_path: Path) -> None:
    clock = ManualClock()
    edge, landlord = ScriptedWorker(NEVER, leases=1), ScriptedLandlord(clock, NEVER)
    terms = Terms(mode="force", max_containers=1, usd=SMALL, at_cap="ask")
    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        active = await desk.begin(FAN_OUT, ROWS, burst=terms)
        await exhausted(desk, landlord)
        (asked,) = desk.bodies(e.QuestionAsked)
        assert asked.choices == ("local", "stop") and "the cap is reached" in asked.text
        begun = len(edge.submitted)
        end_all(edge)
        await passes(desk, 9)
        assert len(edge.submitted) == begun, "nothing begins before the answer"
        more = Terms(mode="force", max_containers=1, usd=1.0, at_cap="ask")
        rented = len(landlord.submitted)
        desk.dispatcher.steer([e.BurstAllowed(run="r", terms=more, by="me")])
        await until_passing(desk, lambda: len(landlord.submitted) > rented)
        assert not active.state.questions and rent(active.state).capped is None


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_after_a_refusal_the_verdict_is_this_machine_for_that_reason_and_later_it_is_tried_again(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER, failure=CloudError("the account does not answer"))
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: len(desk.bodies(e.PlacementDecided)) == 2)
        last = desk.bodies(e.PlacementDecided)[-1]
        assert (last.verdict, last.reason) == ("edge", "edge only: the account does not answer")
        landlord.failure = None
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        assert [body.verdict for body in desk.bodies(e.PlacementDecided)] == ["burst", "edge", "burst"]
        assert len(desk.bodies(e.RentRefused)) == 1


async def test_without_a_token_it_is_said_once_and_not_tried_again(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER, failure=CloudError("there is no token", code="cloud.token"))
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: len(desk.bodies(e.PlacementDecided)) == 2)
        await passes(desk, 900)
        assert len(desk.bodies(e.PlacementDecided)) == 2 and len(desk.bodies(e.RentRefused)) == 1


async def test_containers_that_do_not_work_turn_the_verdict_whatever_is_under_way(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        task, _ = next(iter(landlord.worker.open))
        landlord.worker.say(RentRefused(reason="a container does not work: no GPU", stops=True))
        landlord.worker.lose(task, is_suspect=False)
        await passes(desk, 6)
        last = desk.bodies(e.PlacementDecided)[-1]
        assert (last.verdict, last.reason) == ("edge", "edge only: a container does not work: no GPU")
        assert landlord.worker.open and task not in {one for one, _ in landlord.worker.open}


async def test_containers_that_come_up_and_do_not_work_are_tried_ever_more_seldom(tmp_path: Path) -> None:
    clock = ManualClock()
    landlord = ScriptedLandlord(clock, NEVER)
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=1), clock, landlord) as desk:
        await desk.begin(FAN_OUT, ROWS, burst=FORCE)
        waits: list[float] = []
        for _ in range(4):
            await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
            landlord.worker.seen("A")
            landlord.worker.say(RentRefused(reason="a container does not work: no GPU", stops=True))
            for task, _ in list(landlord.worker.open):
                landlord.worker.lose(task, is_suspect=False)
            failed_s = clock.time
            await settled(desk)
            assert not landlord.worker.open
            await until_passing(desk, lambda: landlord.worker.open)
            waits.append(clock.time - failed_s)
        assert all(later > 1.6 * wait for wait, later in pairwise(waits)), waits


# ── the pace ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_containers_that_are_slower_than_assumed_change_the_verdict(tmp_path: Path) -> None:
    clock = ManualClock()
    edge = PacedWorker(NEVER, leases=1)
    edge.tokens_per_s = 1.0
    landlord = ScriptedLandlord(clock, NEVER, offers=[offer(tokens_per_s=1000.0)], inputs=4)

    async with open_desk(tmp_path, edge, clock, landlord) as desk:
        rows = texts(*(f"row {n}" for n in range(200)))
        terms = Terms(usd=10.0, target_s=900.0, max_containers=6)
        await desk.begin(FAN_OUT, rows, burst=terms, started_at=clock.time)
        await until_passing(desk, lambda: landlord.workers and landlord.worker.open)
        began = clock.time
        for _ in range(12):
            await passes(desk, 6)
            task, attempt = next(iter(landlord.worker.open))
            landlord.worker.end(task, heavy(landlord.calls[landlord.worker.open[task, attempt]]), began_at=began)
        await passes(desk, 6)
        first, *_, last = desk.bodies(e.PlacementDecided)
        assert first.containers == 1 < last.containers, "what was assumed would have been enough"
