"""Each attempt has one end, however it is given up: recalled, cancelled, or left with its worker."""

from __future__ import annotations

import time

import anyio
import pytest

from cloud import message as m
from cloud.worker import CloudWorker
from gx.core.message import Answer
from gx.core.ports import AttemptEnded, AttemptGone, CallMade, RentRefused, WorkerEvent
from gx.core.task import Quote
from tests.cloud.scripted_calls import TINY, ScriptedCalls, done, next_of, turn, working
from tests.fakes import echo

pytestmark = pytest.mark.anyio


async def test_what_was_cancelled_just_before_it_is_left_is_cancelled_at_the_landlord() -> None:
    calls = ScriptedCalls()
    async with working(calls) as worker:
        worker.submit(turn("a"))
        worker.submit(turn("b"))
        await next_of(worker, CallMade)
        worker.cancel("a", 1)
    assert not calls.open and set(calls.cancelled) == {"fc-1", "fc-2"}


async def test_a_call_that_is_being_made_while_it_is_left_is_cancelled_too() -> None:
    calls = ScriptedCalls()
    calls.may_answer = anyio.Event()
    async with anyio.create_task_group() as group:

        async def live() -> None:
            async with working(calls) as worker:
                worker.submit(turn("a"))
                await anyio.sleep_forever()

        group.start_soon(live)
        await calls.spawning.wait()
        group.cancel_scope.cancel()
        calls.may_answer.set()
    assert calls.cancelled == ["fc-1"] and not calls.open


async def test_a_call_that_can_t_be_cancelled_is_cancelled_later() -> None:
    calls = ScriptedCalls()
    async with working(calls) as worker:
        worker.submit(turn("a"))
        await next_of(worker, CallMade)
        calls.is_deaf = True
        worker.cancel("a", 1)
        await next_of(worker, RentRefused)
        assert not worker.is_clear
        calls.is_deaf = False
        with anyio.fail_after(60):
            while not worker.is_clear:
                await anyio.wait_all_tasks_blocked()
    assert calls.cancelled == ["fc-1"]


async def test_each_attempt_has_one_end() -> None:
    calls = ScriptedCalls()
    async with working(calls) as worker:
        for task in "abc":
            worker.submit(turn(task))
        with anyio.fail_after(60):
            heard: list[WorkerEvent] = []
            while sum(isinstance(event, CallMade) for event in heard) < 3:
                heard.extend(await worker.events())
        calls.reply("fc-1", done(echo(turn("a"))))
        calls.reply("fc-2", m.Unpaid())
        worker.cancel("c", 1)
        ends: dict[str, WorkerEvent] = {}
        with anyio.fail_after(60):
            while len(ends) < 3:
                for event in await worker.events():
                    if isinstance(event, AttemptEnded | AttemptGone):
                        assert event.task not in ends
                        ends[event.task] = event
        assert isinstance(ends["a"], AttemptEnded) and isinstance(ends["a"].outcome, Answer)
        assert isinstance(ends["b"], AttemptGone) and not ends["b"].is_suspect


async def test_what_is_recalled_is_cancelled_and_comes_back_for_that_reason() -> None:
    calls = ScriptedCalls()
    async with working(calls) as worker:
        worker.submit(turn("a"))
        await next_of(worker, CallMade)
        worker.recall("a", 1, "this machine is sooner")
        worker.recall("nobody", 1, "this machine is sooner")
        (gone,) = [event for event in await next_of(worker, AttemptGone) if isinstance(event, AttemptGone)]
        assert (gone.task, gone.reason, gone.is_suspect) == ("a", "this machine is sooner", False)
        assert calls.cancelled == ["fc-1"]


async def test_what_had_ended_before_it_was_recalled_is_taken_as_it_is() -> None:
    class Late(ScriptedCalls):
        async def poll(self, call: str) -> bytes | None:
            return self.replies.get(call) if call in self.cancelled else None

    calls = Late()
    async with working(calls) as worker:
        worker.submit(turn("a"))
        await next_of(worker, CallMade)
        calls.reply("fc-1", done(echo(turn("a"))))
        worker.recall("a", 1, "this machine is sooner")
        heard = await next_of(worker, AttemptEnded)
        (ended,) = [event for event in heard if isinstance(event, AttemptEnded | AttemptGone)]
        assert isinstance(ended, AttemptEnded) and isinstance(ended.outcome, Answer)


