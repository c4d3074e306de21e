"""Files into chunks that are ready to be remembered, or the reason why there are none; one file after the other.

It knows extraction and cutting, and nothing of what becomes of chunks. The invariant: each file gives one answer, in
the order of the files, and none can end the reading of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edge.knowledge.chunks import Chunk, chunks
from edge.knowledge.document import Skipped
from edge.knowledge.extraction import Extractor
from edge.knowledge.pieces import Count
from gx.core.errors import UsageError
from gx.core.message import Value

CHUNK_TOKENS, OVERLAP_TOKENS = 200, 30
"""Short enough for models that were trained on 256 tokens, headings included; of the sizes that were tried on the
questions of `recipes/docs-questions.jsonl`, all found nearly the same."""
_BETWEEN = " › "
_HEADING_CHARS = 300


class Read(Value, frozen=True, kw_only=True):
    """A document and its chunks; `sha256` is of the bytes that were read."""

    path: str
    sha256: str
    title: str
    chunks: tuple[Chunk, ...]


def read(
    paths: Iterable[str], extractor: Extractor, count: Count, limit: int, overlap: int
) -> Iterator[Read | Skipped]:
    """What each file is, cut into chunks of at most `limit` tokens, which repeat at most `overlap`. Blocking."""
    for path in paths:
        document = extractor.extract(path)
        if isinstance(document, Skipped):
            yield document
            continue
        try:
            cut = chunks(document, count, limit, overlap)
        except UsageError as error:
            yield Skipped(path=path, reason=f"it can't be cut: {error.message}")
            continue
        yield Read(path=path, sha256=document.sha256, title=document.title, chunks=tuple(cut))


def heading_of(title: str, headings: tuple[str, ...]) -> str:
    """The line above a chunk: the document's title and the path to the section, each once."""
    return _BETWEEN.join(dict.fromkeys((title, *headings)))[:_HEADING_CHARS]
