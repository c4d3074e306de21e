"""The worker over rented containers, without any: when it begins what it is given, and what it tells who pays."""

from __future__ import annotations

import time

import anyio
import pytest

from cloud import message as m
from gx.core.errors import CloudError
from gx.core.message import Answer
from gx.core.ports import AttemptEnded, AttemptGone, CallMade, ContainerSeen, RentRefused
from tests.cloud.scripted_calls import ScriptedCalls, done, next_of, turn, working
from tests.fakes import echo

pytestmark = pytest.mark.anyio


async def test_nothing_begins_while_nothing_is_rented_or_paid_and_what_waits_is_given_back() -> None:
    calls = ScriptedCalls()
    async with working(calls) as worker:
        worker.scale(0)
        assert worker.lease() is None
        await anyio.wait_all_tasks_blocked()
        for task in "abc":
            worker.submit(turn(task))
        await anyio.wait_all_tasks_blocked()
        assert not calls.spawned
        worker.give_back(1)
        worker.give_back()
        gone = [event for event in await next_of(worker, AttemptGone) if isinstance(event, AttemptGone)]
        assert [event.task for event in gone] == ["c", "b", "a"] and not any(event.is_suspect for event in gone)
        worker.scale(1)
        worker.vouch(time.time() - 1)
        assert worker.lease() is None
        worker.submit(turn("d"))
        await anyio.wait_all_tasks_blocked()
        assert not calls.spawned
        worker.vouch(time.time() + 60)
        (made,) = [event for event in await next_of(worker, CallMade) if isinstance(event, CallMade)]
        assert (made.task, made.call) == ("d", "fc-1")
        worker.give_back()
        assert calls.open, "what a call was made for is not given back"


async def test_who_pays_is_told_by_the_clock_of_the_containers_where_this_machine_s_is_behind() -> None:
    """As a container has it: what it is given is paid for, or not, by its own clock."""

    class Ahead(ScriptedCalls):
        async def spawn(self, payload: bytes) -> str:
            call = await super().spawn(payload)
            now = time.time() + 3600
            is_paid = self.paid_until > now
            reply = done(echo(m.read_job(payload).turn)) if is_paid else m.Unpaid()
            seat = m.Seat(container="ta-1", began_at=now - 5, now=now)
            self.replies[call] = m.pack(m.Report(seat=seat, reply=reply))
            return call

    calls = Ahead()
    async with working(calls) as worker:
        worker.submit(turn("a"))
        heard = await next_of(worker, AttemptGone)
        (seen,) = [event for event in heard if isinstance(event, ContainerSeen)]
        assert abs(seen.seen_at - time.time()) < 30 and seen.began_at == pytest.approx(seen.seen_at - 5)
        with anyio.fail_after(60):
            while calls.paid_until < time.time() + 3600:  # noqa: ASYNC110  nobody is told of that
                await anyio.sleep(0.01)
        worker.submit(turn("b"))
        (ended,) = [event for event in await next_of(worker, AttemptEnded) if isinstance(event, AttemptEnded)]
        assert ended.task == "b" and isinstance(ended.outcome, Answer)


async def test_after_a_container_that_found_nobody_who_pays_there_is_a_rest() -> None:
    calls = ScriptedCalls()
    async with working(calls) as worker:
        worker.submit(turn("a"))
        await next_of(worker, CallMade)
        calls.reply("fc-1", m.Unpaid())
        await next_of(worker, AttemptGone)
        assert worker._spawning.rest_s > 0


async def test_a_clock_of_a_container_that_is_behind_or_a_word_that_is_old_shortens_no_lease() -> None:
    calls = ScriptedCalls()
    async with working(calls) as worker:
        await anyio.wait_all_tasks_blocked()
        until = calls.paid_until
        worker._see(m.Seat(container="ta-1", began_at=1.0, now=10.0))
        await anyio.wait_all_tasks_blocked()
        assert calls.paid_until == until


async def test_what_nobody_can_ask_after_since_the_token_is_refused_comes_home_and_the_rest_is_asked_again() -> None:
    class Revoked(ScriptedCalls):
        error = CloudError("no way there")

        async def poll(self, call: str) -> bytes | None:
            raise self.error

    calls = Revoked()
    async with working(calls) as worker:
        worker.submit(turn("a"))
        await next_of(worker, CallMade)
        await anyio.wait_all_tasks_blocked()
        assert worker._following.names, "it may be there again"
        calls.error = CloudError("Modal refuses the token", code="cloud.token")
        heard = await next_of(worker, AttemptGone)
        assert [event.is_suspect for event in heard if isinstance(event, AttemptGone)] == [False]
        (refused,) = [event for event in heard if isinstance(event, RentRefused)]
        assert (refused.code, refused.stops) == ("cloud.token", True)
