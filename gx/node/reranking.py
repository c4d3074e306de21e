"""Which reranker a search of the memory is ordered by, and what becomes of a search without it: an error.

It knows models and who ranks by them; nothing of the log or the file. Invariant: where a reranker is named, by a
setting, a flag or a recipe, nothing is answered without it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from gx.core.errors import BenchError, GxError, ModelError, UsageError
from gx.core.memory import Hit, Query
from gx.core.message import Value
from gx.core.ports import Ranker
from gx.run.memory.reranking import ordered, passage_of
from gx.settings import NONE
from gx.wiring import LocalModel

HINT = "`memory_reranker`, or `--rerank`, names another one, or `none`"


class Named(Value, frozen=True, kw_only=True):
    """A reranker that is on this machine, and the source that named it."""

    source: str
    model: LocalModel


class Reranking:
    """`find` gives a reranker by its source, `ranker` who ranks by it; `source` is the one that the settings name."""

    def __init__(
        self,
        *,
        find: Callable[[str], Awaitable[LocalModel]],
        ranker: Callable[[LocalModel], Awaitable[Ranker]],
        source: str = NONE,
    ) -> None:
        self._find, self._ranker, self._source = find, ranker, source

    async def named(self, query: Query, asked: str | None) -> Named | None:
        """The reranker of a search, `asked` for or the settings'; `None` if it has none.

        :raises UsageError: if the search must have one, and none is named.
        :raises ModelError: if it isn't on this machine, or is no reranker.
        """
        if query.rerank is False:
            return None
        source = asked or self._source
        if source != NONE:
            return Named(source=source, model=await self._find(source))
        if query.rerank:
            raise unset()
        return None

    async def ordered(self, named: Named, query: Query, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        """The best of what was found, in the reranker's order.

        :raises ModelError: if it can't rank. :raises BenchError: if the bench can't be kept up.
        """
        if not hits:
            return ()
        passages = [passage_of(hit) for hit in hits]
        try:
            scores = await self._scores(named, query.text, passages)
        except GxError as error:
            hint = HINT
            if error.code == "question":
                hint = "ask a shorter question; in a recipe, give the memory a `query`, or say `rerank: false`"
            message = f"what was found can't be reranked by {named.source}: {error.message}"
            raise type(error)(message, hint=hint, code=error.code) from None
        return ordered(hits, scores, query.k)

    async def _scores(self, named: Named, question: str, passages: Sequence[str]) -> list[float]:
        """A bench that ends meanwhile is started again: it may have ended of something else, so it is asked twice."""
        try:
            return await (await self._ranker(named.model)).rank(named.model.digest, question, passages)
        except ModelError:
            raise
        except BenchError:
            return await (await self._ranker(named.model)).rank(named.model.digest, question, passages)


def unset() -> UsageError:
    """A reranker is wanted and none is named."""
    return UsageError(
        "`rerank: true` is wanted of the memory, and no reranker is set",
        hint="set one, as with GX_MEMORY_RERANKER=./reranker.gguf or in gx.toml, or leave `rerank` out",
    )
