"""Results in the order of the rows: each waits for those before it, and nobody waits for what will never come."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from gx.core.message import Failure
from tests.desk import open_desk
from tests.fakes import ScriptedWorker, echo
from tests.run.test_dispatcher import FAN_OUT, texts, until

pytestmark = pytest.mark.anyio


async def test_a_result_waits_for_those_before_it(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=4)
    seen: list[int] = []
    async with open_desk(tmp_path, worker) as desk, anyio.create_task_group() as group:
        active = await desk.begin(FAN_OUT, texts("a", "b", "c", "d"))

        async def watch() -> None:
            with active.results.watch(active.rows_in_order()) as chunks:
                async for records in chunks:
                    seen.extend(record.task.index for record in records)

        group.start_soon(watch)
        await until(lambda: len(worker.running) == 4)
        first, second, third, fourth = worker.running
        for task, there in ((third, []), (first, [0]), (fourth, [0]), (second, [0, 1, 2, 3])):
            worker.end(task, echo(worker.running[task]))
            count = len(there)
            await until(lambda count=count: len(active.results) > 0 and len(seen) >= count)
            await anyio.sleep(0.02)
            assert seen == there


async def test_when_the_run_is_interrupted_nobody_waits_for_the_row_that_is_missing(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=2)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(FAN_OUT, texts("a", "b"))
        await until(lambda: len(worker.running) == 2)
        first, second = worker.running
        worker.end(second, echo(worker.running[second]))
        desk.dispatcher.drain("r", "interrupted")
        worker.end(first, Failure(code="cancelled", message="gone"))
        with active.results.watch(active.rows_in_order()) as chunks:
            seen = [record.task.index async for records in chunks for record in records]
    assert seen == [1]