async def test_a_recalled_call_that_can_t_be_cancelled_comes_back_at_once_and_its_answer_late() -> None:
    class Late(ScriptedCalls):
        async def poll(self, call: str) -> bytes | None:
            return self.replies.get(call) if call in self.cancelled else None

    calls = Late()
    async with working(calls) as worker:
        worker.submit(turn("a"))
        await next_of(worker, CallMade)
        calls.is_deaf = True
        worker.recall("a", 1, "this machine is sooner")
        await next_of(worker, AttemptGone)
        calls.reply("fc-1", done(echo(turn("a"))))
        calls.is_deaf = False
        heard = await next_of(worker, AttemptEnded)
        assert [event.outcome.usage.tokens_out for event in heard if isinstance(event, AttemptEnded)] == [2]


async def test_the_call_that_had_an_attempt_s_claim_is_cancelled_too_where_the_attempt_is_recalled_or_cancelled() -> (
    None
):
    class Late(ScriptedCalls):
        async def poll(self, call: str) -> bytes | None:
            return self.replies.get(call) if call in self.cancelled else None

    calls = Late()
    async with working(calls) as worker:
        for task, owner in (("a", "fc-earlier"), ("b", "fc-first")):
            worker.submit(turn(task))
            await next_of(worker, CallMade)
            calls.reply(f"fc-{len(calls.spawned)}", m.Taken(call=owner))
        worker.recall("a", 1, "this machine is sooner")
        worker.cancel("b", 1)
        with anyio.fail_after(60):
            while not {"fc-earlier", "fc-first"} <= set(calls.cancelled):
                await anyio.wait_all_tasks_blocked()
        assert {"fc-earlier", "fc-first"} <= set(calls.cancelled)


async def test_an_attempt_that_is_cancelled_ends_once_its_call_is_so_that_a_run_s_last_word_comes_after() -> None:
    calls = ScriptedCalls()
    async with working(calls) as worker:
        worker.submit(turn("a"))
        await next_of(worker, CallMade)
        worker.cancel("a", 1)
        assert not calls.cancelled and not worker.is_clear
        await next_of(worker, AttemptEnded)
        assert calls.cancelled == ["fc-1"] and worker.is_clear


async def test_an_attempt_whose_call_can_t_be_cancelled_ends_all_the_same_and_the_worker_is_not_clear() -> None:
    calls = ScriptedCalls()
    async with working(calls) as worker:
        worker.submit(turn("a"))
        await next_of(worker, CallMade)
        calls.is_deaf = True
        worker.cancel("a", 1)
        heard = await next_of(worker, AttemptEnded)
        assert sum(isinstance(event, AttemptEnded) for event in heard) == 1 and not worker.is_clear


async def test_a_worker_that_was_left_says_whether_each_of_its_calls_was_cancelled_and_pays_for_nothing_more() -> None:
    for is_deaf in (False, True):
        calls = ScriptedCalls()
        async with working(calls) as worker:
            worker.submit(turn("a"))
            await next_of(worker, CallMade)
            calls.is_deaf = is_deaf
        assert worker.is_clear is not is_deaf
        assert calls.paid_until == 0.0


async def test_a_spawn_that_is_not_answered_while_the_worker_is_left_holds_it_up_for_so_long_and_leaves_it_unsure() -> (
    None
):
    calls = ScriptedCalls()
    calls.may_answer = anyio.Event()
    worker = CloudWorker(calls, run="r", gpu="L4", driver="d", inputs=4, quote=Quote(), ending_s=0.1)
    with anyio.fail_after(60):
        async with worker:
            worker.register(TINY)
            worker.scale(1)
            worker.vouch(time.time() + 60)
            worker.submit(turn("a"))
            await calls.spawning.wait()
        assert not worker.is_clear, "nobody knows whether there is a call"
