"""Who pauses a step or cancels a task means the parts of their long prompts, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from gx.core import event as e
from gx.core.task import Status
from gx.node.standing import waits_for_person
from tests.desk import open_desk
from tests.fakes import ScriptedWorker
from tests.run.test_long_runs import REDUCE, ROW, note_or_answer

pytestmark = pytest.mark.anyio


async def test_no_part_of_a_paused_steps_prompts_begins_before_it_goes_on(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=1)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(REDUCE, [ROW])
        await _until(lambda: worker.running)
        n_parts = active.state.live - 1
        desk.dispatcher.steer([e.StepPaused(run="r", step="s", by="rule x")])
        await _until(lambda: active.state.paused_steps)
        assert len(active.state.parked) == n_parts and not active.state.ready  # and one that runs
        worker.answer = note_or_answer
        (begun,) = worker.running.items()
        worker.end(begun[0], note_or_answer(begun[1]))
        await _until(lambda: waits_for_person(active.state))
        assert len(worker.submitted) == 1
        desk.dispatcher.steer([e.StepContinued(run="r", step="s")])
        (record,) = await desk.finish(active)
    assert record.as_dict()["output"]["a"].count("heliotrope") == 1 and len(worker.submitted) == n_parts + 1


async def test_the_parts_of_a_task_that_is_cancelled_are_computed_for_nobody(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=1)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(REDUCE, [ROW])
        await _until(lambda: worker.running)
        (owner,) = [task.id for task in active.state.tasks.values() if task.part_of is None]
        desk.dispatcher.cancel("r", "asked to", tasks=[owner])
        (record,) = await desk.finish(active)
        cancelled = [body.task for body in desk.bodies(e.TaskCancelled)]
    assert record.as_dict()["status"] == "cancelled" and len(worker.submitted) == 1
    assert sorted(cancelled) == sorted(active.state.tasks)


async def test_parts_that_are_on_their_way_into_the_log_as_their_task_is_cancelled_go_with_it(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=1)
    async with open_desk(tmp_path, worker) as desk:
        append = desk.log.append

        async def cancelling(bodies: list[e.Body], blobs: list[e.Blob], *, source: str) -> list[e.Event]:
            owners = {body.part_of for body in bodies if isinstance(body, e.TaskQueued) and body.part_of is not None}
            if owners:
                desk.dispatcher.cancel("r", "asked to", tasks=list(owners))
            return await append(bodies, blobs, source=source)

        desk.log.append = cancelling  # type: ignore[method-assign]
        active = await desk.begin(REDUCE, [ROW])
        (record,) = await desk.finish(active)
    assert record.as_dict()["status"] == "cancelled" and not worker.submitted
    assert all(task.status is Status.cancelled for task in active.state.tasks.values()) and len(active.state.tasks) > 2


async def _until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.lowlevel.checkpoint()
