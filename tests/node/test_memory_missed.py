"""A memory's file that went is told of; one that nobody needed before is not missed."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from edge.memory.store import MemoryStore
from gx.core.errors import WorkspaceError
from gx.core.memory import Draft, Query
from gx.node.runmemory import RunMemory
from gx.run.memory.remembering import written
from tests.node.test_memory_left import Stuck, memories_of

pytestmark = pytest.mark.anyio


async def test_a_file_that_never_was_is_not_missed_and_one_that_went_is(tmp_path: Path) -> None:
    async with memories_of(tmp_path, Stuck()) as memories:
        events, blobs = written([Draft(body="a boat")], by="a run", now=1.0)
        await memories._commit([*events], blobs)
        found = await memories.search(Query(text="boat"))
        assert len(found.hits) == 1 and not any("was not there" in note for note in found.notes)
    (tmp_path / "memory.db").unlink()
    async with memories_of(tmp_path, Stuck()) as memories:
        found = await memories.search(Query(text="boat"))
        assert len(found.hits) == 1 and any("was not there; it was made" in note for note in found.notes)


async def test_what_was_remembered_is_found_while_somebody_else_writes(tmp_path: Path) -> None:
    async with memories_of(tmp_path, Stuck()) as memories:
        await memories.write([Draft(body="a ship")], by="me")
        async with memories._writing:  # as an import does for as long as it takes
            events, blobs = written([Draft(body="a boat")], by="a run", now=1.0)
            await memories._commit([*events], blobs)
            found = await memories.search(Query(text="boat"))
        assert [hit.memory.body for hit in found.hits] == ["a boat"]


async def test_what_is_there_answers_while_the_file_is_made_again(tmp_path: Path) -> None:
    async with memories_of(tmp_path, Stuck()) as memories:
        await memories.write([Draft(body="a ship")], by="me")
        memories._file.is_renewed = True
        events, blobs = written([Draft(body="a boat")], by="a run", now=1.0)
        await memories._commit([*events], blobs)
        async with memories._file._changing:
            with anyio.fail_after(30):
                found = await memories.search(Query(text="a ship, a boat"))
                assert [hit.memory.body for hit in found.hits] == ["a ship"]
                assert any("is being made again" in note for note in found.notes)
        found = await RunMemory(memories, "none").search(Query(text="boat"))  # a run's answer is kept, so it waits
        assert [hit.memory.body for hit in found.hits] == ["a boat"]
        assert not any("is being made again" in note for note in found.notes)


async def test_vectors_that_can_not_be_kept_are_a_plain_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(store: MemoryStore, model: str, made: object) -> None:
        raise WorkspaceError("the disk is full", code="memory.full")

    async with memories_of(tmp_path, Stuck(100)) as memories:
        await memories.write([Draft(body="a ship")], by="me")
        monkeypatch.setattr(MemoryStore, "put_vectors", full)
        with pytest.raises(WorkspaceError, match="the disk is full"):
            await memories.write([Draft(body="a boat")], by="me")
        with pytest.raises(WorkspaceError, match="the disk is full"):
            await memories.search(Query(text="boat"))
        monkeypatch.undo()
        assert len((await memories.search(Query(text="boat"))).hits) == 2
