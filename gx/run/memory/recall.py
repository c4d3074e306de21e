"""What is searched for in the memory on behalf of a run's tasks, before they are prepared.

A search takes a while and preparing may not: so a task that needs one asks here, waits among those that aren't
prepared, and is asked for again when its answer is there. Invariant: a task is searched for once; what was found is
written with its `task.prepared`, and nothing searches again for a task that has that.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from gx.core.errors import GxError, ours
from gx.core.event import Recalled
from gx.core.memory import Hit, Query
from gx.core.message import Value
from gx.core.ports import Memory
from gx.run.contents import Contents

AT_ONCE = 4
"""Searches of a run that are under way."""
UNSEARCHED = "the memory is searched when the task runs"


class Recollection(Value, frozen=True, kw_only=True):
    """What a search gave. `without` says in sentences what it was without; `reranker` is as in `TaskPrepared`."""

    found: tuple[Recalled, ...] = ()
    without: tuple[str, ...] = ()
    reranker: str = ""


class Recalls:
    """The searches of one run. Without a `memory` nothing is searched, and nothing found."""

    def __init__(self, memory: Memory | None, contents: Contents) -> None:
        self._memory, self._contents = memory, contents
        self._wanted: dict[str, Query] = {}
        self._under_way: set[str] = set()
        self._known: dict[str, Recollection | GxError] = {}
        self.notes: dict[str, None] = {}
        """What any of the searches was without, each sentence once."""
        self._news = anyio.Event()

    def __repr__(self) -> str:
        return f"<Recalls {len(self._wanted)} wanted, {len(self._under_way)} under way, {len(self._known)} known>"

    def known(self, task: str) -> Recollection | None:
        """What was found for the task; `None` while that isn't known. :raises GxError: if it can't be searched for."""
        found = self._known.get(task)
        if isinstance(found, GxError):
            raise found
        return found

    def want(self, task: str, query: Query | None) -> None:
        """Search for the task, unless that is under way; with nothing to ask, nothing is found."""
        if query is None:
            self._known[task] = Recollection()
        elif self._memory is None:
            self._known[task] = Recollection(without=(UNSEARCHED,))
        elif task not in self._under_way and task not in self._wanted:
            self._wanted[task] = query
            self._news.set()

    def forget(self, task: str) -> None:
        """Its answer stands elsewhere by now."""
        self._known.pop(task, None)

    async def serve(self, over: anyio.Event, on_found: Callable[[], None]) -> None:
        """Search until the run is `over`, and say when an answer is there."""
        if self._memory is None:
            return
        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(self._search, self._memory, on_found)
            await over.wait()
            group.cancel_scope.cancel()

    async def _search(self, memory: Memory, on_found: Callable[[], None]) -> None:
        while True:
            while not self._wanted:
                self._news = anyio.Event() if self._news.is_set() else self._news
                await self._news.wait()
            task = next(iter(self._wanted))
            query = self._wanted.pop(task)
            self._under_way.add(task)
            try:
                answer = await memory.search(query)
                self.notes |= dict.fromkeys(answer.notes)
                self._known[task] = Recollection(
                    found=tuple(self._recalled(hit) for hit in answer.hits),
                    without=answer.notes,
                    reranker=answer.reranker,
                )
            except Exception as error:  # noqa: BLE001  whatever it is, it is this task's, and others go on being searched for
                self._known[task] = ours(error)
            finally:
                self._under_way.discard(task)
            on_found()

    def _recalled(self, hit: Hit) -> Recalled:
        """A hit as the log has it; what it says is at hand, since it is read next."""
        one, source = hit.memory, hit.memory.source
        heading = self._contents.put(source.heading.encode()).digest if source.heading else None
        return Recalled(
            uid=one.uid,
            body=self._contents.put(one.body.encode()).digest,
            score=hit.score,
            kind=one.kind,
            at=one.at,
            label=one.label,
            by=source.by,
            path=source.path,
            heading=heading,
            page=source.page,
            ordinal=source.ordinal,
            relevance=hit.relevance,
            fused_rank=hit.fused_rank,
        )
