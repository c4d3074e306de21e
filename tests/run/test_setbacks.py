"""What goes wrong beside the tasks: prompts that can't be counted, inputs that break off or never end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import pytest

from gx.core import event as e
from gx.core.errors import BenchError, InputError
from gx.core.message import Failure, Message
from gx.core.ports import WorkerEvent
from gx.core.view import RunStatus
from gx.run.inputs import Row
from tests.desk import open_desk, rows_of
from tests.fakes import ScriptedWorker, echo
from tests.run.test_dispatcher import until

pytestmark = pytest.mark.anyio

REDUCE = """
version: 1
name: test
models: {m: smollm2}
agents: {a: {model: m}}
steps:
  - {id: s, for_each: inputs, agent: a, prompt: "{{ item.text }}"}
  - {id: r, reduce: s, agent: a, prompt: "PROMPT"}
"""
FAN_OUT = REDUCE.partition("  - {id: r")[0]


class ForgetfulWorker(ScriptedWorker):
    """A worker whose bench is lost under the first `losses` counts."""

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.losses = losses

    async def count(self, model: str, chats: Sequence[tuple[Message, ...]]) -> list[int]:
        if self.losses:
            self.losses -= 1
            raise BenchError("the bench ended: killed by signal 9 (SIGKILL)")
        return await super().count(model, chats)


def texts(count: int) -> list[dict[str, str]]:
    return [{"id": f"T{n}", "text": f"text {n}"} for n in range(count)]


async def test_a_reduce_that_cannot_be_rendered_fails_as_a_task(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        state, records = await desk.run(REDUCE.replace("PROMPT", "{{ items[0].nothing }}"), texts(3))
    assert state.status is RunStatus.finished
    (record,) = records
    assert (record["step"], record["status"], record["error"]["code"]) == ("r", "failed", "template")
    assert "nothing" in record["error"]["message"]


async def test_a_bench_that_is_lost_while_prompts_are_counted_costs_nothing(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ForgetfulWorker(losses=2)) as desk:
        active = await desk.begin(REDUCE.replace("PROMPT", "{{ items | length }}"), texts(3))
        (record,) = [r.as_dict() for r in await desk.finish(active)]
    assert (record["output"], active.error) == ("3", None)


async def test_counts_that_kill_each_bench_end_the_run_with_the_reason(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ForgetfulWorker(losses=9)) as desk:
        active = await desk.begin(REDUCE.replace("PROMPT", "{{ items | length }}"), texts(3))
        assert await desk.finish(active) == []
    assert active.state.status is RunStatus.interrupted
    assert active.error is not None and "killed by signal 9" in active.error.message


async def test_a_bug_while_a_reduce_is_cut_ends_that_run_alone(tmp_path: Path) -> None:
    class BuggyWorker(ScriptedWorker):
        async def count(self, model: str, chats: Sequence[tuple[Message, ...]]) -> list[int]:
            raise ValueError("a bug")

    async with open_desk(tmp_path, BuggyWorker()) as desk:
        active = await desk.begin(REDUCE.replace("PROMPT", "{{ items | length }}"), texts(3))
        assert await desk.finish(active) == []
        assert active.state.status is RunStatus.interrupted
        assert active.error is not None and (active.error.code, "a bug" in active.error.message) == ("internal", True)
        state, _ = await desk.run(FAN_OUT, texts(3))
    assert state.status is RunStatus.finished


async def test_a_bug_in_a_worker_ends_the_runs_that_have_it_and_not_the_loop(tmp_path: Path) -> None:
    class BuggyWorker(ScriptedWorker):
        breaks = False

        async def events(self) -> list[WorkerEvent]:
            got = await super().events()
            if self.breaks:
                self.breaks = False
                raise ExceptionGroup("in a task of its own", [ValueError("a bug")])
            return got

    async with open_desk(tmp_path, worker := BuggyWorker(lambda turn: None)) as desk:
        active = await desk.begin(FAN_OUT, texts(3))
        await until(lambda: len(worker.running) == 3)
        worker.breaks = True
        worker.end(next(iter(worker.running)), Failure(code="x", message="x"))
        await desk.finish(active)
        assert active.state.status is RunStatus.interrupted and not active.state.leased
        assert active.error is not None
        assert (active.error.code, active.error.message) == ("internal", "ValueError: a bug")
        (exited,) = desk.bodies(e.BenchExited)
        assert exited.reason == "ValueError: a bug"
        worker.running.clear()
        worker.answer = echo
        state, _ = await desk.run(FAN_OUT, texts(3))
    assert state.status is RunStatus.finished


async def test_rows_before_the_place_where_an_input_breaks_off_are_kept(tmp_path: Path) -> None:
    def broken() -> Iterator[Row]:
        yield from rows_of(list(texts(3)))
        raise InputError("the input can't be read on: Input/output error")

    async with open_desk(tmp_path) as desk:
        active = await desk.begin(FAN_OUT, broken())
        await desk.finish(active)
        reads = desk.bodies(e.InputsRead)  # one, or more where the loop is quicker than the reader
    assert [row.id for read in reads for row in read.rows] == ["T0", "T1", "T2"]
    assert active.error is not None and "Input/output error" in active.error.message
    assert not active.state.inputs_ended


async def test_an_input_without_end_does_not_keep_a_run_from_draining(tmp_path: Path) -> None:
    def endless() -> Iterator[Row]:
        number = 0
        while True:
            yield Row(index=number, line=number + 1, id=str(number), value=b'{"text":"again"}')
            number += 1

    async with open_desk(tmp_path) as desk:
        active = await desk.begin(FAN_OUT, endless())
        with active.results.watch() as stream:
            await anext(stream)
            desk.dispatcher.drain("r", "interrupted")
            with anyio.fail_after(60):
                async for _ in stream:
                    pass
    assert active.state.status is RunStatus.interrupted
