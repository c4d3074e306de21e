"""The vectors of a workspace's memory: which model makes them, those that are lacking, and that of a question.

It knows the memory's file and who embeds; nothing of requests or of what is searched for. Invariants: vectors of two
models are never mixed; whoever has to do without vectors is told why; whoever is cancelled leaves what was made.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Awaitable, Callable, Sequence
from operator import mul

import anyio

from gx.core import event as e
from gx.core.errors import BenchError, GxError, ModelError, UsageError
from gx.core.memory import Lacking
from gx.core.ports import Embedder, MemoryStore
from gx.node.memoryfile import MemoryFile
from gx.run.memory.embedding import embed_all
from gx.wiring import EmbeddingModel

BATCH = 128
"""Texts of one request to the bench; a question's text is never far behind them."""
AT_ONCE = 4
"""Requests that are under way, so that the bench has always something to do."""
FEW = 512
"""Memories without a vector that a question waits for; where there are more, it says so instead."""
NO_MODEL = "search is by words only, as no embedding model is set: `gx memory reembed --model minilm` sets one"


class Vectors:
    """Those of `file`.

    `find_model` finds an embedding model by its source, `None` if it isn't on this machine; `embedder` gives who embeds
    by it; `model` is the source that the settings name. `record` writes a choice to the log, and has the file follow.
    """

    def __init__(
        self,
        file: MemoryFile,
        *,
        record: Callable[[e.MemoryModelled], Awaitable[None]],
        embedder: Callable[[EmbeddingModel], Awaitable[Embedder]],
        find_model: Callable[[str], Awaitable[EmbeddingModel | None]],
        model: str | None,
    ) -> None:
        self._file, self._record, self._embedder = file, record, embedder
        self._find_model, self._model = find_model, model
        self._filling, self._agreeing = anyio.Lock(), anyio.Lock()
        self._n_waiting = 0  # for vectors

    # ── the model ────────────────────────────────────────────────────────────────────────────────────────────────

    async def agreed(self, asked: str | None, by: str) -> tuple[EmbeddingModel | None, list[str]]:
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

    async def chosen_anew(self, asked: str | None, by: str) -> tuple[EmbeddingModel, list[str]]:
        """The model to embed all memories by from now on: no vector stands, unless it goes on where it was left.

        :raises UsageError: if none is asked for, and none was ever named. :raises ModelError: if it isn't here.
        """
        store = await self._file.follow()
        chosen = store.chosen
        source = asked or (chosen.name if chosen is not None else self._model)
        if source is None:
            raise UsageError("which model is to embed the memories?", hint="gx memory reembed --model minilm")
        if (found := await self._find_model(source)) is None:
            raise ModelError(
                f"the embedding model `{source}` is not on this machine",
                code="model.missing",
                hint=f"fetch it with: gx models pull {source}",
            )
        if chosen is not None and (chosen.name, chosen.model) == (found.source, found.digest):
            lacking = await self._file.ask(lambda store: store.n_lacking())
            there = sum(one.vectors for one in await self._file.ask(lambda store: store.standings()))
            if lacking and there:
                return found, [f"{there:,} vectors of this model were there already; {lacking:,} are to be made"]
        await self._choose(found, by)
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

    async def _choose(self, model: EmbeddingModel, by: str) -> None:
        """Have memories embedded by a model from now on. :raises ModelError: if it is no embedding model."""
        (vector,) = await (await self._embedder(model)).embed(model.digest, ["which dimensions?"])
        await self._record(e.MemoryModelled(name=model.source, model=model.digest, dimensions=len(vector) // 4, by=by))

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    async def question(self, text: str, model: EmbeddingModel | None) -> tuple[tuple[str, bytes] | None, list[str]]:
        """The vector of a question, and the model; without one, why, unless that was said before."""
        if model is None:
            return None, []
        lacking = await self._file.ask(lambda store: store.n_lacking(), follows=False)
        notes = []
        if lacking > FEW:
            notes = [f"{lacking:,} memories have no vector yet, and are found by words: `gx memory reembed` makes them"]
        try:
            if 0 < lacking <= FEW and not self._n_waiting:  # else whoever writes them waits for their vectors
                notes += await self.fill(model)
            (vector,) = await embed_all(await self._embedder(model), model.digest, [model.question + text])
        except BenchError as error:
            return None, [f"search is by words only, as nothing can be embedded: {error.message}"]
        return (model.digest, vector), notes

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

    # ── what is lacking ──────────────────────────────────────────────────────────────────────────────────────────

    async def fill(self, model: EmbeddingModel | None) -> list[str]:
        """Give a vector to each memory that has none; what became of it, if it wasn't done."""
        if model is None:
            return []
        self._n_waiting += 1
        try:
            async with self._filling:
                while lacking := await self._file.ask(lambda store: store.lacking(BATCH * AT_ONCE), follows=False):
                    await self._put(model, lacking)
        except (BenchError, ModelError) as error:
            if error.code == "memory.mixed":  # another model was chosen meanwhile, and whoever did that goes on
                return []
            return [f"memories are without a vector for now, and found by words: {error.message}"]
        finally:
            self._n_waiting -= 1
        return []

    async def _put(self, model: EmbeddingModel, lacking: Sequence[Lacking]) -> None:
        """Make these, and keep each batch as soon as it is there, as the last one may be waited for in vain."""
        embedder = await self._embedder(model)
        errors: list[GxError] = []  # raised out of the group, they would come wrapped in another one

        async def make(part: Sequence[Lacking]) -> None:
            try:
                made = await embed_all(embedder, model.digest, [model.passage + one.text for one in part])
                with anyio.CancelScope(shield=True):  # it is made, whoever waits for it
                    await self._file.ask(_putting(model.digest, list(zip(part, made, strict=True))), follows=False)
            except GxError as error:
                errors.append(error)

        async with anyio.create_task_group() as group:
            for start in range(0, len(lacking), BATCH):
                group.start_soon(make, lacking[start : start + BATCH])
        if errors:
            raise errors[0]


def _putting(model: str, made: Sequence[tuple[Lacking, bytes]]) -> Callable[[MemoryStore], None]:
    def put(store: MemoryStore) -> None:
        store.put_vectors(model, made)

    return put


def _missing(source: str) -> str:
    return f"search is by words only, as the embedding model is not on this machine: gx models pull {source}"
