"""A node that is told to leave takes no run up, whatever it is about just then: what is asked is the next one's."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from gx.core import event as e
from gx.core.errors import WorkspaceError
from gx.node import liveruns, wire
from gx.node.leftbehind import LeftBehind
from gx.node.serve import _leave_when_idle
from tests.node.served import ENDLESS, PATIENCE_S, Served, recipe, serve

WHY = "as a test wants it"


@pytest.fixture
def leaving(tmp_path: Path, long: Path) -> Iterator[Served]:
    """A node of a test's own, which tells it to leave."""
    (tmp_path / "tiny.gguf").symlink_to(long)
    with serve(tmp_path / "ws") as node:
        yield node
        node.end_runs()


@contextmanager
def left_behind(served: Served, workspace: Path, name: str) -> Iterator[tuple[Served, str]]:
    """Another node over what one that was killed left, a run that needs no client; a backup is that."""
    run = served.submit(recipe(name, tokens=ENDLESS), is_detached=True, fresh=True).run
    served.until(lambda: served.inside(lambda: served.node.runs[run].state.leased))
    assert served.post("/v1/log/backup", {"path": str(workspace)}).status_code == 200
    with serve(workspace) as other:
        yield other, run


def taken_up(served: Served, meanwhile: Callable[[], Awaitable[None]]) -> None:
    """Have it take up what was left, and do something before the run is live: its old leases are voided first."""
    node, before = served.node, served.inside(lambda: served.node.view.seq)

    async def take_up() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(LeftBehind(node).take_up)
            while node.view.seq == before:
                await checkpoint()
            await meanwhile()
            while node.n_taking_up or node.runs.live():
                await checkpoint()
            group.cancel_scope.cancel()

    served.in_loop(take_up)


async def refused(served: Served, asked: wire.Asked) -> None:
    """Ask the node itself for a run, which it refuses since it is leaving."""
    with pytest.raises(WorkspaceError) as why:
        await served.node.submit(asked)
    assert why.value.code == "workspace.leaving"


def test_a_run_that_ends_with_its_node_is_not_said_to_go_on(leaving: Served) -> None:
    run = leaving.submit(recipe("ends", tokens=ENDLESS), is_detached=True).run
    leaving.until(lambda: leaving.inside(lambda: leaving.node.runs[run].state.leased))
    leaving.post("/v1/node/leave", {})
    for _ in range(2):  # while it is drained, and when it has ended
        answer = leaving.post(f"/v1/runs/{run}/resume")
        assert (answer.status_code, answer.json()["code"]) == (409, "workspace.leaving")
        leaving.post(f"/v1/runs/{run}/stop", {})
        leaving.until(lambda: not leaving.inside(leaving.node.runs.live))
    assert not leaving.bodies(run, e.RunResumed)


def test_a_run_whose_input_comes_when_its_node_leaves_is_refused_before_anything_is_written(leaving: Served) -> None:
    token, before = "ab" * 6, leaving.node.log.last_seq
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(leaving.submit, recipe("late"), inputs="-", input_format="jsonl", token=token)
        leaving.until(lambda: leaving.inside(lambda: leaving.api.n_open))
        leaving.post("/v1/node/leave", {})
        leaving.http.put(f"/v1/inputs/{token}", content=b'{"text": "x"}\n')
        with pytest.raises(WorkspaceError, match="leaving"):
            asked.result(PATIENCE_S)
    assert leaving.node.log.last_seq == before


def test_a_run_that_is_written_as_its_node_is_told_to_leave_is_interrupted_and_refused(leaving: Served) -> None:
    asked = leaving.asked(recipe("meanwhile", tokens=ENDLESS), is_detached=True)
    before = leaving.node.log.last_seq

    async def leave() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(refused, leaving, asked)
            while leaving.node.log.last_seq == before:
                await checkpoint()
            leaving.api.leave(WHY)

    leaving.in_loop(leave)
    leaving.until(lambda: not leaving.inside(leaving.node.runs.live))
    written = [event.body for event in leaving.node.log.read(after=before)]
    assert [body.reason for body in written if isinstance(body, e.RunInterrupted)] == [WHY]
    assert isinstance(written[0], e.RunCreated) and not [b for b in written if isinstance(b, e.TaskLeased)]


def test_what_a_dead_node_left_is_interrupted_once_by_one_that_leaves_as_it_takes_it_up(
    served: Served, tmp_path: Path
) -> None:
    with left_behind(served, tmp_path / "ws", "left") as (other, run):

        async def leave() -> None:
            other.api.leave(WHY)

        taken_up(other, leave)
        assert [body.reason for body in other.bodies(run, e.RunInterrupted)] == [WHY]
        assert other.bodies(run, e.RunResumed) and other.bodies(run, e.AttemptLost)


def test_who_cancels_what_is_being_taken_up_ends_it_for_good(served: Served, tmp_path: Path) -> None:
    with left_behind(served, tmp_path / "ws", "given up") as (other, run):

        async def cancel() -> None:
            assert not other.node.runs.live()
            await other.node.give_up(run, "not wanted", "")

        taken_up(other, cancel)
        ends = other.bodies(run, e.RunCancelled | e.RunFinished | e.RunInterrupted)
        assert len(ends) == 1 and isinstance(ends[0], e.RunCancelled)
        assert not other.bodies(run, e.TaskSucceeded)


def test_what_was_cancelled_before_it_could_be_taken_up_stays_so_when_the_node_leaves(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveruns, "REATTACH_S", 0.0)  # so that it has soon taken up all that it will
    with left_behind(served, tmp_path / "ws", "over") as (other, run):
        node = other.node

        async def leave() -> None:
            async with anyio.create_task_group() as group, node._taking_up:  # another run is
                group.start_soon(LeftBehind(node).take_up)
                while not node.n_taking_up:
                    await checkpoint()
                await node._dispatcher.commit([e.RunCancelled(run=run, reason="not wanted")])
                other.api.leave(WHY)

        other.in_loop(leave)
        assert other.bodies(run, e.RunCancelled) and not other.bodies(run, e.RunInterrupted)


def test_a_node_that_leaves_waits_for_what_is_being_read(leaving: Served) -> None:
    rows, server, is_over = leaving.folder.parent / "rows", SimpleNamespace(should_exit=False), list[bool]()
    os.mkfifo(rows)
    asked = leaving.asked(recipe("slow"), inputs=rows.name, input_format="jsonl")

    async def leave() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(refused, leaving, asked)
            while not anyio.to_thread.current_default_thread_limiter().borrowed_tokens:
                await checkpoint()
            leaving.api.leave(WHY)
            group.start_soon(_leave_when_idle, leaving.node, leaving.api, 0.0, server)
            for _ in range(9):
                await checkpoint()
            is_over.append(server.should_exit)
            await anyio.to_thread.run_sync(rows.write_bytes, b"")
        is_over.append(server.should_exit)

    leaving.in_loop(leave)
    assert is_over == [False, True]
