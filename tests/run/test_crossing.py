"""What crosses on its way: an answer and a take-back or a cancellation, a wish and a lease, in one commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from gx.core import event as e
from gx.core.task import Status
from tests.desk import Desk, open_desk
from tests.fakes import ScriptedWorker, echo
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


def meanwhile_leased(desk: Desk, monkeypatch: pytest.MonkeyPatch, wish: Callable[[], None]) -> None:
    """Have something wanted while the first leases are on their way into the log."""
    append, wishes = desk.log.append, [wish]

    async def crossed(bodies: Sequence[e.Body], *args: Any, **more: Any) -> list[e.Event]:
        events = await append(bodies, *args, **more)
        if wishes and any(isinstance(body, e.TaskLeased) for body in bodies):
            wishes.pop()()
        return events

    monkeypatch.setattr(desk.log, "append", crossed)


async def test_a_run_that_is_given_up_while_its_leases_are_committed_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = ScriptedWorker(NEVER, leases=2)
    async with open_desk(tmp_path, worker) as desk:
        given_up = e.RunCancelled(run="r", reason="not wanted", by="me")
        meanwhile_leased(desk, monkeypatch, lambda: desk.dispatcher.stop(given_up))
        active = await desk.begin(FAN_OUT, texts("a", "b", "c"))
        with anyio.fail_after(60):
            await active.over.wait()
        assert not worker.running
        assert len(desk.bodies(e.AttemptLost)) == len(desk.bodies(e.TaskLeased)) == 2


async def test_a_task_that_is_cancelled_while_its_lease_is_committed_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = ScriptedWorker(NEVER, leases=2)
    async with open_desk(tmp_path, worker) as desk:
        meanwhile_leased(desk, monkeypatch, lambda: desk.dispatcher.cancel("r", "not wanted"))
        active = await desk.begin(FAN_OUT, texts("a", "b"))
        with anyio.fail_after(60):
            await active.over.wait()
        assert not worker.running
