"""When a bench is taken for hung: an attempt that it began doesn't end in time. What waits may wait."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from gx.core import event as e
from gx.core.message import Failure
from gx.core.ports import BenchReading
from gx.core.protocol import Measured, Signal, SlotNow
from tests.desk import open_desk
from tests.fakes import ManualClock, ScriptedWorker, echo
from tests.run.test_dispatcher import FAN_OUT, texts, until

pytestmark = pytest.mark.anyio


def reading(*conversations: str) -> BenchReading:
    """A bench has these in its slots."""
    slots = tuple(SlotNow(conversation=name, tokens=9, prompt_tokens=9) for name in conversations)
    return BenchReading(incarnation=1, measured=Measured(slots=2, slots_busy=len(slots), sequences=slots))


async def test_a_worker_whose_attempt_outlives_its_time_out_is_restarted(tmp_path: Path) -> None:
    clock, worker = ManualClock(), ScriptedWorker(lambda turn: None, leases=1)
    async with open_desk(tmp_path, worker, clock) as desk:
        active = await desk.begin(FAN_OUT.replace("retry:", "timeout: 5s, retry:"), texts("a"))
        await until(lambda: active.begun_at)
        worker.answer = echo
        clock.time += 25
        desk.wake()
        (record,) = await desk.finish(active)
        (exited,) = desk.bodies(e.BenchExited)
    assert record.as_dict()["status"] == "succeeded"
    assert "time-out of 5 s" in exited.reason


async def test_an_attempt_that_waits_in_its_bench_may_do_so_as_long_as_it_takes(tmp_path: Path) -> None:
    clock, worker = ManualClock(), ScriptedWorker(lambda turn: None, leases=2)
    worker.begins = False  # as while a model is loaded, or others have all slots
    async with open_desk(tmp_path, worker, clock) as desk:
        active = await desk.begin(FAN_OUT.replace("retry:", "timeout: 5s, retry:"), texts("a", "b"))
        await until(lambda: len(worker.running) == 2)
        clock.time += 1000
        first, second = worker.running
        worker._say(Signal(task=first, attempt=1))
        worker._say(Signal(task=second, attempt=2))  # of which nobody knows
        await until(lambda: active.begun_at)
        assert list(active.begun_at) == [first] and not desk.bodies(e.BenchExited)
        clock.time += 12  # its time-out and more, but not so much that its bench wouldn't have ended it
        for task in (first, second):
            worker.end(task, echo(worker.running[task]))
        assert len(await desk.finish(active)) == 2
        assert not desk.bodies(e.BenchExited)


async def test_what_waits_for_its_next_slot_is_not_watched_until_it_has_one(tmp_path: Path) -> None:
    clock, worker = ManualClock(), ScriptedWorker(lambda turn: None, leases=2)
    async with open_desk(tmp_path, worker, clock) as desk:
        active = await desk.begin(FAN_OUT.replace("retry:", "timeout: 5s, retry:"), texts("a", "b"))
        await until(lambda: len(active.begun_at) == 2)
        first, second = active.begun_at
        worker._say(reading())  # older than what it began
        await until(lambda: not worker._events and not desk.dispatcher._edge.inbox)
        assert list(active.begun_at) == [first, second]
        clock.time += 3
        worker._say(reading(f"{first} 1"))  # the other one is between two fields of a choice
        await until(lambda: list(active.begun_at) == [first])
        clock.time += 12
        worker._say(reading(f"{first} 1", f"{second} 1", "another engine's 1", ""))
        await until(lambda: list(active.begun_at) == [first, second])
        assert active.begun_at[second].monotonic - active.begun_at[first].monotonic == 15
        for task in (first, second):
            worker.end(task, echo(worker.running[task]))
        await desk.finish(active)
        assert not desk.bodies(e.BenchExited)


async def test_a_lost_attempts_time_does_not_count_for_the_next_one(tmp_path: Path) -> None:
    clock, worker = ManualClock(), ScriptedWorker(lambda turn: None, leases=1)
    async with open_desk(tmp_path, worker, clock) as desk:
        active = await desk.begin(FAN_OUT.replace("retry:", "timeout: 60s, retry:"), texts("a"))
        await until(lambda: active.begun_at)
        clock.time += 55
        worker.die()
        await until(lambda: [begun.attempt for begun in active.begun_at.values()] == [2])
        clock.time += 100  # less than twice its time, though more since the first attempt began
        desk.wake()
        await anyio.sleep(0.05)  # nothing is to happen
        assert len(desk.bodies(e.BenchExited)) == 1
        (task,) = worker.running
        worker.end(task, echo(worker.running[task]))
        await desk.finish(active)


async def test_an_attempt_that_failed_and_waits_for_its_retry_hangs_nobody(tmp_path: Path) -> None:
    failure = Failure(code="timeout", message="the turn ran longer than 5 s")
    clock, worker = ManualClock(), ScriptedWorker(lambda turn: failure, leases=1)
    recipe = FAN_OUT.replace("retry:", "timeout: 5s, retry:").replace("backoff: 10s", "backoff: 60s")
    async with open_desk(tmp_path, worker, clock) as desk:
        active = await desk.begin(recipe, texts("a"))
        await until(lambda: active.state.delayed)
        worker.answer = echo
        clock.time += 25  # past what an attempt of 5 s may take; a wait of 60 s is 30 to 90 s with its jitter
        desk.wake()
        await anyio.sleep(0.05)  # nothing is to happen
        assert not desk.bodies(e.BenchExited)
        clock.time += 70  # past the retry, which therefore begins when the clock stands still
        desk.wake()
        await desk.finish(active)
        assert not desk.bodies(e.BenchExited)
