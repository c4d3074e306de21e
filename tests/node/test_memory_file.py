"""Who asks for the memory's file and goes away while it is opened or made again leaves it whole, and of this log."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
import pytest

from gx import wiring
from gx.core.memory import Change, Draft, Filter, Mark
from gx.core.ports import MemoryStore
from gx.node.memoryfile import FILE, NEW, MemoryFile
from gx.run.log import EventLog
from gx.run.memory.remembering import written

pytestmark = pytest.mark.anyio


class Held:
    """A store that applies nothing before it is let."""

    def __init__(self, store: MemoryStore, opening: Opening) -> None:
        self._store, self._opening = store, opening

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def apply(self, changes: Sequence[Change], mark: Mark) -> None:
        self._opening.begun.set()
        assert self._opening.may_go.wait(60)
        self._store.apply(changes, mark)


class Opening:
    """Opens stores; the first one of the file `name` when it is let, so that whoever asked for it can go away."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.begun, self.may_go = threading.Event(), threading.Event()

    def __call__(self, path: Path) -> MemoryStore:
        store = wiring.memory_store(path)
        if path.name == self.name and not self.begun.is_set():
            self.begun.set()
            assert self.may_go.wait(60)
        return store

    async def left(self, asked: Callable[[], Awaitable[object]]) -> None:
        """Ask that, and go away while the file is opened."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asked)
            assert await anyio.to_thread.run_sync(self.begun.wait, 60)
            tasks.cancel_scope.cancel()
            self.may_go.set()


def remember(log: EventLog, *texts: str) -> None:
    bodies, blobs = written([Draft(body=text) for text in texts], by="me", now=1.0)
    log.append_sync(bodies, blobs, source="test")


def files(folder: Path, name: str) -> list[str]:
    return [file.name for file in folder.glob(name + "*")]


def made(folder: Path, *texts: str) -> Path:
    """A workspace in which that is remembered."""
    folder.mkdir()
    with EventLog.open(folder) as log:
        for text in texts:
            remember(log, text)
    return folder


def told(store: MemoryStore) -> list[str]:
    return [one.body for one in store.listed(Filter(), limit=10)]


async def with_file_of_another_log(folder: Path) -> Path:
    """A workspace that holds the file of another one, as where a backup of one of them was put back."""
    theirs, ours = made(folder / "theirs", "a whale"), made(folder / "ours", "a boat", "a ship")
    with EventLog.open(theirs) as log:
        file = MemoryFile(log, wiring.memory_store)
        await file.follow()
        await file.close()
    shutil.copy(theirs / FILE, ours / FILE)
    return ours


async def test_a_copy_that_is_made_for_somebody_who_leaves_is_not_left_lying_there(tmp_path: Path) -> None:
    opening = Opening(NEW)
    with EventLog.open(tmp_path) as log:
        remember(log, "a boat")
        file = MemoryFile(log, opening)
        await file.follow()
        await opening.left(lambda: file.renew(takes_vectors=True))
        assert not files(tmp_path, NEW)
        assert await file.ask(told) == ["a boat"]
        await file.close()


async def test_a_file_of_another_log_is_taken_by_nobody_though_its_check_was_left(tmp_path: Path) -> None:
    ours = await with_file_of_another_log(tmp_path)
    opening = Opening(FILE)
    with EventLog.open(ours) as log:
        file = MemoryFile(log, opening)
        await opening.left(lambda: file.ask(told, follows=False))
        assert await file.ask(told) == ["a boat", "a ship"]
        assert "made again from the log" in file.notes[0]
        await file.close()


async def test_a_file_that_could_not_be_made_again_is_checked_by_the_next_one(tmp_path: Path) -> None:
    ours = await with_file_of_another_log(tmp_path)
    with EventLog.open(ours) as log:
        fails = [OSError("the disk is full")]

        def open_store(path: Path) -> MemoryStore:
            if path.name == NEW and fails:
                raise fails.pop()
            return wiring.memory_store(path)

        file = MemoryFile(log, open_store)
        with pytest.raises(OSError, match="full"):
            await file.ask(told)
        assert await file.ask(told) == ["a boat", "a ship"]
        await file.close()


async def test_a_question_waits_for_a_file_that_is_not_yet_brought_up_to_date(tmp_path: Path) -> None:
    opening, answers = Opening(FILE), list[list[str]]()
    with EventLog.open(tmp_path) as log:
        remember(log, "a boat", "a ship")
        file = MemoryFile(log, lambda path: cast(MemoryStore, Held(wiring.memory_store(path), opening)))

        async def ask() -> None:
            answers.append(await file.ask(told, follows=False))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(file.follow)
            assert await anyio.to_thread.run_sync(opening.begun.wait, 60)
            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            assert not answers
            opening.may_go.set()
        assert answers == [["a boat", "a ship"]]
        await file.close()
