"""What a run that was left finds when it is taken up again, after another run or an erasure in the meantime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import pytest

from gx.core import event as e
from gx.core.ids import digest
from gx.core.message import Message, Outcome, Turn
from gx.run.log import EventLog
from gx.run.log.erase import erase
from tests.desk import Desk, open_desk, rows_of
from tests.fakes import ScriptedWorker, echo

pytestmark = pytest.mark.anyio
RECIPE = """\
version: 1
name: one
models: {m: ./m.gguf}
agents: {a: {model: m}}
steps:
  - {id: s, for_each: inputs, agent: a, prompt: "{{ item.text }}"}
"""
REPORT = '  - {id: r, reduce: s, agent: a, prompt: "{% for one in items %}{{ one }} {% endfor %}"}\n'
ROWS = [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}]


class NeverCounts(ScriptedWorker):
    async def count(self, model: str, chats: Sequence[tuple[Message, ...]]) -> list[int]:
        await anyio.sleep_forever()


def only(*texts: str) -> Callable[[Turn], Outcome | None]:
    return lambda turn: echo(turn) if turn.messages[-1].content in texts else None


async def until(is_so: Callable[[], object]) -> None:
    with anyio.fail_after(60):
        while not is_so():  # noqa: ASYNC110 - what is awaited has no event of its own
            await anyio.sleep(0.01)


async def resumed(desk: Desk, recipe: str, rows: list[dict[str, str]]) -> list[dict[str, object]]:
    with anyio.fail_after(60):
        return (await desk.run(recipe, rows, run="first"))[1]


async def test_rows_with_equal_prompts_end_when_another_run_has_answered_them(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "same"}, {"id": "b", "text": "same"}]
    async with open_desk(tmp_path, ScriptedWorker(only())) as desk:
        await desk.begin(RECIPE, rows, run="first")
        await until(lambda: desk.worker.submitted)
    async with open_desk(tmp_path) as desk:
        await desk.run(RECIPE, rows, run="second")
    async with open_desk(tmp_path) as desk:
        assert len(await resumed(desk, RECIPE, rows)) == 2


async def test_a_reduce_whose_rows_had_all_ended_is_cut_after_a_restart(tmp_path: Path) -> None:
    async with open_desk(tmp_path, NeverCounts()) as desk:
        await desk.begin(RECIPE + REPORT, ROWS, run="first")
        await until(lambda: len(desk.bodies(e.TaskSucceeded)) == 2 and desk.bodies(e.StepUnfolded))
    async with open_desk(tmp_path) as desk:
        assert len(await resumed(desk, RECIPE + REPORT, ROWS)) == 1


@pytest.mark.parametrize("done", [(), ("one",)], ids=["not done", "done"])
async def test_a_run_that_lost_content_to_the_erasure_of_another_is_not_resumed(
    tmp_path: Path, done: tuple[str, ...]
) -> None:
    async with open_desk(tmp_path, ScriptedWorker(only(*done))) as desk:
        await desk.begin(RECIPE, ROWS, run="first")
        await until(lambda: desk.worker.running and len(desk.bodies(e.TaskSucceeded)) == len(done))
    async with open_desk(tmp_path) as desk:
        state, _ = await desk.run(RECIPE, ROWS, run="second")
    erase(EventLog.open(tmp_path), next(iter(state.tasks)))
    with EventLog.open(tmp_path) as log:
        assert log.newest_run("first") is None


async def test_a_run_whose_rows_were_read_and_not_queued_keeps_them_or_is_not_resumed(tmp_path: Path) -> None:
    items = [row.value or b"" for row in rows_of(ROWS)]
    read = tuple(e.InputRow(index=n, id=ROWS[n]["id"], item=digest(item)) for n, item in enumerate(items))
    async with open_desk(tmp_path) as desk:
        created = e.RunCreated(run="first", name="one", fingerprint="first", recipe="", params="")
        blobs = [e.Blob(digest=digest(item), content=item) for item in items]
        await desk.dispatcher.commit([created, e.InputsRead(run="first", rows=read)], blobs)
        await desk.dispatcher.commit([e.InputsEnded(run="first", rows=2)])
    async with open_desk(tmp_path) as desk:
        state, _ = await desk.run(RECIPE, ROWS, run="second")
    erase(EventLog.open(tmp_path), next(iter(state.tasks)))
    with EventLog.open(tmp_path) as log:
        assert log.newest_run("first") is None or len(log.blobs([digest(item) for item in items])) == 2
