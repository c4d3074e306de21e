"""Containers that don't work are nobody's fault but their own, and what no container can do comes home."""

from __future__ import annotations

import anyio
import pytest

from cloud import message as m
from cloud.rented import Gone
from cloud.worker import CloudWorker
from gx.core.ports import AttemptEnded, AttemptGone, CallMade, RentRefused
from tests.cloud.scripted_calls import ScriptedCalls, done, next_of, turn, working
from tests.fakes import echo

pytestmark = pytest.mark.anyio


async def test_a_container_that_does_not_work_is_not_the_attempt_s_fault_and_stops_the_renting() -> None:
    for is_model, code in ((False, ""), (True, "cloud.model")):
        calls = ScriptedCalls()
        async with working(calls) as worker:
            worker.submit(turn("a"))
            await next_of(worker, CallMade)
            calls.reply("fc-1", m.Lost(reason="no GPU", is_suspect=False, is_model=is_model))
            heard = await next_of(worker, AttemptGone)
            gone = next(event for event in heard if isinstance(event, AttemptGone))
            assert gone.is_home is is_model and not gone.is_suspect
            refused = next(event for event in heard if isinstance(event, RentRefused))
            assert "no GPU" in refused.reason and refused.stops and refused.code == code
        assert not calls.cancelled, "a call that is over is not cancelled"


async def test_one_container_that_does_not_work_may_be_the_exception_and_another_one_in_a_row_is_not() -> None:
    calls = ScriptedCalls()
    async with working(calls) as worker:
        for task in "abcd":
            worker.submit(turn(task))
        with anyio.fail_after(60):
            while len(calls.open) < 4:
                await worker.events()
        calls.reply("fc-1", done(echo(turn("a"))))
        await next_of(worker, AttemptEnded)
        stops = []
        for call, container in (("fc-2", "ta-2"), ("fc-3", "ta-2"), ("fc-4", "ta-3")):
            lost = m.Lost(reason="not enough memory", is_suspect=False, is_model=True)
            calls.reply(call, lost, container=container)
            heard = await next_of(worker, AttemptGone)
            refused = [event for event in heard if isinstance(event, RentRefused)]
            assert not any(event.code for event in refused), "it is not for good: the model was used"
            stops += [event.stops for event in refused]
            assert worker._spawning.rest_s == (30.0 if stops[-1] else 0.0), "one holds up none that works"
        assert stops == [False, False, True]


async def failures(
    worker: CloudWorker, calls: ScriptedCalls, *given: tuple[str, str, m.Done | m.Lost | Gone]
) -> list[tuple[bool, bool]]:
    """Have each task answered by a container: of those that are gone, whether it is home, and whether renting stops."""
    found: list[tuple[bool, bool]] = []
    for task, container, end in given:
        worker.submit(turn(task))
        (made,) = [event for event in await next_of(worker, CallMade) if isinstance(event, CallMade)]
        if isinstance(end, Gone):
            calls.gone[made.call] = end
        else:
            calls.reply(made.call, end, container=container)
        heard = await next_of(worker, AttemptEnded if isinstance(end, m.Done) else AttemptGone)
        stops = any(event.stops for event in heard if isinstance(event, RentRefused))
        found += [(event.is_home, stops) for event in heard if isinstance(event, AttemptGone)]
    return found


LOST = m.Lost(reason="its container failed: OSError", is_suspect=False)
DONE = done(echo(turn("any")))


async def test_what_a_container_that_does_not_work_had_may_be_lent_again() -> None:
    async with working(calls := ScriptedCalls()) as worker:
        given = [("a", "ta-1", DONE), ("b", "ta-1", LOST), ("b", "ta-2", LOST), ("c", "", Gone("it was cancelled"))]
        assert [is_home for is_home, _ in await failures(worker, calls, *given)] == [False] * 3


async def test_what_a_container_could_not_do_that_did_others_comes_home_where_it_fails_again() -> None:
    async with working(calls := ScriptedCalls()) as worker:
        given = [("a", "ta-1", DONE), ("b", "ta-1", LOST), ("c", "ta-1", DONE), ("b", "ta-2", LOST)]
        assert await failures(worker, calls, *given) == [(False, False), (True, False)]


async def test_what_took_too_long_comes_home_and_says_nothing_of_its_container() -> None:
    async with working(calls := ScriptedCalls()) as worker:
        late = Gone("it took longer than 60 s", is_late=True)
        given = [("a", "ta-1", DONE), ("b", "", late), ("c", "", late), ("d", "ta-1", LOST)]
        assert await failures(worker, calls, *given) == [(True, False), (True, False), (False, False)]


async def test_a_container_that_worked_once_and_breaks_stops_the_renting_once_it_fails_all_that_it_holds() -> None:
    async with working(calls := ScriptedCalls()) as worker:
        holds = worker.capacity().leases
        broken = [(f"t{n}", "ta-1", LOST) for n in range(holds)]
        assert await failures(worker, calls, ("a", "ta-1", DONE), *broken) == [
            *[(False, False)] * (holds - 1),
            (False, True),
        ]


@pytest.mark.parametrize(
    ("gone", "is_suspect", "is_refusal"),
    [
        (Gone("it can't start"), False, True),
        (Gone("it died", is_suspect=True), True, False),
        (Gone("long ago", is_expired=True), False, False),
    ],
)
async def test_what_becomes_of_a_call_that_gives_no_result_says_whether_it_is_the_containers(
    gone: Gone, is_suspect: bool, is_refusal: bool
) -> None:
    calls = ScriptedCalls()
    async with working(calls) as worker:
        worker.submit(turn("a"))
        await next_of(worker, CallMade)
        calls.gone["fc-1"] = gone
        heard = await next_of(worker, AttemptGone)
        assert [event.is_suspect for event in heard if isinstance(event, AttemptGone)] == [is_suspect]
        assert [event.stops for event in heard if isinstance(event, RentRefused)] == [True] * is_refusal
