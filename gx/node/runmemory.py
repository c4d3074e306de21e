"""The memory of a workspace as one run has it."""

from __future__ import annotations

from collections.abc import Sequence

from gx.core.memory import Draft, Found, Query, Written
from gx.node.memories import Memories


class RunMemory:
    """A workspace's memory with the reranker of one run's settings. Implements `Memory` and `Near` of the ports."""

    def __init__(self, memories: Memories, reranker: str) -> None:
        self._memories, self._reranker = memories, reranker

    async def search(self, query: Query) -> Found:
        return await self._memories.search(query, reranker=self._reranker, waits=True)  # its answer is kept for good

    async def write(self, drafts: Sequence[Draft], *, by: str) -> Written:
        return await self._memories.write(drafts, by=by)

    async def near(self, question: str, passages: Sequence[str]) -> tuple[list[float] | None, tuple[str, ...]]:
        return await self._memories.near(question, passages)
