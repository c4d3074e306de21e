"""What is there, at a glance: the documents of a namespace, and each namespace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edge.memory import rows
from edge.memory.schema import ask
from gx.core.memory import Document, Standing
from gx.core.message import Label

if TYPE_CHECKING:
    import apsw


def documents(con: apsw.Connection, namespace: str, paths: Sequence[str]) -> list[Document]:
    """The documents of a namespace that stand at or below `paths`, by their paths."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    sql = f"""SELECT m.path, m.sha256, m.label, m.uid FROM memory m
        WHERE m.namespace = ? AND m.sha256 <> '' AND {rows.BELOW} ORDER BY m.path, m.ordinal, m.id"""
    for given in paths:
        for path, sha256, label, uid in ask(con, sql, (namespace, *rows.below(given))):
            found.setdefault(path, {})[uid] = (sha256, label)
    return [_document(path, found[path]) for path in sorted(found)]


def standings(con: apsw.Connection) -> list[Standing]:
    """Each namespace at a glance, by name."""
    found = ask(
        con,
        """SELECT namespace, count(*), sum(kind = 'fact'), sum(kind = 'episode'), sum(kind = 'chunk'),
        sum(label = 'private'), count(model) FROM memory GROUP BY namespace ORDER BY namespace""",
    )
    names = Standing.__struct_fields__
    return [Standing(**dict(zip(names, row, strict=True))) for row in found]


def _document(path: str, parts: Mapping[str, tuple[str, str]]) -> Document:
    """The document of its parts, uid → (sha256, label); without its digest where they are of several."""
    digests, labels = {sha256 for sha256, _ in parts.values()}, {label for _, label in parts.values()}
    return Document(
        path=path,
        sha256=digests.pop() if len(digests) == 1 else "",
        label=Label(labels.pop()) if len(labels) == 1 else None,
        uids=tuple(parts),
    )
