"""Results for watchers at any pace: all of them, once, in order; and who is slow holds up the run, nobody else."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gx.core.task import Status
from gx.core.view import TaskState
from gx.run.record import Record
from gx.run.results import CHUNK, CREDITS, Results

pytestmark = pytest.mark.anyio

PACES = st.lists(st.integers(0, 3), max_size=4)
ADDED = st.lists(st.integers(0, 2 * CHUNK), max_size=8)


def read(tasks: Sequence[str], with_input: bool) -> list[Record]:
    assert 0 < len(tasks) <= CHUNK
    return [Record(task=TaskState(id=t, step="s", path="", index=0, row_id="", order=0)) for t in tasks]


def names(first: int, count: int) -> list[str]:
    return [str(n) for n in range(first, first + count)]


async def follow(results: Results, pace: int, begins: anyio.Event) -> list[str]:
    """What a watcher gets that comes at some time, and rests so many turns of the loop after each chunk."""
    await begins.wait()
    got: list[str] = []
    with results.watch() as chunks:
        async for chunk in chunks:
            got.extend(record.task.id for record in chunk)
            for _ in range(pace):
                await anyio.lowlevel.checkpoint()
    return got


@given(PACES, PACES, ADDED)
def test_watchers_at_any_pace_get_all_results_once_in_order(early: list[int], late: list[int], added: list[int]):
    async def run() -> None:
        results = Results(read)
        now, later = anyio.Event(), anyio.Event()
        now.set()
        got: list[list[str]] = []

        async def one(pace: int, begins: anyio.Event) -> None:
            got.append(await follow(results, pace, begins))

        async with anyio.create_task_group() as group:
            for begins, paces in ((now, early), (later, late)):
                for pace in paces:
                    group.start_soon(one, pace, begins)
            for place, count in enumerate(added):
                if place == len(added) // 2:
                    later.set()
                results.add(names(len(results), count))
                await anyio.lowlevel.checkpoint()
            later.set()
            results.end()
        assert got == [names(0, sum(added))] * (len(early) + len(late))

    anyio.run(run)


async def test_one_that_takes_nothing_is_slow_and_frees_the_run_when_it_leaves() -> None:
    results, told = Results(read), list[bool]()
    results.on_room = lambda: told.append(results.is_slow)
    with results.watch():
        results.add(names(0, CREDITS))
        assert not results.is_slow
        results.add(["one more"])
        assert results.is_slow
        assert not told
    assert not results.is_slow
    assert told == [False]


async def test_one_that_goes_on_taking_frees_the_run_as_soon_as_it_has_credits_again() -> None:
    results, told = Results(read), list[int]()
    results.on_room = lambda: told.append(len(results))
    results.add(names(0, CREDITS + 1))
    with results.watch() as chunks:
        assert results.is_slow
        assert len(await anext(chunks)) == CHUNK
        assert results.is_slow, "what it was given it has not taken yet"
        assert not told
        await anext(chunks)
        assert not results.is_slow
        assert told == [CREDITS + 1]


async def test_a_slow_watcher_holds_back_no_other_one() -> None:
    results = Results(read)
    with results.watch(), results.watch() as chunks:
        results.add(names(0, 3 * CREDITS))
        results.end()
        got = [record.task.id async for chunk in chunks for record in chunk]
    assert got == names(0, 3 * CREDITS)
    assert not results.is_slow


async def test_without_watchers_no_run_is_slow() -> None:
    results = Results(read)
    results.add(names(0, 10 * CREDITS))
    assert not results.is_slow


async def test_the_end_is_told_to_those_who_want_no_results() -> None:
    results, ended = Results(read), list[str]()

    async def wait() -> None:
        await results.ended()
        ended.append("ended")

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        results.add(["a"])
        await anyio.wait_all_tasks_blocked()
        assert not ended
        results.end()
    await results.ended()
    assert ended == ["ended"]


async def test_who_is_brought_some_of_a_chunk_gets_the_rest_after_it() -> None:
    begins = anyio.Event()
    begins.set()
    results = Results(lambda tasks, with_input: read(tasks[:3], with_input))
    results.add(names(0, 10))
    results.end()
    assert await follow(results, 0, begins) == names(0, 10)


async def test_a_watcher_that_fails_while_it_reads_is_one_that_left() -> None:
    def fail(tasks: Sequence[str], with_input: bool) -> list[Record]:
        raise ValueError("the log can't be read")

    results = Results(fail)
    results.add(names(0, CREDITS + 1))
    with pytest.raises(ValueError, match="can't be read"), results.watch() as chunks:
        await anext(chunks)
    assert not results.is_slow


@given(st.lists(st.integers(0, 60), unique=True, max_size=60), st.integers(0, 60), st.integers(0, 3))
def test_one_who_wants_the_rows_order_gets_what_ended_once_and_in_that_order(ends: list[int], n_rows: int, pace: int):
    """Rows end in any order, and some never do: nobody waits for those when the run is over."""

    async def run() -> None:
        results = Results(read)
        rows = [TaskState(id=str(n), step="s", path="", index=n, row_id="", order=n) for n in range(n_rows)]
        got: list[str] = []

        async def follow_in_order() -> None:
            with results.watch(rows) as chunks:
                async for chunk in chunks:
                    got.extend(record.task.id for record in chunk)
                    for _ in range(pace):
                        await anyio.lowlevel.checkpoint()

        done = [n for n in ends if n < n_rows]
        async with anyio.create_task_group() as group:
            group.start_soon(follow_in_order)
            for n in done:
                rows[n].status = Status.succeeded
                results.add([str(n)])
                await anyio.lowlevel.checkpoint()
                known = next((i for i, row in enumerate(rows) if not row.status.is_terminal), n_rows)
                assert len(got) <= known
            results.end()
        assert got == [str(n) for n in sorted(done)]

    anyio.run(run)


async def test_what_waits_for_an_earlier_row_makes_nobody_slow() -> None:
    results = Results(read)
    rows = [TaskState(id=str(n), step="s", path="", index=n, row_id="", order=n) for n in range(CREDITS + 2)]
    with results.watch(rows):
        for row in rows[1:]:
            row.status = Status.succeeded
        results.add(row.id for row in rows[1:])
        assert not results.is_slow
        rows[0].status = Status.failed
        results.add(["0"])
        assert results.is_slow
    assert not results.is_slow
