"""What the node answers about the workspace's memory: writing, searching, listing, forgetting, making it again.

It decodes, calls `gx.node.memories`, and encodes. Whatever changes is an event, with who asked. What takes a while is
given up when its client goes away; what was recorded until then stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import msgspec
from starlette.requests import Request

from gx.core import memorycheck
from gx.core.errors import UsageError
from gx.core.memory import Document, Draft, Filter, Found, Memory, MemoryStats, Query, Replaced, Written
from gx.core.message import Value
from gx.node.endpoints import Endpoint, by
from gx.node.memories import How, Memories
from gx.node.waiting import while_waited_for

MOST_AT_ONCE = 1000
"""Memories of one request; whoever has more asks again."""


MOST_PARTS = 200_000
"""Parts of documents of one request: a document is one transaction, however long it is."""


class Remember(Value, frozen=True, kw_only=True):
    """What is to be remembered. `model` is the source of an embedding model, in place of the settings'."""

    memories: tuple[Draft, ...]
    model: str | None = None


class Search(Value, frozen=True, kw_only=True):
    """What is searched for. `model` is as in `Remember`; `reranker` is a source too, "none" for none at all."""

    query: Query
    model: str | None = None
    reranker: str | None = None


class Listing(Value, frozen=True, kw_only=True):
    """Which memories are to be told, about `limit` of them after that `seq`; the newest first, with `is_newest`."""

    filter: Filter = Filter()
    after: int = -1
    limit: int = MOST_AT_ONCE
    is_newest: bool = False


class MemoryPage(Value, frozen=True, kw_only=True, omit_defaults=False):
    """Memories in order. `next` is what to ask for what follows after; `None` where nothing does."""

    memories: tuple[Memory, ...]
    next: int | None = None


class Standing(Value, frozen=True, kw_only=True):
    """Which documents of a namespace are asked about: those at or below `paths`. `model` is as in `Remember`."""

    namespace: str
    paths: tuple[str, ...]
    model: str | None = None


class Documents(Value, frozen=True, kw_only=True, omit_defaults=False):
    """Documents that are remembered. By `model`, a source, what is written now is embedded; "" by none."""

    documents: tuple[Document, ...]
    model: str = ""
    notes: tuple[str, ...] = ()


class Replace(Value, frozen=True, kw_only=True):
    """What documents are from now on: `memories` is all that is to stand of those at `paths`, which may be nothing."""

    namespace: str
    paths: tuple[str, ...]
    memories: tuple[Draft, ...] = ()
    model: str | None = None


class Forget(Value, frozen=True, kw_only=True):
    """What is to be forgotten: memories by their names or the starts of them, and all that `filter` means, if given."""

    uids: tuple[str, ...] = ()
    filter: Filter | None = None


class Forgot(Value, frozen=True, kw_only=True, omit_defaults=False):
    """What was forgotten. The log's file still holds what it said, until the node ends."""

    uids: tuple[str, ...]


class Renewal(Value, frozen=True, kw_only=True):
    """`how`: "compact", "rebuild" or "reembed". `model` is what to embed by from now on, with the last of these."""

    how: How
    model: str | None = None


class MemoryRoutes:
    """The routes of a node's memory."""

    def __init__(self, memories: Memories) -> None:
        self._memories = memories
        self.endpoints = (
            Endpoint("GET", "/v1/memory", self._stats, "How the memory stands", gives=MemoryStats),
            Endpoint("POST", "/v1/memory", _waited(self._remember), "Remember something", Remember, Written),
            Endpoint("POST", "/v1/memory/search", _waited(self._search), "Search the memory", Search, Found),
            Endpoint("POST", "/v1/memory/list", self._list, "List memories, as they were written", Listing, MemoryPage),
            Endpoint("POST", "/v1/memory/documents", _waited(self._documents), "List documents", Standing, Documents),
            Endpoint(
                "POST", "/v1/memory/replace", _waited(self._replace), "Remember documents anew", Replace, Replaced
            ),
            Endpoint("POST", "/v1/memory/forget", self._forget, "Forget memories", Forget, Forgot),
            Endpoint("POST", "/v1/memory/renewal", _waited(self._renew), "Make the memory again", Renewal, MemoryStats),
        )

    async def _stats(self, request: Request, body: None) -> MemoryStats:
        return await self._memories.stats()

    async def _remember(self, request: Request, body: Remember) -> Written:
        if len(body.memories) > MOST_AT_ONCE:
            raise UsageError(f"expected at most {MOST_AT_ONCE:,} memories at once, got {len(body.memories):,}")
        drafts = [_by(draft, by(request)) for draft in body.memories]
        return await self._memories.write(drafts, by=by(request), model=body.model)

    async def _search(self, request: Request, body: Search) -> Found:
        return await self._memories.search(body.query, model=body.model, reranker=body.reranker)

    async def _list(self, request: Request, body: Listing) -> MemoryPage:
        if not 1 <= body.limit <= MOST_AT_ONCE:
            raise UsageError(f"limit: expected 1 to {MOST_AT_ONCE}, got {body.limit}")
        if not -1 <= body.after < 1 << 62:
            raise UsageError(f"after: expected the number of an event, got {body.after}")
        found = await self._memories.listed(body.filter, after=body.after, limit=body.limit, is_newest=body.is_newest)
        has_more = len(found) >= body.limit and not body.is_newest
        return MemoryPage(memories=tuple(found), next=found[-1].seq if has_more else None)

    async def _documents(self, request: Request, body: Standing) -> Documents:
        memorycheck.check_namespace(body.namespace)
        source, notes = await self._memories.source(body.model, by=by(request))
        found = await self._memories.documents(body.namespace, body.paths)
        return Documents(documents=tuple(found), model=source, notes=notes)

    async def _replace(self, request: Request, body: Replace) -> Replaced:
        if len(body.memories) > MOST_PARTS:
            raise UsageError(f"expected at most {MOST_PARTS:,} parts at once, got {len(body.memories):,}")
        drafts = [_by(draft, by(request)) for draft in body.memories]
        return await self._memories.replace(body.namespace, body.paths, drafts, by=by(request), model=body.model)

    async def _forget(self, request: Request, body: Forget) -> Forgot:
        if len(body.uids) > MOST_AT_ONCE:
            raise UsageError(f"expected at most {MOST_AT_ONCE:,} names at once, got {len(body.uids):,}")
        memorycheck.check_names(body.uids)
        return Forgot(uids=await self._memories.forget(body.uids, body.filter, by=by(request)))

    async def _renew(self, request: Request, body: Renewal) -> MemoryStats:
        return await self._memories.renew(body.how, by=by(request), model=body.model)


def _waited(handle: Callable[[Request, Any], Awaitable[Any]]) -> Callable[[Request, Any], Awaitable[Any]]:
    @wraps(handle)  # the API's description names it
    async def handled(request: Request, body: Any) -> Any:
        return await while_waited_for(request.receive, lambda: handle(request, body))

    return handled


def _by(draft: Draft, who: str) -> Draft:
    """The draft, by whoever asks where it doesn't say."""
    source = draft.source if draft.source.by else msgspec.structs.replace(draft.source, by=who)
    return msgspec.structs.replace(draft, source=source)
