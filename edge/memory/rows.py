"""A memory as a row of the table `memory`, and which rows a filter means, in SQL."""

from __future__ import annotations

import hashlib
from typing import Any

from edge.memory.words import grams_of
from gx.core.memory import Filter, Kind, Memory, Put, Source
from gx.core.message import Label

COLUMNS = (
    "uid", "namespace", "kind", "label", "at", "seq", "body", "digest", "heading", "author", "path", "ordinal", "page",
    "run", "task", "sha256", "space", "grams",
)  # fmt: skip
READ = ", ".join(f"m.{name}" for name in COLUMNS if name not in ("digest", "space", "grams"))
"""What `memory_of` reads, of `memory m`."""


def row_of(put: Put) -> tuple[Any, ...]:
    """The values of `COLUMNS`."""
    one, source = put.memory, put.memory.source
    return (
        one.uid, one.namespace, one.kind.value, one.label.value, one.at, one.seq, one.body, put.digest, source.heading,
        source.by, source.path, source.ordinal, source.page, source.run, source.task, source.sha256,
        space_of(one.namespace), grams_of(f"{source.heading}\n{one.body}"),
    )  # fmt: skip


def memory_of(row: tuple[Any, ...]) -> Memory:
    """The memory of a row of `READ`."""
    uid, namespace, kind, label, at, seq, body, heading, by, path, ordinal, page, run, task, sha256 = row
    source = Source(by=by, path=path, ordinal=ordinal, heading=heading, page=page, run=run, task=task, sha256=sha256)
    return Memory(
        uid=uid, namespace=namespace, kind=Kind(kind), body=body, at=at, seq=seq, label=Label(label), source=source
    )


def space_of(namespace: str) -> str:
    """The word that stands for a namespace in the full-text index."""
    return "ns" + hashlib.sha256(namespace.encode()).hexdigest()[:16]


def where(wanted: Filter) -> tuple[str, list[Any]]:
    """A condition on `memory m`, and its values."""
    terms, values = ["1"], list[Any]()
    plain, given = _shared(wanted)
    terms += [f"m.{term}" for term in plain]
    values += given
    if wanted.source:
        terms.append(_SOURCE)
        values += _source(wanted.source)
    return " AND ".join(terms), values


def near(wanted: Filter) -> tuple[str, list[Any]]:
    """The same condition on the table of vectors, which has some of the columns, and the rest by their ids."""
    terms, values = _shared(wanted)
    if wanted.source:
        terms.append(f"id IN (SELECT m.id FROM memory m WHERE {_SOURCE})")
        values += _source(wanted.source)
    return "".join(f" AND {term}" for term in terms), values


BELOW = "(m.path = ? OR (m.path >= ? AND m.path < ?))"
"""That a document stands at a path or below it; the index of paths finds both."""


def below(path: str) -> list[str]:
    """The values of `BELOW`."""
    folder = path.rstrip("/")
    return [path, folder + "/", folder + "0"]  # "0" is what follows "/" in ASCII


_SOURCE = "(m.path = ? OR m.author = ? OR m.run = ? OR substr(m.path, 1, length(?)) = ?)"


def _source(source: str) -> list[str]:
    """The values of `_SOURCE`."""
    folder = source.rstrip("/") + "/"
    return [source, source, source, folder, folder]


def _shared(wanted: Filter) -> tuple[list[str], list[Any]]:
    """What `memory` and `memory_vec` have both."""
    terms, values = list[str](), list[Any]()
    if wanted.namespace is not None:
        terms.append("namespace = ?")
        values.append(wanted.namespace)
    if wanted.kinds:
        terms.append(f"kind IN ({', '.join('?' * len(wanted.kinds))})")
        values += [kind.value for kind in wanted.kinds]
    for term, value in (
        ("label = ?", None if wanted.label is None else wanted.label.value),
        ("at >= ?", wanted.since),
        ("at <= ?", wanted.until),
        ("seq <= ?", wanted.upto_seq),
    ):
        if value is not None:
            terms.append(term)
            values.append(value)
    return terms, values
