"""What crosses on its way: an answer and a take-back or a cancellation, a wish and a lease, in one commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from gx.core import event as e
from gx.core.task import Status
from gx.core.view import RunState, RunStatus
from gx.run import afterwards
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


def meanwhile_written(desk: Desk, monkeypatch: pytest.MonkeyPatch, kind: type, wish: Callable[[], None]) -> None:
    """Have something wanted while the first events of a kind are on their way into the log."""
    append, wishes = desk.log.append, [wish]

    async def crossed(bodies: Sequence[e.Body], *args: Any, **more: Any) -> list[e.Event]:
        events = await append(bodies, *args, **more)
        if wishes and any(isinstance(body, kind) for body in bodies):
            wishes.pop()()
        return events

    monkeypatch.setattr(desk.log, "append", crossed)


async def test_a_run_that_is_given_up_while_its_leases_are_committed_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = ScriptedWorker(NEVER, leases=2)
    async with open_desk(tmp_path, worker) as desk:
        given_up = e.RunCancelled(run="r", reason="not wanted", by="me")
        meanwhile_written(desk, monkeypatch, e.TaskLeased, lambda: desk.dispatcher.stop(given_up))
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
        meanwhile_written(desk, monkeypatch, e.TaskLeased, lambda: desk.dispatcher.cancel("r", "not wanted"))
        active = await desk.begin(FAN_OUT, texts("a", "b"))
        with anyio.fail_after(60):
            await active.over.wait()
        assert not worker.running


async def test_a_run_that_was_given_up_stays_so_whoever_stops_it_as_well(tmp_path: Path) -> None:
    worker = ScriptedWorker(NEVER, leases=2)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(FAN_OUT, texts("a", "b"))
        await until(lambda: len(worker.running) == 2)
        desk.dispatcher.stop(e.RunCancelled(run="r", reason="not wanted", by="me"))
        desk.dispatcher.stop(e.RunInterrupted(run="r", reason="its terminal went away"))
        with anyio.fail_after(60):
            await active.over.wait()
        assert [body.reason for body in desk.bodies(e.RunCancelled)] == ["not wanted"]
        assert not desk.bodies(e.RunInterrupted)


async def test_a_run_is_not_paused_while_its_last_word_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_desk(tmp_path, ScriptedWorker(echo, leases=2)) as desk:
        meanwhile_written(desk, monkeypatch, e.RunFinished, lambda: desk.dispatcher.change(e.RunPaused(run="r")))
        await desk.run(FAN_OUT, texts("a", "b"))
        other = await desk.begin(FAN_OUT, texts("a"), run="other")  # what is wanted is written by then, if at all
        await desk.finish(other)
        assert not desk.bodies(e.RunPaused)
        assert "paused" not in {status for (status,) in desk.log.file.ask("SELECT status FROM runs")}


async def test_a_run_that_is_given_up_while_its_interruption_is_written_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_desk(tmp_path, ScriptedWorker(NEVER, leases=2)) as desk:
        given_up = e.RunCancelled(run="r", reason="not wanted", by="me")
        meanwhile_written(desk, monkeypatch, e.RunInterrupted, lambda: desk.dispatcher.stop(given_up))
        active = await desk.begin(FAN_OUT, texts("a", "b"))
        desk.dispatcher.stop(e.RunInterrupted(run="r", reason="Ctrl-C"))
        with anyio.fail_after(60):
            await active.over.wait()
        await until(lambda: desk.bodies(e.RunCancelled) == [given_up])
        assert not desk.log.is_unfinished("r")


def test_what_was_wanted_of_a_run_that_was_interrupted_meanwhile_counts_when_it_goes_on() -> None:
    changed = e.RunChanged(run="r", budget_tokens=5)
    answered = e.QuestionAnswered(run="r", question="q", choice="stop", by="me")
    stop = e.StopAsked(run="r", reason="because", by="me")
    other = e.RunPaused(run="other")
    pending = [changed, e.RunPaused(run="r"), answered, stop, e.RunContinued(run="r"), other]
    created = e.RunCreated(run="r", name="r", fingerprint="f", recipe="", params="")
    ended, finished = (
        RunState(id="r", created=created, status=status) for status in (RunStatus.interrupted, RunStatus.finished)
    )
    stopped = e.RunStopped(run="r", limit="rule", reason="because (asked by me)")
    assert afterwards.kept(pending, ended) == [changed, answered, stopped, other]
    assert afterwards.kept(pending, finished) == [other]
