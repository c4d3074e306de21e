"""What may be asked of a workspace's memory: to remember, to forget, to search, to make its file again.

It knows the log and the file that follows it; nothing of requests, and of models only that `gx.node.memoryvectors` has
them. Invariants: what is written is in the log before anybody finds it; a memory without a vector yet is found by its
words, and whoever asks is told what the answer was found without.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal

import anyio
import msgspec

from gx.core import event as e
from gx.core import memory, memorycheck
from gx.core.errors import NotFound, UsageError
from gx.core.event import Ref
from gx.core.memory import Draft, Filter, Found, Memory, MemoryStats, Query, Replaced, Written
from gx.core.ports import Embedder
from gx.node.memoryfile import MemoryFile
from gx.node.memoryvectors import Vectors
from gx.node.reranking import Reranking
from gx.run.memory import remembering
from gx.run.memory.reranking import candidates
from gx.wiring import EmbeddingModel

How = Literal["compact", "rebuild", "reembed"]


class Memories:
    """Implements the ports `Memory` and `Near` of `gx.core.ports` over `file`.

    `find_model`, `embedder` and `model` are as in `Vectors`. `reranking` orders what is found. `commit` writes to the
    log, and `newest` is the `seq` of the last event there of a memory.
    """

    def __init__(
        self,
        file: MemoryFile,
        *,
        commit: Callable[[list[e.Body], list[e.Blob]], Awaitable[None]],
        newest: Callable[[], int],
        embedder: Callable[[EmbeddingModel], Awaitable[Embedder]],
        find_model: Callable[[str], Awaitable[EmbeddingModel | None]],
        model: str | None,
        reranking: Reranking,
        now: Callable[[], float],
    ) -> None:
        self._reranking = reranking
        self._file, self._commit, self._now = file, commit, now
        self._writing = anyio.Lock()
        self._newest, self._followed = newest, -2  # the `seq` of the last event of a memory: in the log, in the file
        self._vectors = Vectors(file, record=self._modelled, embedder=embedder, find_model=find_model, model=model)

    def __repr__(self) -> str:
        return f"<Memories {self._file}>"

    # ── what is asked for ────────────────────────────────────────────────────────────────────────────────────────

    async def write(self, drafts: Sequence[Draft], *, by: str, model: str | None = None) -> Written:
        """Have these remembered: they are in the log when it returns. What is there already is not written again.

        `model` is the source of an embedding model, in place of the settings'.

        :raises UsageError: if one can't be remembered. :raises ModelError: `memory.mixed` if the memories are embedded
            by another model. Then nothing is written.
        """
        for draft in drafts:
            memorycheck.check_draft(draft)
        uids = [memory.uid_of(draft) for draft in drafts]
        found, notes = await self._vectors.agreed(model, by)
        async with self._writing:
            known = await self._file.ask(lambda store: store.known(uids), follows=self._is_behind)
            pairs = list(zip(uids, drafts, strict=True))
            fresh = [draft for uid, draft in pairs if uid not in known or not memory.says(known[uid], draft)]
            events, blobs = remembering.written(fresh, by=by, now=self._now())
            if events:
                await self._record([*events], blobs)
        notes += await self._vectors.fill(found)
        return Written(uids=tuple(uids), n_known=len(drafts) - len(fresh), notes=self._told(notes))

    async def documents(self, namespace: str, paths: Sequence[str]) -> list[memory.Document]:
        """The documents that are remembered there, at or below `paths`."""
        return await self._file.ask(lambda store: store.documents(namespace, paths))

    async def source(self, model: str | None, *, by: str) -> tuple[str, tuple[str, ...]]:
        """The source of the model that embeds what is written now, "" and why if there is none; chosen if need be.

        :raises ModelError: as `write`.
        """
        found, notes = await self._vectors.agreed(model, by)
        return "" if found is None else found.source, self._told(notes)

    async def replace(
        self, namespace: str, paths: Sequence[str], drafts: Sequence[Draft], *, by: str, model: str | None = None
    ) -> Replaced:
        """Have these remembered in place of all that is of the documents at `paths`, in one transaction of the log.

        What stays of a document as it was is not written again. A path without a draft is forgotten.

        :raises UsageError: as `write`, or if a draft is of no such document. :raises ModelError: as `write`.
        """
        remembering.check_parts(namespace, paths, drafts)
        found, notes = await self._vectors.agreed(model, by)
        async with self._writing:
            there = await self._file.ask(lambda store: store.documents(namespace, paths))
            before = [uid for one in there if one.path in set(paths) for uid in one.uids]
            known = await self._file.ask(lambda store: store.known(list({*before, *map(memory.uid_of, drafts)})))
            fresh, gone = remembering.changed(before, drafts, known)
            events, blobs = remembering.written(fresh, by=by, now=self._now())
            if gone or events:
                await self._record([*remembering.forgotten(gone, by=by), *events], blobs)
        notes += await self._vectors.fill(found)
        return Replaced(n_written=len(fresh), n_forgotten=len(gone), notes=self._told(notes))

    async def forget(self, names: Sequence[str], wanted: Filter | None, *, by: str) -> tuple[str, ...]:
        """Forget the memories of these names, or the starts of them, and all that a filter means; which they were.

        :raises NotFound: if there is none of a name. :raises UsageError: if there are several.
        """
        if wanted is not None:
            memorycheck.check_filter(wanted)
        async with self._writing:
            uids = _meant(await self._file.ask(lambda store: store.named(names)))
            if wanted is not None:
                uids += await self._file.ask(lambda store: store.uids(wanted))
            if uids := list(dict.fromkeys(uids)):
                await self._record([*remembering.forgotten(uids, by=by)], [])
        return tuple(uids)

    async def search(
        self, query: Query, *, model: str | None = None, reranker: str | None = None, waits: bool = False
    ) -> Found:
        """The memories that answer a question best, the best first; `reranker` is a source in place of the settings'.

        While the file is made again the old one answers, and that is told; who `waits` gets the new one's answer.

        :raises UsageError: if it can't be asked. :raises ModelError: as `write`, or if it can't be reranked.
        """
        memorycheck.check_query(query)
        ranked_by = await self._reranking.named(query, reranker)
        is_old = self._is_behind and self._file.is_renewed and not waits
        if self._is_behind and not is_old:
            await self._follow()
        vector, notes = None, list[str]()
        if not query.is_text_only:
            found, notes = await self._vectors.agreed(model, "")
            vector, more = await self._vectors.question(query.text, found)
            notes += more
        if is_old:
            notes.append("the memory is being made again: what was remembered since is not found yet")
        k = query.k if ranked_by is None else candidates(query.k)
        asked = msgspec.structs.replace(query, k=k)
        hits = await self._file.ask(lambda store: store.search(asked, vector), follows=False)
        if ranked_by is None:
            return Found(hits=tuple(hits), notes=self._told(notes))
        best = await self._reranking.ordered(ranked_by, query, hits)
        return Found(hits=best, notes=self._told(notes), reranker=ranked_by.model.digest if best else "")

    async def near(self, question: str, passages: Sequence[str]) -> tuple[list[float] | None, tuple[str, ...]]:
        """As `Vectors.near`."""
        return await self._vectors.near(question, passages)

    async def listed(
        self, wanted: Filter, *, after: int = -1, limit: int = 1000, is_newest: bool = False
    ) -> list[Memory]:
        """Memories in the order of their writing after that `seq`, as `MemoryStore.listed` gives them."""
        memorycheck.check_filter(wanted)
        return await self._file.ask(lambda store: store.listed(wanted, after=after, limit=limit, is_newest=is_newest))

    async def stats(self, notes: Sequence[str] = ()) -> MemoryStats:
        """How the memory stands."""
        standings = await self._file.ask(lambda store: store.standings())
        chosen, mark = await self._file.ask(lambda store: (store.chosen, store.mark))
        return MemoryStats(
            memories=sum(one.memories for one in standings),
            vectors=sum(one.vectors for one in standings),
            model="" if chosen is None else chosen.name,
            digest="" if chosen is None else chosen.model,
            dimensions=0 if chosen is None else chosen.dimensions,
            bytes=sum(file.stat().st_size for file in self._file.path.parent.glob(self._file.path.name + "*")),
            applied_seq=mark.seq,
            namespaces=tuple(standings),
            notes=self._told(notes),
        )

    async def renew(self, how: How, *, by: str, model: str | None = None) -> MemoryStats:
        """Make the file again from the log with the vectors that there are ("compact"), or with all of them computed
        anew ("rebuild"); or compute them anew by a model, the settings' or the one in use ("reembed"), which goes on
        where it was left.

        :raises ModelError: if one is to be used that isn't on this machine.
        """
        found: EmbeddingModel | None
        notes = list[str]()
        if how == "reembed":
            found, notes = await self._vectors.chosen_anew(model, by)
        else:
            async with self._writing:
                await self._file.renew(takes_vectors=how == "compact")
            found, notes = await self._vectors.agreed(model, by)
        return await self.stats([*notes, *await self._vectors.fill(found)])

    async def close(self) -> None:
        """Let the file go."""
        await self._file.close()

    def _told(self, notes: Sequence[str]) -> tuple[str, ...]:
        """These notes, and what the file has to say."""
        told, self._file.notes = self._file.notes, []
        return tuple(dict.fromkeys([*told, *notes]))

    async def _record(self, bodies: list[e.Body], blobs: list[e.Blob]) -> None:
        """Write to the log, and have the file follow; whoever calls holds `_writing`.

        Then searches need not ask the log, which every event of a run changes.
        """
        with anyio.CancelScope(shield=True):  # who asked may go away meanwhile; what is in the log is to be found
            if bodies:
                await self._commit(bodies, blobs)
            await self._follow({blob.digest: blob.content.decode() for blob in blobs})

    async def _follow(self, in_hand: Mapping[Ref, str] | None = None) -> None:
        """Have the file follow the log."""
        newest = self._newest()
        await self._file.follow(in_hand)
        self._followed = max(self._followed, newest)

    async def _modelled(self, chosen: e.MemoryModelled) -> None:
        async with self._writing:
            await self._record([chosen], [])

    @property
    def _is_behind(self) -> bool:
        """Whether the file may lack what is in the log: runs remember, too."""
        return self._followed < self._newest()


def _meant(named: dict[str, list[str]]) -> list[str]:
    """The one memory of each name. :raises NotFound: if there is none. :raises UsageError: if there are several."""
    for start, uids in named.items():
        if not uids:
            raise NotFound(f"there is no memory {start}", hint="`gx memory ls` and `gx memory search` tell their names")
        if len(uids) > 1:
            raise UsageError(f"several memories begin with {start}, such as {uids[0]} and {uids[1]}")
    return [uid for (uid,) in named.values()]
