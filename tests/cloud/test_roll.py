"""The roll of containers: who is up is known while all calls are pending, and a dead one's last word is not told."""

from __future__ import annotations

import anyio
import pytest

from cloud import message as m
from cloud.roll import SILENT_S, Roll, answer_to, place
from gx.core.ports import ContainerSeen
from tests.cloud.scripted_calls import ScriptedCalls, next_of, turn, working

pytestmark = pytest.mark.anyio


def said(name: str, now: float) -> bytes:
    return m.pack(m.Seat(container=name, began_at=1.0, now=now))


class Read:
    """A roll that is read by hand, on a clock by hand, and whom it saw."""

    def __init__(self) -> None:
        self.calls, self.clock = ScriptedCalls(), 0.0
        self.seen: list[tuple[str, float]] = []
        self.roll = Roll(self.calls, lambda seat: self.seen.append((seat.container, seat.now)), now=lambda: self.clock)

    async def look(self, after_s: float = 5.0) -> list[tuple[str, float]]:
        self.clock += after_s
        self.seen.clear()
        await self.roll.look()
        return self.seen


async def test_each_new_word_is_told_once_and_the_places_are_read_up_to_the_first_empty_one() -> None:
    read = Read()
    assert await read.look() == []
    read.calls.words |= {place(0): said("A", 10), place(1): said("B", 11), place(3): said("D", 12)}
    assert await read.look() == [("A", 10), ("B", 11)]
    assert await read.look() == []
    read.calls.words[place(1)] = said("B", 21)
    assert await read.look() == [("B", 21)]


async def test_what_stood_there_before_may_be_the_last_word_of_a_dead_container_and_is_not_told() -> None:
    read = Read()
    read.calls.words[place(0)] = said("A", 10)
    assert await read.look() == []
    read.calls.words[place(0)] = said("A", 20)
    assert await read.look() == [("A", 20)]


async def test_a_place_where_nothing_new_is_said_is_no_longer_read() -> None:
    read = Read()
    await read.look()
    read.calls.words[place(0)] = said("A", 10)
    await read.look()
    await read.look(SILENT_S + 1)
    read.calls.words[place(0)] = said("A", 99)
    read.calls.words[place(1)] = said("B", 99)
    assert await read.look() == [("B", 99)]


async def test_a_word_that_can_t_be_read_is_passed_over() -> None:
    read = Read()
    await read.look()
    read.calls.words[place(0)] = b"\xc1"
    assert await read.look() == []


async def test_a_worker_tells_of_a_container_that_is_up_while_its_calls_are_pending() -> None:
    calls = ScriptedCalls()
    async with working(calls) as worker:
        worker.submit(turn("a"))
        await worker._roll.look()
        calls.words[place(0)] = said("A", 10)
        await worker._roll.look()
        (seen,) = [event for event in await next_of(worker, ContainerSeen) if isinstance(event, ContainerSeen)]
        assert (seen.container, seen.gpu, seen.began_at, seen.seen_at) == ("A", "L4", 1.0, 10.0)
        assert not calls.replies


async def test_a_board_that_fails_ends_no_container() -> None:
    class Failing:
        def __init__(self) -> None:
            self.asked, self.words = 0, anyio.Event()

        async def claim(self, key: str, call: str) -> str:
            self.asked += 1
            if self.asked == 1:
                raise RuntimeError("no way there")
            return call

        async def paid_until(self, driver: str) -> float:
            return 0.0

        async def say(self, key: str, value: bytes) -> None:
            self.words.set()

    board = Failing()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: answer_to(board, lambda: m.read_seat(said("A", 1)), every_s=0.0))
        await board.words.wait()
        group.cancel_scope.cancel()
