"""A stream without end: it is read no further than its results are taken, so that it takes bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import anyio
import pytest

from gx.core import event as e
from gx.run.inputs import Row
from tests.desk import open_desk
from tests.fakes import ScriptedWorker
from tests.run.test_dispatcher import FAN_OUT, until

pytestmark = pytest.mark.anyio
PATIENCE_S = 0.3


def endless(made: list[int]) -> Iterator[Row]:
    for index in count():
        made[0] = index
        yield Row(index=index, line=index + 1, id=str(index), value=b'{"text":"%d"}' % index)


async def standstill(made: list[int]) -> int:
    """How many rows were read, once no more are."""
    last = -1
    while made[0] != last:
        last = made[0]
        await anyio.sleep(PATIENCE_S)
    return last


async def test_a_stream_is_read_no_further_than_its_results_are_taken(tmp_path: Path) -> None:
    made = [0]
    async with open_desk(tmp_path, ScriptedWorker(leases=64)) as desk:
        active = await desk.begin(FAN_OUT, endless(made), reads_stream=True)
        with active.results.watch() as chunks:
            await until(lambda: active.results.is_slow)
            held = await standstill(made)
            assert held < 20_000
            taken = 0
            async for records in chunks:
                taken += len(records)
                if made[0] > held:
                    break
            assert taken > 0
        desk.dispatcher.stop(e.RunInterrupted(run="r", reason="enough"))
        await active.results.ended()


async def test_a_stream_is_not_read_far_ahead_of_what_runs(tmp_path: Path) -> None:
    made = [0]
    async with open_desk(tmp_path, ScriptedWorker(lambda turn: None, leases=2)) as desk:
        active = await desk.begin(FAN_OUT, endless(made), reads_stream=True)
        await until(lambda: len(active.state.tasks) > 2000)
        assert await standstill(made) < 30_000
        desk.dispatcher.stop(e.RunInterrupted(run="r", reason="enough"))
        await active.results.ended()
