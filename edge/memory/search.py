"""Hybrid search over one connection: full text by BM25, vectors by cosine, one ranking of both.

Each half gives its best, several times as many as are asked for, since what both find comes first. Ties are broken by
the order in which memories were written, so that a file that was made again gives the same answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from edge.memory.rows import READ, memory_of, near, space_of, where
from edge.memory.schema import ask
from edge.memory.words import terms_of
from gx.core.memory import Hit, Query, fuse

if TYPE_CHECKING:
    import apsw

DEEPER = 5
"""Times as many of each half as are asked for."""
LEAST_DEPTH = 50
MOST_NEAREST = 4096
"""The most that sqlite-vec gives."""
MOST_WORDS = 64
"""Words of a question that are looked for; a whole page as a question has those of its beginning."""


def search(con: apsw.Connection, query: Query, vector: bytes | None) -> list[Hit]:
    """The best memories, the best first. `vector` is that of the question, float32; `None` asks for text alone."""
    depth = max(LEAST_DEPTH, DEEPER * query.k)
    by_text = _by_text(con, query, depth)
    by_vector = None if vector is None else _by_vector(con, query, vector, min(depth, MOST_NEAREST))
    ranked = fuse(list(by_text), None if by_vector is None else list(by_vector))
    best = [one for one in ranked if one.score >= query.min_score][: query.k]
    memories = _memories(con, [one.key for one in best])
    return [
        Hit(
            memory=memories[one.key],
            score=one.score,
            by_text=one.by_text,
            by_vector=one.by_vector,
            text_rank=one.text_rank,
            bm25=by_text.get(one.key),
            vector_rank=one.vector_rank,
            similarity=(by_vector or {}).get(one.key),
        )
        for one in best
        if one.key in memories
    ]


def match_of(text: str, namespace: str | None) -> str | None:
    """The question in FTS5's language: any of its words, of one namespace if need be; `None` if it has no words."""
    terms = terms_of(text)[:MOST_WORDS]
    if not terms:
        return None
    some = "{body heading grams} : (" + " OR ".join(terms) + ")"
    return some if namespace is None else f"(space : {space_of(namespace)}) AND ({some})"


def _by_text(con: apsw.Connection, query: Query, depth: int) -> dict[int, float]:
    """The ids in order, each with its BM25, the larger the better. A heading counts as much as the text."""
    match = match_of(query.text, query.namespace)
    if match is None:
        return {}
    condition, values = where(msgspec.structs.replace(query, namespace=None))  # which the index knows by itself
    join = f"JOIN memory m ON m.id = memory_fts.rowid AND {condition}" if values else ""
    rows = ask(
        con,
        f"""SELECT memory_fts.rowid, -bm25(memory_fts, 1.0, 1.0, 0.0, 1.0) AS score FROM memory_fts {join}
        WHERE memory_fts MATCH ? ORDER BY score DESC, memory_fts.rowid LIMIT ?""",
        (*values, match, depth),
    )
    return dict(rows)


def _by_vector(con: apsw.Connection, query: Query, vector: bytes, depth: int) -> dict[int, float]:
    """The ids in order, each with its cosine."""
    condition, values = near(query)
    rows = ask(
        con,
        f"SELECT id, distance FROM memory_vec WHERE e MATCH ? AND k = ?{condition} ORDER BY distance",
        (vector, depth, *values),
    )
    least = -1.0 if query.min_similarity is None else query.min_similarity
    found = [(id, 1.0 - distance) for id, distance in rows if distance is not None]
    return {id: cosine for id, cosine in sorted(found, key=lambda one: (-one[1], one[0])) if cosine >= least}


def _memories(con: apsw.Connection, ids: list[int]) -> dict[int, Any]:
    rows = ask(con, f"SELECT m.id, {READ} FROM memory m WHERE m.id IN ({', '.join('?' * len(ids))})", tuple(ids))
    return {row[0]: memory_of(row[1:]) for row in rows}
