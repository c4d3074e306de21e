"""The worker over rented containers, without any: what it begins, gives back, and cancels before it is left."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import anyio
import modal.exception
import pytest

from cloud import message as m
from cloud.rented import Gone, Refused, Rented
from cloud.spawning import UNSURE_S, Spawning
from cloud.worker import CloudWorker
from edge.frames import pack_outcome
from gx.core.errors import CloudError
from gx.core.message import Answer, Message, Outcome, Turn
from gx.core.ports import AttemptEnded, AttemptGone, CallMade, ContainerSeen, RentRefused, WorkerEvent
from gx.core.task import Quote
from tests.fakes import echo

pytestmark = pytest.mark.anyio
TINY = m.Weights(digest="tiny", sha256="ab")


class ScriptedCalls:
    """Calls that end when they are told to."""

    def __init__(self) -> None:
        self.spawned: list[m.Job] = []
        self.open: dict[str, m.Job] = {}
        self.replies: dict[str, bytes] = {}
        self.gone: dict[str, Gone] = {}
        self.cancelled: list[str] = []
        self.refuses = self.is_deaf = False
        self.paid_until = -1.0
        self.words: dict[str, bytes] = {}
        self.spawning, self.may_answer = anyio.Event(), anyio.Event()
        self.may_answer.set()

    async def spawn(self, payload: bytes) -> str:
        if self.refuses:
            raise Refused("the quota is reached")
        job = m.read_job(payload)
        self.spawned.append(job)
        call = f"fc-{len(self.spawned)}"
        self.open[call] = job
        self.spawning.set()
        await self.may_answer.wait()
        return call

    async def poll(self, call: str) -> bytes | None:
        if call in self.cancelled:
            raise Gone("it was cancelled")
        if call in self.gone:
            raise self.gone[call]
        return self.replies.get(call)

    async def cancel(self, call: str) -> None:
        if self.is_deaf:
            raise CloudError("no way there")
        self.cancelled.append(call)
        self.open.pop(call, None)

    async def scale(self, max_containers: int) -> None:
        pass

    async def vouch(self, driver: str, until: float) -> None:
        self.paid_until = until

    async def said(self, key: str) -> bytes | None:
        return self.words.get(key)

    def reply(self, call: str, reply: m.Done | m.Lost | m.Taken | m.Unpaid, *, container: str = "ta-1") -> None:
        seat = m.Seat(container=container, began_at=time.time(), now=time.time())
        self.replies[call] = m.pack(m.Report(seat=seat, reply=reply))
        self.open.pop(call, None)


def done(outcome: Outcome) -> m.Done:
    return m.Done(packed=pack_outcome(outcome), ms=1.0)


@asynccontextmanager
async def working(calls: ScriptedCalls) -> AsyncIterator[CloudWorker]:
    async with CloudWorker(calls, run="r", gpu="L4", driver="d", inputs=4, quote=Quote()) as worker:
        worker.register(TINY)
        worker.scale(1)
        worker.vouch(time.time() + 60)
        yield worker


def turn(task: str) -> Turn:
    return Turn(run="r", task=task, attempt=1, model="tiny", messages=(Message(role="user", content=task),))


async def next_of(worker: CloudWorker, kind: type) -> list[WorkerEvent]:
    """What it says up to the first of that kind; that is the last."""
    heard: list[WorkerEvent] = []
    with anyio.fail_after(60):
        while not any(isinstance(event, kind) for event in heard):
            heard.extend(await worker.events())
    return heard


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
        assert worker._open, "it may be there again"
        calls.error = CloudError("Modal refuses the token", code="cloud.token")
        heard = await next_of(worker, AttemptGone)
        assert [event.is_suspect for event in heard if isinstance(event, AttemptGone)] == [False]
        (refused,) = [event for event in heard if isinstance(event, RentRefused)]
        assert (refused.code, refused.stops) == ("cloud.token", True)


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
