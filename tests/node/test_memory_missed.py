"""A memory's file that went is told of; one that nobody needed before is not missed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gx.core.memory import Draft, Query
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
