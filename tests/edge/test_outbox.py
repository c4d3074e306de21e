"""Events wait for the desk in order, previews of one attempt as one, and what ends them comes last."""

from __future__ import annotations

import anyio
import pytest

from edge.outbox import Outbox
from gx.core.errors import BenchError
from gx.core.ports import BenchDown, BenchUp, WorkerEvent
from gx.core.protocol import Signal

pytestmark = pytest.mark.anyio

UP = BenchUp(incarnation=2, pid=1, slots=1, engine="none")
DOWN = BenchDown(incarnation=1, reason="killed")


def preview(task: str, text: str, *, attempt: int = 1, tokens_out: int = 0) -> Signal:
    return Signal(task=task, attempt=attempt, text=text, tokens_out=tokens_out)


async def test_previews_of_one_attempt_that_follow_each_other_are_joined_and_no_others() -> None:
    outbox = Outbox()
    for event in (
        preview("a", "One ", tokens_out=1),
        preview("a", "two", tokens_out=2),
        preview("b", "other"),
        preview("a", "three", tokens_out=3),
        preview("a", "again", attempt=2),
        UP,
        preview("a", "then", attempt=2),
    ):
        outbox.add(event)
    assert await outbox.take() == [
        preview("a", "One two", tokens_out=2),
        preview("b", "other"),
        preview("a", "three", tokens_out=3),
        preview("a", "again", attempt=2),
        UP,
        preview("a", "then", attempt=2),
    ]


async def test_an_end_of_a_bench_is_among_them_until_it_was_taken() -> None:
    outbox = Outbox()
    outbox.add(DOWN)
    outbox.add(UP)
    assert outbox.has_end
    assert await outbox.take() == [DOWN, UP] and not outbox.has_end
    outbox.add(UP)
    assert not outbox.has_end


@pytest.mark.parametrize("is_read", [True, False])
async def test_why_no_event_follows_is_told_after_all_that_came_before_and_to_whoever_waits(is_read: bool) -> None:
    outbox = Outbox()
    told = list[WorkerEvent | BenchError]()

    async def listen() -> None:
        try:
            while True:
                told.extend(await outbox.take())
        except BenchError as error:
            told.append(error)

    error = BenchError("no bench can be kept up")
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            outbox.add(DOWN)
            if is_read:
                await anyio.wait_all_tasks_blocked()
                assert told == [DOWN]
            outbox.end(error)
    assert told == [DOWN, error]
    with pytest.raises(BenchError, match="no bench"):
        await outbox.take()
