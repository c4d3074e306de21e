"""Runs that are steered while they go on, with a real log and a scripted worker: paused and routed steps, questions."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from gx.core import event as e
from gx.core.message import Turn
from gx.core.ports import WorkerEvent
from gx.core.view import RunStatus
from tests.desk import Desk, open_desk
from tests.fakes import ScriptedWorker, echo

pytestmark = pytest.mark.anyio

RECIPE = """
version: 1
name: test
models: {m: smollm2, n: other}
agents: {long: {model: m, persona: At length.}, short: {model: m, persona: In brief.}}
steps:
  - {id: s, for_each: inputs, agent: long, prompt: "{{ item.text }}", retry: {limit: 2, backoff: 10s}}
"""
TWO = RECIPE + '  - {id: t, for_each: inputs, agent: short, prompt: "Again: {{ item.text }}"}\n'


def texts(count: int) -> list[dict[str, str]]:
    return [{"id": f"T{n}", "text": f"text {n}"} for n in range(count)]


async def until(condition) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.lowlevel.checkpoint()


def personas(turns: list[Turn]) -> list[str]:
    return [turn.messages[0].content for turn in turns]


def release(worker: ScriptedWorker) -> None:
    """From now on every attempt is answered, those that run now too."""
    worker.answer = echo
    for task, turn in list(worker.running.items()):
        worker.end(task, echo(turn))


def assert_keys_are_of_what_ran(desk: Desk, worker: ScriptedWorker) -> None:
    """Each result stands under the key of the turn that gave it."""
    ran = {turn.task: turn.for_attempt(1, turn.sampling.seed).key() for turn in worker.submitted}
    succeeded = [body for body in desk.bodies(e.TaskSucceeded) if body.cached is None]
    assert {body.task: body.key for body in succeeded} == {body.task: ran[body.task] for body in succeeded}


async def test_a_routed_step_goes_its_new_way_but_for_what_runs(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=2)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(RECIPE, texts(6))
        await until(lambda: len(worker.running) == 2 and len(active.state.ready) == 4)
        desk.dispatcher.steer([e.StepRouted(run="r", step="s", agent="short")])
        await until(lambda: len(desk.bodies(e.TaskPrepared)) == 10)
        release(worker)
        assert len(await desk.finish(active)) == 6
        assert personas(worker.submitted) == ["At length."] * 2 + ["In brief."] * 4
        assert_keys_are_of_what_ran(desk, worker)


class AtOnceWorker(ScriptedWorker):
    """A worker that says `meanwhile` whenever it has news, so that both are there at once."""

    def meanwhile(self) -> None: ...

    async def events(self) -> list[WorkerEvent]:
        got = await super().events()
        self.meanwhile()
        return got


async def test_what_could_be_granted_at_the_moment_of_a_route_goes_the_new_way(tmp_path: Path) -> None:
    worker = AtOnceWorker(lambda turn: None, leases=1)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(RECIPE, texts(3))
        await until(lambda: worker.running and len(active.state.ready) == 2)
        route = e.StepRouted(run="r", step="s", agent="short")
        worker.meanwhile = lambda: desk.dispatcher.steer([route])  # type: ignore[method-assign]
        (task,) = worker.running
        worker.end(task, echo(worker.running[task]))
        await until(lambda: len(worker.submitted) == 2)
        release(worker)
        assert len(await desk.finish(active)) == 3
        assert personas(worker.submitted) == ["At length.", "In brief.", "In brief."]


async def test_a_step_can_go_to_another_model_and_back(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=1)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(RECIPE, texts(3))
        for route in (e.StepRouted(run="r", step="s", model="n"), e.StepRouted(run="r", step="s")):
            await until(lambda: worker.running)
            desk.dispatcher.steer([route])
            await until(lambda: desk.bodies(e.StepRouted)[-1:] == [route])  # noqa: B023
            (task,) = worker.running
            worker.end(task, echo(worker.running[task]))
        await until(lambda: worker.running)
        release(worker)
        await desk.finish(active)
        assert [turn.model for turn in worker.submitted] == ["sha-m", "sha-n", "sha-m"]
        assert_keys_are_of_what_ran(desk, worker)


async def test_a_route_outlives_the_node_that_made_it(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=1)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(RECIPE, texts(3))
        await until(lambda: worker.running and len(active.state.ready) == 2)
        desk.dispatcher.steer([e.StepRouted(run="r", step="s", agent="short")])
        await until(lambda: desk.bodies(e.StepRouted))
    worker = ScriptedWorker()
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(RECIPE, texts(3))
        assert len(await desk.finish(active)) == 3
        assert set(personas(worker.submitted)) == {"In brief."}
        assert_keys_are_of_what_ran(desk, worker)


async def test_nothing_of_a_paused_step_begins_and_the_other_steps_go_on(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=2)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(TWO, texts(4))
        await until(lambda: len(worker.running) == 2 and len(active.state.tasks) == 8)
        running_of_s = sum(active.state.tasks[task].step == "s" for task in worker.running)
        desk.dispatcher.steer([e.StepPaused(run="r", step="s", by="rule x")])
        await until(lambda: active.state.paused_steps)
        release(worker)
        await until(lambda: active.state.step("t").live == 0 and not worker.running)
        assert active.state.step("s").live == 4 - running_of_s > 0
        assert active.state.status is RunStatus.running
        desk.dispatcher.steer([e.StepContinued(run="r", step="s")])
        assert len(await desk.finish(active)) == 4
        assert active.state.status is RunStatus.finished


async def test_nothing_begins_while_a_person_is_asked_and_the_answer_lets_it_go_on(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=1)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(RECIPE, texts(3))
        await until(lambda: worker.running and len(active.state.tasks) == 3)
        asked = e.QuestionAsked(run="r", question="q", text="Well?", choices=("continue", "stop"))
        desk.dispatcher.steer([asked])
        await until(lambda: active.state.questions)
        release(worker)
        await until(lambda: active.state.live == 2)
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert len(worker.submitted) == 1
        desk.dispatcher.steer([e.QuestionAnswered(run="r", question="q", choice="continue", by="ada")])
        assert len(await desk.finish(active)) == 3


async def test_a_run_that_is_to_stop_lets_what_runs_end_and_begins_nothing_more(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=2)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(RECIPE, texts(5))
        await until(lambda: len(worker.running) == 2)
        desk.dispatcher.steer([e.StopAsked(run="r", reason="enough", by="rule x")])
        await until(lambda: active.draining is not None)
        release(worker)
        assert len(await desk.finish(active)) == 2
        assert (active.state.status, active.state.stopped_by) == (RunStatus.stopped, "rule")
