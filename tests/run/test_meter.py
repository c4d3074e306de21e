"""What benches did stands in the log, seldom, and all of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from gx.core import event as e
from gx.core.message import Counts
from gx.core.ports import BenchDown, BenchReading
from gx.core.protocol import Measured
from gx.run.log.query import run_sql
from gx.run.log.verify import verify
from gx.run.meter import WRITE_EVERY_S, Meter
from tests.desk import Desk, open_desk
from tests.fakes import ManualClock, ScriptedWorker, echo

RECIPE = """
version: 1
name: test
models: {m: smollm2}
agents: {a: {model: m, persona: You answer.}}
steps:
  - {id: s, for_each: inputs, agent: a, prompt: "{{ item.text }}"}
"""
ROWS = [{"id": f"T{n}", "text": str(n)} for n in range(3)]


def reading(tokens: int, *, incarnation: int = 1, busy: int = 0) -> BenchReading:
    counts = Counts(decode_tokens=tokens, decode_s=tokens / 10)
    return BenchReading(incarnation=incarnation, measured=Measured(counts=counts, slots=4, slots_busy=busy, threads=2))


def tokens_of(events: list[e.BenchMeasured]) -> list[tuple[str, int, int]]:
    return [(event.run, event.incarnation, event.decode_tokens) for event in events]


def test_the_first_reading_is_written_and_then_one_in_half_a_minute() -> None:
    meter = Meter(epoch=3)
    written = [
        tokens_of(meter.read(reading(tokens), ["r"], worker="edge", now_s=at_s))
        for tokens, at_s in ((10, 0.0), (20, 2.0), (30, WRITE_EVERY_S - 1), (40, WRITE_EVERY_S), (50, 32.0))
    ]
    assert written == [[("r", 1, 10)], [], [], [("r", 1, 30)], []]
    (last,) = meter.end("r")
    assert last == e.BenchMeasured(
        run="r", worker="edge", epoch=3, incarnation=1, decode_tokens=10, decode_s=1.0, slots=4, threads=2
    )
    assert meter.end("r") == []


def test_a_run_that_began_later_has_only_what_was_done_since() -> None:
    meter = Meter(epoch=1)
    meter.read(reading(10), ["one"], worker="edge", now_s=0.0)
    assert tokens_of(meter.read(reading(15), ["one", "two"], worker="edge", now_s=1.0)) == [("two", 1, 5)]
    assert tokens_of([*meter.end("one"), *meter.end("two")]) == [("one", 1, 5)]


def test_each_bench_counts_from_its_start_and_leaves_nothing_to_the_next() -> None:
    meter = Meter(epoch=1)
    meter.read(reading(10), ["r"], worker="edge", now_s=0.0)
    meter.read(reading(14), ["r"], worker="edge", now_s=1.0)
    assert tokens_of(meter.rest(["r"])) == [("r", 1, 4)]
    meter.read(reading(7, incarnation=2), ["r"], worker="edge", now_s=2.0)
    assert tokens_of(meter.end("r")) == [("r", 2, 7)]


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def hears(desk: Desk, told: BenchReading) -> None:
    desk.worker._say(told)
    await until(lambda: desk.dispatcher._meter._last is told.measured)


@pytest.mark.anyio
async def test_a_run_is_measured_seldom_and_to_its_end(tmp_path: Path) -> None:
    clock, worker = ManualClock(), ScriptedWorker(lambda turn: None)
    async with open_desk(tmp_path, worker, clock) as desk:
        active = await desk.begin(RECIPE, ROWS)
        await until(lambda: len(worker.running) == 3)
        for tokens in range(1, 20):
            await hears(desk, reading(tokens, busy=3))
            clock.time += 2.0
        await until(lambda: len(desk.bodies(e.BenchMeasured)) == 2)
        assert [body.decode_tokens for body in desk.bodies(e.BenchMeasured)] == [1, 15]
        bench = desk.view.benches["edge"]
        assert (bench.slots, bench.slots_busy, bench.threads, bench.lately.decode_tokens) == (4, 3, 2, 15)
        worker._say(reading(30))
        for task in list(worker.running):
            worker.end(task, echo(worker.running[task]))
        await desk.finish(active)
        bodies = [body for body in desk.bodies() if isinstance(body, e.BenchMeasured | e.RunFinished)]
        assert [getattr(body, "decode_tokens", None) for body in bodies] == [1, 15, 14, None]
        assert active.state.counts.decode_tokens == 30
        assert run_sql(desk.log, "SELECT sum(decode_tokens), max(slots_busy), sum(requests) FROM engine").rows == [
            (30, 3, 0)
        ]
        assert run_sql(desk.log, "SELECT tokens FROM runs").rows == [(36,)]
        assert verify(desk.log).is_whole


@pytest.mark.anyio
async def test_what_is_measured_of_a_run_adds_up_over_benches_and_resumptions(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None)
    async with open_desk(tmp_path, worker) as desk:
        await desk.begin(RECIPE, ROWS)
        await until(lambda: worker.running)
        for tokens in (1, 5):
            await hears(desk, reading(tokens))
        worker.die()
        await until(lambda: desk.bodies(e.BenchExited))
        kinds = [type(body) for body in desk.bodies() if isinstance(body, e.BenchMeasured | e.BenchExited)]
        assert kinds == [e.BenchMeasured, e.BenchMeasured, e.BenchExited]
        await hears(desk, reading(2, incarnation=2))
        await desk.dispatcher.commit(desk.dispatcher.leftovers())
    worker = ScriptedWorker()
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(RECIPE, ROWS)
        assert active.state.counts.decode_tokens == 7
        assert not desk.view.benches
        await desk.finish(active)
        assert active.state.status.value == "finished"


@pytest.mark.anyio
async def test_a_reading_without_a_run_is_passed_over(tmp_path: Path) -> None:
    worker = ScriptedWorker()
    async with open_desk(tmp_path, worker) as desk:
        await desk.run(RECIPE, ROWS)
        worker._say(reading(5))
        worker._say(BenchDown(incarnation=1, reason="why"))
        await until(lambda: desk.bodies(e.BenchExited))
        assert not desk.bodies(e.BenchMeasured)
