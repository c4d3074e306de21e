"""Who asks a node's memory and goes away is worked for no longer; what was made until then stays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.requests import ClientDisconnect, Request

from gx import wiring
from gx.core.memory import Draft, MemoryStats, Query
from gx.core.ports import Embedder, Ranker
from gx.node.memories import Memories
from gx.node.memoryfile import MemoryFile
from gx.node.memoryroutes import MemoryRoutes, Remember, Renewal, Search
from gx.node.reranking import Reranking
from gx.run.log import EventLog
from gx.wiring import EmbeddingModel, LocalModel

pytestmark = pytest.mark.anyio

MODEL = LocalModel(name="m", path=Path("/nowhere"), sha256="d" * 64, size_bytes=1, context_tokens=None, digest="d" * 64)
VECTOR = bytes.fromhex("0000803f00000000")
"""[1, 0]."""


class Stuck:
    """Implements `Embedder` and `Ranker`: it answers `n_texts`, and is stuck from then on, until it is left."""

    def __init__(self, n_texts: int = 0) -> None:
        self.left = n_texts
        self.n_made = 0
        self.begun, self.was_left = anyio.Event(), anyio.Event()

    async def embed(self, model: str, texts: Sequence[str]) -> list[bytes]:
        if len(texts) > self.left:
            await self._wait()
        self.left -= len(texts)
        self.n_made += len(texts)
        return [VECTOR] * len(texts)

    async def rank(self, model: str, question: str, passages: Sequence[str]) -> list[float]:
        await self._wait()
        return []

    async def _wait(self) -> None:
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.was_left.set()


@asynccontextmanager
async def memories_of(folder: Path, works: Stuck) -> AsyncIterator[Memories]:
    """The memory of a log in `folder`, which `works` embeds and ranks for."""
    with EventLog.open(folder) as log:
        seq = -1

        async def commit(bodies: list[Any], blobs: list[Any]) -> None:
            nonlocal seq
            events = await log.append(bodies, blobs, source="test")
            seq = events[-1].seq if events else seq

        async def embedder(model: EmbeddingModel) -> Embedder:
            return works

        async def ranker(model: LocalModel) -> Ranker:
            return works

        async def find(source: str) -> LocalModel:
            return MODEL

        async def find_model(source: str) -> EmbeddingModel | None:
            return None if source == "none" else EmbeddingModel(source=source, model=MODEL)

        made = Memories(
            MemoryFile(log, wiring.memory_store),
            commit=commit,
            newest=lambda: seq,
            embedder=embedder,
            find_model=find_model,
            model="m" if works.left else None,
            reranking=Reranking(find=find, ranker=ranker),
            now=lambda: 1.0,
        )
        try:
            yield made
        finally:
            await made.close()


async def left(memories: Memories, path: str, body: Any, works: Stuck) -> None:
    """Ask that of the memory, and go away once it is worked on."""

    async def receive() -> dict[str, Any]:
        await works.begun.wait()
        return {"type": "http.disconnect"}

    (handle,) = [
        one.handle for one in MemoryRoutes(memories).endpoints if one.path == "/v1/memory" + path and one.takes
    ]
    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with anyio.fail_after(30):
        with pytest.raises(ClientDisconnect):
            await handle(request, body)
        await works.was_left.wait()


async def test_nothing_is_ranked_for_somebody_who_went_away(tmp_path: Path) -> None:
    works = Stuck()
    async with memories_of(tmp_path, works) as memories:
        await memories.write([Draft(body="a boat")], by="me")
        await left(memories, "/search", Search(query=Query(text="boat"), reranker="r"), works)
        assert len((await memories.search(Query(text="boat"))).hits) == 1


async def test_no_question_is_embedded_for_somebody_who_went_away(tmp_path: Path) -> None:
    works = Stuck(2)  # the model's dimensions, and the memory
    async with memories_of(tmp_path, works) as memories:
        await memories.write([Draft(body="a boat")], by="me")
        await left(memories, "/search", Search(query=Query(text="boat")), works)


async def test_what_was_written_stays_and_has_its_vectors_from_who_comes_next(tmp_path: Path) -> None:
    works = Stuck(1)
    async with memories_of(tmp_path, works) as memories:
        await left(memories, "", Remember(memories=(Draft(body="a boat"),)), works)
        stats = await memories.stats()
        assert (stats.memories, stats.vectors) == (1, 0)
        works.left = 10
        await memories.replace("default", [], [], by="me")  # as of a folder in which nothing is new
        assert (await memories.stats()).vectors == 1


@pytest.mark.parametrize("n_texts", [1 + 300 + 1 + 128, 1 + 300 + 1])
async def test_reembedding_that_was_left_goes_on_where_it_was(tmp_path: Path, n_texts: int) -> None:
    works = Stuck(n_texts)
    async with memories_of(tmp_path, works) as memories:
        await memories.write([Draft(body=f"memory {n}") for n in range(300)], by="me")
        await left(memories, "/renewal", Renewal(how="reembed"), works)
        there = n_texts - 302
        assert (await memories.stats()).vectors == there
        works.left, works.n_made = 1000, 0
        stats: MemoryStats = await memories.renew("reembed", by="me")
        assert stats.vectors == 300 and works.n_made == (300 - there) + (not there)
        assert any("128 vectors of this model were there already" in note for note in stats.notes) == bool(there)
        works.n_made = 0
        assert (await memories.renew("reembed", by="me")).notes == () and works.n_made == 301


async def test_a_rebuild_that_is_left_leaves_a_whole_file(tmp_path: Path) -> None:
    works = Stuck(3)
    async with memories_of(tmp_path, works) as memories:
        await memories.write([Draft(body="a boat"), Draft(body="a ship")], by="me")
        await left(memories, "/renewal", Renewal(how="rebuild"), works)
        works.left = 10
        assert (await memories.search(Query(text="boat"))).hits[0].memory.body == "a boat"
        assert (await memories.stats()).vectors == 2
