"""Results of large rows are handed over a few at a time, and rows that nobody looks at are not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from gx.run.record import Record
from gx.run.results import CHUNK_BYTES
from tests.desk import open_desk

pytestmark = pytest.mark.anyio

RECIPE = """
version: 1
name: test
models: {m: smollm2}
agents: {a: {model: m}}
steps: [{id: s, for_each: inputs, agent: a, prompt: "{{ item.id }}"}]
"""
ROW_BYTES = CHUNK_BYTES * 3 // 8
ROWS = [{"id": f"T{n}", "text": str(n) * ROW_BYTES} for n in range(5)]


async def test_what_is_handed_over_at_a_time_is_bounded_by_its_bytes(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        active = await desk.begin(RECIPE, ROWS)
        await desk.finish(active)
        chunks: dict[bool, list[list[Record]]] = {}
        for with_input in (True, False):
            with active.results.watch(with_input=with_input) as found:
                chunks[with_input] = [records async for records in found]
    assert [len(records) for records in chunks[True]] == [2, 2, 1]
    assert all(record.input is not None for records in chunks[True] for record in records)
    assert [[record.input for record in records] for records in chunks[False]] == [[None] * 5]
    names = [[record.task.row_id for records in of for record in records] for of in chunks.values()]
    assert names[0] == names[1] and sorted(names[0]) == [row["id"] for row in ROWS]


async def test_a_result_that_is_larger_than_that_is_handed_over_alone(tmp_path: Path) -> None:
    rows = [{"id": "T0", "text": "x" * (CHUNK_BYTES + 1)}, {"id": "T1", "text": "y"}]
    async with open_desk(tmp_path) as desk:
        active = await desk.begin(RECIPE, rows)
        await desk.finish(active)
        with active.results.watch() as found:
            chunks = [[record.task.row_id for record in records] async for records in found]
    assert sorted(chunks) == [["T0"], ["T1"]]
