"""A call that may have been made and that nobody knows: what of it stays reserved, and for how long."""

from __future__ import annotations

from types import SimpleNamespace

import anyio
import modal.exception
import pytest

from cloud import message as m
from cloud.rented import Rented
from cloud.spawning import UNSURE_S, Spawning
from cloud.worker import CloudWorker
from gx.core.errors import CloudError
from gx.core.ports import AttemptEnded, AttemptGone, CallMade, RentRefused
from gx.core.task import Quote
from tests.cloud.scripted_calls import TINY, ScriptedCalls, done, next_of, turn, working
from tests.fakes import echo

pytestmark = pytest.mark.anyio


async def test_calls_are_counted_that_were_made_and_those_that_were_refused_are_not() -> None:
    calls = ScriptedCalls()
    calls.refuses = True
    async with working(calls) as worker:
        worker.submit(turn("a"))
        await next_of(worker, RentRefused)
        assert worker.calls_made == 0
        calls.refuses = False
        await next_of(worker, CallMade)
        assert worker.calls_made == 1
        worker.cancel("a", 1)
        await next_of(worker, AttemptEnded)
        assert worker.calls_made == 1


class Silent(ScriptedCalls):
    """Calls that are made, and of which nobody is told, as long as it `is_silent`."""

    is_silent = True

    async def spawn(self, payload: bytes) -> str:
        call = await super().spawn(payload)
        if self.is_silent:
            raise CloudError("Modal: ServiceError: no answer")
        return call


async def test_what_may_have_a_call_that_nobody_knows_is_not_given_back_and_the_worker_is_not_clear() -> None:
    calls = Silent()
    async with working(calls) as worker:
        worker.submit(turn("a"))
        await next_of(worker, RentRefused)
        assert calls.open and worker.calls_made == 1
        worker.scale(0)
        worker.give_back()
        worker.recall("a", 1, "this machine is sooner")
        assert not worker._events and not worker.is_clear
        calls.is_silent = False
        worker.scale(1)
        heard = await next_of(worker, CallMade)
        assert not any(isinstance(event, AttemptGone) for event in heard)
        assert not worker.is_clear, "the first call may run, beside the one that was made now"
        calls.reply(next(event.call for event in heard if isinstance(event, CallMade)), done(echo(turn("a"))))
        await next_of(worker, AttemptEnded)
        assert worker.is_clear, "it had the claim, so the other runs nothing"


async def made_again(worker: CloudWorker, calls: Silent) -> str:
    """The second call that was made for an attempt, whose first one nobody knows."""
    worker.submit(turn("a"))
    await next_of(worker, RentRefused)
    calls.is_silent = False
    (made,) = [event for event in await next_of(worker, CallMade) if isinstance(event, CallMade)]
    return made.call


@pytest.mark.parametrize("is_claimed", [True, False])
async def test_what_failed_before_it_had_its_attempt_s_claim_says_nothing_of_a_call_that_nobody_knows(
    is_claimed: bool,
) -> None:
    async with working(calls := Silent()) as worker:
        call = await made_again(worker, calls)
        calls.reply(call, m.Lost(reason="the board is away", is_suspect=False, is_claimed=is_claimed))
        await next_of(worker, AttemptGone)
        assert worker.is_clear is is_claimed


@pytest.mark.parametrize("how", ["recalled", "cancelled", "left"])
@pytest.mark.parametrize("is_answered", [True, False])
async def test_an_answer_that_comes_with_a_cancel_counts_for_a_call_that_nobody_knows_too(
    how: str, is_answered: bool
) -> None:
    class Late(Silent):
        async def poll(self, call: str) -> bytes | None:
            return self.replies.get(call) if call in self.cancelled else None

    calls = Late()
    async with working(calls) as worker:
        call = await made_again(worker, calls)
        if is_answered:
            calls.reply(call, done(echo(turn("a"))))
        if how == "recalled":
            worker.recall("a", 1, "this machine is sooner")
        elif how == "cancelled":
            worker.cancel("a", 1)
        if how != "left":
            await next_of(worker, AttemptEnded if is_answered or how == "cancelled" else AttemptGone)
    assert worker.is_clear is is_answered


