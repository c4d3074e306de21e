"""What may be asked of a workspace's memory: to remember, to forget, to search, and by which model it is embedded.

It knows the log, the file that follows it, and who embeds; nothing of requests. Invariants: what is written is in the
log before anybody finds it; vectors of two models are never mixed; a memory without a vector yet is found by its words,
and whoever asks is told what the answer was found without.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Awaitable, Callable, Sequence
from operator import mul
from typing import Literal

import anyio
import msgspec

from gx.core import event as e
from gx.core import memory, memorycheck
from gx.core.errors import BenchError, ModelError, NotFound, UsageError
from gx.core.memory import Draft, Filter, Found, Lacking, Memory, MemoryStats, Query, Replaced, Written
from gx.core.ports import Embedder, MemoryStore
from gx.node.memoryfile import MemoryFile
from gx.node.reranking import OfRun, Reranking
from gx.run.memory import remembering
from gx.run.memory.embedding import embed_all
from gx.run.memory.reranking import candidates
from gx.wiring import EmbeddingModel

BATCH = 128
"""Texts of one request to the bench; a question's text is never far behind them."""
AT_ONCE = 4
"""Requests that are under way, so that the bench has always something to do."""
FEW = 512
"""Memories without a vector that a question waits for; where there are more, it says so instead."""
NO_MODEL = "search is by words only, as no embedding model is set: `gx memory reembed --model minilm` sets one"
How = Literal["compact", "rebuild", "reembed"]


