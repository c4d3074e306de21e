"""What crosses on its way: an answer and a take-back, a cancellation and an answer, in one commit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gx.core import event as e
from gx.core.task import Status
from tests.desk import open_desk
from tests.fakes import echo
from tests.run.rented import NEVER
from tests.run.test_dispatcher import FAN_OUT, texts, until
from tests.run.test_steering import AtOnceWorker

pytestmark = pytest.mark.anyio


class Crossed(AtOnceWorker):
    """A worker whose next news comes together with something that somebody wants."""

    meanwhile_once: Callable[[], None] | None = None

    def meanwhile(self) -> None:
        wish, self.meanwhile_once = self.meanwhile_once, None
        if wish is not None:
            wish()


async def test_an_answer_that_crosses_its_cancellation_gives_one_record(tmp_path: Path) -> None:
    worker = Crossed(NEVER, leases=2)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(FAN_OUT, texts("a", "b"))
        await until(lambda: len(worker.running) == 2)
        first, second = worker.running
        worker.meanwhile_once = lambda: desk.dispatcher.cancel("r", "not wanted", tasks=[first])
        worker.end(first, echo(worker.running[first]))
        await until(lambda: desk.bodies(e.TaskCancelled))
        worker.end(second, echo(worker.running[second]))
        records = await desk.finish(active)
        assert sorted(one.task.id for one in records) == sorted((first, second))
        assert active.state.tasks[first].status is Status.cancelled


async def test_an_answer_that_crosses_its_take_back_gives_no_record_before_the_task_has_ended(tmp_path: Path) -> None:
    worker = Crossed(NEVER, leases=2)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(FAN_OUT, texts("a", "b"))
        await until(lambda: len(worker.running) == 2)
        first, second = worker.running
        worker.meanwhile_once = lambda: desk.dispatcher.requeue("r", [first], "me")
        worker.end(first, echo(worker.running[first]))
        await until(lambda: desk.bodies(e.AttemptLost))
        worker.answer = echo
        for task in list(worker.running):
            worker.end(task, echo(worker.running[task]))
        records = await desk.finish(active)
        assert sorted(one.task.id for one in records) == sorted((first, second))
        assert {one.task.status for one in records} == {Status.succeeded}