async def test_a_spawn_that_was_refused_for_a_known_reason_made_no_call() -> None:
    class Unknown(ScriptedCalls):
        async def spawn(self, payload: bytes) -> str:
            raise CloudError("no such app", code="cloud.missing")

    async with working(Unknown()) as worker:
        worker.submit(turn("a"))
        await next_of(worker, RentRefused)
        assert worker.is_clear and worker.calls_made == 0
        worker.give_back()
        await next_of(worker, AttemptGone)


async def test_a_call_that_nobody_knows_may_be_begun_for_as_long_as_containers_were_ever_told_that_they_are_paid() -> (
    None
):
    now = 1000.0
    calls = Silent()
    made = CloudWorker(
        calls, run="r", gpu="L4", driver="d", inputs=4, quote=Quote(), timeout_s=600.0, now=lambda: now, ending_s=0.1
    )
    async with made as worker:
        worker.register(TINY)
        worker.scale(1)
        worker.vouch(now + 60)
        worker.submit(turn("a"))
        await next_of(worker, RentRefused)
        worker.vouch(now + 300)
        worker.scale(0)
        await anyio.wait_all_tasks_blocked()
        now += 60 + 600
        assert not worker.is_clear
    assert not worker.is_clear, "what they were told they may keep to, whatever was said since"
    now = 1000.0 + 300 + 600
    assert worker.is_clear


async def test_nobody_waits_for_ever_for_a_call_that_may_have_been_made() -> None:
    now, paid_until = 100.0, 150.0
    calls = Silent()
    refused = anyio.Event()
    spawning = Spawning(
        calls,
        may_begin=lambda: not refused.is_set(),
        paid_until=lambda: paid_until,
        payload_of=lambda turn: m.pack(
            m.Job(turn=turn, weights=m.Weights(digest="t", sha256="a"), claim="", driver="")
        ),
        on_call=lambda name, call: None,
        on_stray=lambda name, call: None,
        on_refusal=lambda reason: refused.set(),
        timeout_s=600.0,
        now=lambda: now,
        monotonic=lambda: now,
    )
    spawning.add(turn("a"))
    async with anyio.create_task_group() as group:
        group.start_soon(spawning.serve)
        await refused.wait()
        await anyio.wait_all_tasks_blocked()
        assert not spawning.is_clear and spawning.drop_last() == []
        now += UNSURE_S
        assert spawning.drop_last() == [("a", 1)]
        assert not spawning.is_clear, "a call that was begun in time may still run, and costs"
        now += 600.0
        assert spawning.is_clear
        paid_until = now - 599.0
        assert not spawning.is_clear, "somebody paid for longer, so it may have been begun later"
        now += 1.0
        assert spawning.is_clear
        group.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("error", "is_made"),
    [
        (modal.exception.ResourceExhaustedError, False),
        (modal.exception.InvalidError, False),
        (modal.exception.ConflictError, False),
        (modal.exception.PermissionDeniedError, False),
        (modal.exception.UnimplementedError, False),
        (modal.exception.RequestSizeError, False),
        (modal.exception.SerializationError, False),
        (modal.exception.NotFoundError, False),
        (modal.exception.AuthError, False),
        (modal.exception.ServiceError, True),
        (modal.exception.InternalError, True),
        (ConnectionResetError, True),
    ],
)
async def test_a_call_that_the_landlord_refused_was_not_made_and_one_that_failed_may_have_been(
    error: type[Exception], is_made: bool
) -> None:
    async def fails(payload: bytes) -> None:
        raise error("no")

    rented = Rented.__new__(Rented)
    rented._bench = SimpleNamespace(execute=SimpleNamespace(spawn=SimpleNamespace(aio=fails)))
    refused = anyio.Event()
    spawning = Spawning(
        rented,
        may_begin=lambda: not refused.is_set(),
        paid_until=lambda: 0.0,
        payload_of=lambda turn: b"",
        on_call=lambda name, call: None,
        on_stray=lambda name, call: None,
        on_refusal=lambda reason: refused.set(),
    )
    spawning.add(turn("a"))
    async with anyio.create_task_group() as group:
        group.start_soon(spawning.serve)
        with anyio.fail_after(60):
            await refused.wait()
        await anyio.wait_all_tasks_blocked()
        assert spawning.may_be_made(("a", 1)) is bool(spawning.n_made) is is_made
        group.cancel_scope.cancel()