class Memories:
    """Implements the port `gx.core.ports.Memory` over `file`.

    `find_model` finds an embedding model by its source, `None` if it isn't on this machine; `embedder` gives who embeds
    by it; `model` is the source that the settings name. `reranking` orders what is found. `commit` writes to the log.
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
        self._file, self._commit, self._embedder, self._now = file, commit, embedder, now
        self._find_model, self._model = find_model, model
        self._writing, self._filling, self._agreeing = anyio.Lock(), anyio.Lock(), anyio.Lock()
        self._n_waiting = 0  # for vectors
        self._newest, self._followed = newest, -2  # the `seq` of the last event of a memory: in the log, in the file

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
        found, notes = await self._agreed(model, by)
        async with self._writing:
            known = await self._file.ask(lambda store: store.known(uids), follows=self._is_behind)
            pairs = list(zip(uids, drafts, strict=True))
            fresh = [draft for uid, draft in pairs if uid not in known or not memory.says(known[uid], draft)]
            events, blobs = remembering.written(fresh, by=by, now=self._now())
            if events:
                await self._record([*events], blobs)
        notes += await self._fill(found)
        return Written(uids=tuple(uids), n_known=len(drafts) - len(fresh), notes=self._told(notes))

    async def documents(self, namespace: str, paths: Sequence[str]) -> list[memory.Document]:
        """The documents that are remembered there, at or below `paths`."""
        return await self._file.ask(lambda store: store.documents(namespace, paths))

    async def source(self, model: str | None, *, by: str) -> tuple[str, tuple[str, ...]]:
        """The source of the model that embeds what is written now, "" and why if there is none; chosen if need be.

        :raises ModelError: as `write`.
        """
        found, notes = await self._agreed(model, by)
        return "" if found is None else found.source, self._told(notes)

    async def replace(
        self, namespace: str, paths: Sequence[str], drafts: Sequence[Draft], *, by: str, model: str | None = None
    ) -> Replaced:
        """Have these remembered in place of all that is of the documents at `paths`, in one transaction of the log.

        What stays of a document as it was is not written again. A path without a draft is forgotten.

        :raises UsageError: as `write`, or if a draft is of no such document. :raises ModelError: as `write`.
        """
        remembering.check_parts(namespace, paths, drafts)
        found, notes = await self._agreed(model, by)
        async with self._writing:
            there = await self._file.ask(lambda store: store.documents(namespace, paths))
            before = [uid for one in there if one.path in set(paths) for uid in one.uids]
            known = await self._file.ask(lambda store: store.known(list({*before, *map(memory.uid_of, drafts)})))
            fresh, gone = remembering.changed(before, drafts, known)
            events, blobs = remembering.written(fresh, by=by, now=self._now())
            if gone or events:
                await self._record([*remembering.forgotten(gone, by=by), *events], blobs)
        notes += await self._fill(found)
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

    async def search(self, query: Query, *, model: str | None = None, reranker: str | None = None) -> Found:
        """The memories that answer a question best, the best first; `reranker` is a source in place of the settings'.

        :raises UsageError: if it can't be asked. :raises ModelError: as `write`, or if it can't be reranked.
        """
        memorycheck.check_query(query)
        ranked_by = await self._reranking.named(query, reranker)
        if self._is_behind and not self._writing.locked():  # else whoever writes brings the file up to date
            async with self._writing:
                await self._record([], [])
        vector, notes = None, list[str]()
        if not query.is_text_only:
            found, notes = await self._agreed(model, "")
            vector, more = await self._question(query.text, found)
            notes += more
        k = query.k if ranked_by is None else candidates(query.k)
        asked = msgspec.structs.replace(query, k=k)
        hits = await self._file.ask(lambda store: store.search(asked, vector), follows=False)
        if ranked_by is None:
            return Found(hits=tuple(hits), notes=self._told(notes))
        best = await self._reranking.ordered(ranked_by, query, hits)
        return Found(hits=best, notes=self._told(notes), reranker=ranked_by.model.digest if best else "")

    def of_run(self, reranker: str) -> OfRun:
        """This memory as a run has it whose settings name that reranker."""
        return OfRun(self, reranker)

    async def near(self, question: str, passages: Sequence[str]) -> tuple[list[float] | None, tuple[str, ...]]:
        """How near each passage is to the question by the settings' model, whatever embeds what is remembered: cosines.

        `None`, and why, where that can't be told.
        """
        try:
            found = None if self._model is None else await self._find_model(self._model)
            if found is None:
                return None, ("chosen by words only, as no embedding model is here",)
            texts = [found.question + question, *(found.passage + text for text in passages)]
            embedder = await self._embedder(found)
            vectors = [
                array("f", vector)
                for start in range(0, len(texts), BATCH)
                for vector in await embed_all(embedder, found.digest, texts[start : start + BATCH])
            ]
        except (BenchError, ModelError) as error:
            return None, (f"chosen by words only, as nothing can be embedded: {error.message}",)
        return [math.fsum(map(mul, vectors[0], vector)) for vector in vectors[1:]], ()

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
        anew ("rebuild"); or compute them anew by a model, the settings' or the one in use ("reembed").

        :raises ModelError: if one is to be used that isn't on this machine.
        """
        found: EmbeddingModel | None
        notes = list[str]()
        if how == "reembed":
            found = await self._chosen_anew(model, by)
        else:
            async with self._writing:
                await self._file.renew(takes_vectors=how == "compact")
            found, notes = await self._agreed(model, by)
        return await self.stats([*notes, *await self._fill(found)])

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
            newest = self._newest()
            await self._file.follow()
            self._followed = newest

    @property
    def _is_behind(self) -> bool:
        """Whether the file may lack what is in the log: runs remember, too."""
        return self._followed < self._newest()

    # ── the model ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _agreed(self, asked: str | None, by: str) -> tuple[EmbeddingModel | None, list[str]]:
        """The model that memories are embedded by, chosen now if none is yet; without one, why.

        :raises ModelError: `memory.mixed` if another one is asked for, or its file is another one by now.
        """
        async with self._agreeing:
            if (chosen := await self._file.ask(lambda store: store.chosen, follows=False)) is None:
                return await self._first(asked or self._model, by)
        source = asked or chosen.name
        found = await self._find_model(source)
        if found is None and source == chosen.name:
            return None, [_missing(source)]
        if found is None or found.digest != chosen.model:
            given = f"`{source}` is another file by now" if source == chosen.name else f"`{source}` is asked for"
            raise ModelError(
                f"the memories here are embedded by {chosen.name} ({chosen.model[:12]}), and {given}: vectors of two "
                "models can't be compared",
                hint=f"compute them anew with: gx memory reembed --model {source}",
                code="memory.mixed",
            )
        return found, []

    async def _first(self, source: str | None, by: str) -> tuple[EmbeddingModel | None, list[str]]:
        """Choose the first model of the workspace; without one, why."""
        if source is None:
            return None, [NO_MODEL]
        if (found := await self._find_model(source)) is None:
            return None, [_missing(source)]
        try:
            await self._choose(found, by)
        except BenchError as error:
            return None, [f"search is by words only, as nothing can be embedded: {error.message}"]
        return found, []

    async def _chosen_anew(self, asked: str | None, by: str) -> EmbeddingModel:
        store = await self._file.follow()
        source = asked or (store.chosen.name if store.chosen is not None else self._model)
        if source is None:
            raise UsageError("which model is to embed the memories?", hint="gx memory reembed --model minilm")
        if (found := await self._find_model(source)) is None:
            raise ModelError(
                f"the embedding model `{source}` is not on this machine",
                code="model.missing",
                hint=f"fetch it with: gx models pull {source}",
            )
        await self._choose(found, by)
        return found

    async def _choose(self, model: EmbeddingModel, by: str) -> None:
        """Have memories embedded by a model from now on. :raises ModelError: if it is no embedding model."""
        (vector,) = await (await self._embedder(model)).embed(model.digest, ["which dimensions?"])
        body = e.MemoryModelled(name=model.source, model=model.digest, dimensions=len(vector) // 4, by=by)
        async with self._writing:
            await self._record([body], [])

    async def _question(self, text: str, model: EmbeddingModel | None) -> tuple[tuple[str, bytes] | None, list[str]]:
        """The vector of a question, and the model; without one, why, unless that was said before."""
        if model is None:
            return None, []
        lacking = await self._file.ask(lambda store: store.n_lacking(), follows=False)
        notes = []
        if lacking > FEW:
            notes = [f"{lacking:,} memories have no vector yet, and are found by words: `gx memory reembed` makes them"]
        try:
            if 0 < lacking <= FEW and not self._n_waiting:  # else whoever writes them waits for their vectors
                notes += await self._fill(model)
            (vector,) = await embed_all(await self._embedder(model), model.digest, [model.question + text])
        except BenchError as error:
            return None, [f"search is by words only, as nothing can be embedded: {error.message}"]
        return (model.digest, vector), notes

    async def _fill(self, model: EmbeddingModel | None) -> list[str]:
        """Give a vector to each memory that has none; what became of it, if it wasn't done."""
        if model is None:
            return []
        self._n_waiting += 1
        try:
            async with self._filling:
                while lacking := await self._file.ask(lambda store: store.lacking(BATCH * AT_ONCE), follows=False):
                    made = await self._embedded(model, lacking)
                    await self._file.ask(_putting(model.digest, made), follows=False)
        except (BenchError, ModelError) as error:
            if error.code == "memory.mixed":  # another model was chosen meanwhile, and whoever did that goes on
                return []
            return [f"memories are without a vector for now, and found by words: {error.message}"]
        finally:
            self._n_waiting -= 1
        return []

    async def _embedded(self, model: EmbeddingModel, lacking: Sequence[Lacking]) -> list[tuple[Lacking, bytes]]:
        embedder = await self._embedder(model)
        parts = [lacking[n : n + BATCH] for n in range(0, len(lacking), BATCH)]
        vectors: dict[int, list[bytes]] = {}
        errors: list[BenchError | ModelError] = []

        async def embed(number: int) -> None:
            texts = [model.passage + one.text for one in parts[number]]
            try:
                vectors[number] = await embed_all(embedder, model.digest, texts)
            except (BenchError, ModelError) as error:
                errors.append(error)

        async with anyio.create_task_group() as group:
            for number in range(len(parts)):
                group.start_soon(embed, number)
        if errors:
            raise errors[0]
        return [pair for number, part in enumerate(parts) for pair in zip(part, vectors[number], strict=True)]


def _putting(model: str, made: Sequence[tuple[Lacking, bytes]]) -> Callable[[MemoryStore], None]:
    def put(store: MemoryStore) -> None:
        store.put_vectors(model, made)

    return put


def _meant(named: dict[str, list[str]]) -> list[str]:
    """The one memory of each name. :raises NotFound: if there is none. :raises UsageError: if there are several."""
    for start, uids in named.items():
        if not uids:
            raise NotFound(f"there is no memory {start}", hint="`gx memory ls` and `gx memory search` tell their names")
        if len(uids) > 1:
            raise UsageError(f"several memories begin with {start}, such as {uids[0]} and {uids[1]}")
    return [uid for (uid,) in named.values()]


def _missing(source: str) -> str:
    return f"search is by words only, as the embedding model is not on this machine: gx models pull {source}"
