"""The file of a workspace's memories, `memory.db`: changes are applied in the log's order, and questions answered.

It knows SQLite and nothing of the log or of models: vectors are given to it. The invariants: `mark`, how far the log
was applied, is written in the same transaction as what was applied; all vectors are of one model; a vector belongs to
what its memory says now. One writes at a time, several read beside it, each on a connection of its own.
"""

from __future__ import annotations

import contextlib
import math
import threading
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty, LifoQueue
from typing import TYPE_CHECKING, Any

from edge.memory import changing, rows, schema, standing
from edge.memory.changing import FLOAT_BYTES
from edge.memory.schema import ask
from edge.memory.search import search
from gx.core.errors import ModelError
from gx.core.memory import Change, Chosen, Document, Drop, Filter, Hit, Lacking, Mark, Memory, Query, Standing

if TYPE_CHECKING:
    import apsw


class MemoryStore:
    """An open file. Its methods block, and may be called from any thread.

    :raises WorkspaceError: `memory.extra` if its packages aren't there, `memory.damaged` if the file is no memory,
        `memory.store` if it can't be opened. So may every method, if the file is damaged later.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = threading.Lock()
        self._idle: LifoQueue[apsw.Connection] = LifoQueue()
        self._con = schema.connect(path)
        try:
            schema.prepare(self._con, path)
            self.mark, self.chosen = self._read_meta()
        except BaseException:
            self._con.close()
            raise

    def __repr__(self) -> str:
        return f"<MemoryStore {self.path} seq={self.mark.seq}>"

    # ── changing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def apply(self, changes: Sequence[Change], mark: Mark) -> None:
        """Apply what the log says up to `mark`; nothing of it where it was applied before."""
        with self._writer() as con:
            if mark.seq <= self.mark.seq:
                return
            with schema.transaction(con):
                chosen = changing.apply(con, changes, self.chosen)
                changing.note(con, applied_seq=mark.seq, applied_hash=mark.hash)
            self.mark, self.chosen = mark, chosen
            if any(isinstance(change, Drop) for change in changes):
                con.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the WAL has pages of what was there before

    def put_vectors(self, model: str, made: Sequence[tuple[Lacking, bytes]]) -> None:
        """Keep vectors of that model, float32, for memories that lacked them; what was forgotten since gets none.

        :raises ModelError: `memory.mixed` if the memories are embedded by another model, `memory.vector` if one has
            another dimension, or holds something that is no number.
        """
        for _, vector in made:
            self.check_vector(model, vector)
        with self._writer() as con, schema.transaction(con):
            for lacking, vector in made:
                found = ask(
                    con,
                    "UPDATE memory SET model = ? WHERE id = ? AND digest = ? AND model IS NULL"
                    " RETURNING namespace, kind, label, at, seq",
                    (model, lacking.id, lacking.digest),
                )
                if found:
                    con.execute(
                        "INSERT INTO memory_vec(id, e, namespace, kind, label, at, seq) VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (lacking.id, vector, *found[0]),
                    )

    def take_vectors(self, path: Path) -> None:
        """Take over the vectors of another file, of the same model, for memories that say the same there."""
        if self.chosen is None:
            return
        with self._writer() as con:
            con.execute("ATTACH ? AS old", (str(path),))
            try:
                with schema.transaction(con):
                    con.execute(
                        """INSERT INTO memory_vec(id, e, namespace, kind, label, at, seq)
                        SELECT m.id, v.e, m.namespace, m.kind, m.label, m.at, m.seq FROM memory m
                        JOIN old.memory o ON o.uid = m.uid AND o.digest = m.digest AND o.heading = m.heading
                        JOIN old.memory_vec v ON v.id = o.id WHERE m.model IS NULL AND o.model = ?""",
                        (self.chosen.model,),
                    )
                    con.execute(
                        "UPDATE memory SET model = ? WHERE model IS NULL AND id IN (SELECT id FROM memory_vec)",
                        (self.chosen.model,),
                    )
            finally:
                con.execute("DETACH old")

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────

    def search(self, query: Query, vector: tuple[str, bytes] | None) -> list[Hit]:
        """The best memories for a question, the best first; `vector` is a model and the question as it embeds it.

        :raises ModelError: as `put_vectors`.
        """
        if vector is not None:
            self.check_vector(*vector)
        with self._reader() as con:
            return search(con, query, None if vector is None else vector[1])

    def listed(self, wanted: Filter, *, after: int = -1, limit: int, is_newest: bool = False) -> list[Memory]:
        """Memories in the order of their writing, after that `seq`, and about `limit` of them: those of one event come
        together. The newest first, and just so many, with `is_newest`.
        """
        condition, values = rows.where(wanted)
        with self._reader() as con:
            if is_newest:
                newest = f"SELECT {rows.READ} FROM memory m WHERE {condition} ORDER BY m.seq DESC, m.id DESC LIMIT ?"
                return [rows.memory_of(row) for row in ask(con, newest, (*values, limit))]
            upto = f"SELECT m.seq FROM memory m WHERE {condition} AND m.seq > ? ORDER BY m.seq, m.id LIMIT 1 OFFSET ?"
            last = ask(con, upto, (*values, after, limit - 1))
            page = (
                f"SELECT {rows.READ} FROM memory m WHERE {condition} AND m.seq > ? AND m.seq <= ? ORDER BY m.seq, m.id"
            )
            found = ask(con, page, (*values, after, last[0][0] if last else 1 << 62))
            return [rows.memory_of(row) for row in found]

    def named(self, starts: Sequence[str]) -> dict[str, list[str]]:
        """The uids that begin so, two at most of each."""
        sql = "SELECT uid FROM memory WHERE uid >= ? AND uid < ? || 'g' ORDER BY uid LIMIT 2"
        with self._reader() as con:
            return {start: [uid for (uid,) in ask(con, sql, (start, start))] for start in starts}

    def uids(self, wanted: Filter) -> list[str]:
        """The names of all memories that are meant, in the order of their writing."""
        condition, values = rows.where(wanted)
        with self._reader() as con:
            sql = f"SELECT m.uid FROM memory m WHERE {condition} ORDER BY m.seq, m.id"
            return [uid for (uid,) in ask(con, sql, tuple(values))]

    def known(self, uids: Sequence[str]) -> dict[str, Memory]:
        """Those of `uids` that stand."""
        found: dict[str, Memory] = {}
        with self._reader() as con:
            for start in range(0, len(uids), 500):
                part = tuple(uids[start : start + 500])
                sql = f"SELECT {rows.READ} FROM memory m WHERE m.uid IN ({', '.join('?' * len(part))})"
                found.update({row[0]: rows.memory_of(row) for row in ask(con, sql, part)})
        return found

    def lacking(self, limit: int) -> list[Lacking]:
        """Memories without a vector, the first first. A heading is embedded with what stands below it."""
        with self._reader() as con:
            found = ask(
                con, "SELECT id, digest, heading, body FROM memory WHERE model IS NULL ORDER BY id LIMIT ?", (limit,)
            )
        return [Lacking(id, digest, f"{heading}\n{body}" if heading else body) for id, digest, heading, body in found]

    def n_lacking(self) -> int:
        """How many memories have no vector."""
        with self._reader() as con:
            ((count,),) = ask(con, "SELECT count(*) FROM memory WHERE model IS NULL")
        return int(count)

    def documents(self, namespace: str, paths: Sequence[str]) -> list[Document]:
        """The documents of a namespace that stand at or below `paths`, by their paths."""
        with self._reader() as con:
            return standing.documents(con, namespace, paths)

    def standings(self) -> list[Standing]:
        """Each namespace at a glance, by name."""
        with self._reader() as con:
            return standing.standings(con)

    def check_vector(self, model: str, vector: bytes) -> None:
        """:raises ModelError: unless it is one of the model that the memories are embedded by."""
        if self.chosen is None or model != self.chosen.model:
            said = "no model yet" if self.chosen is None else f"{self.chosen.name} ({self.chosen.model[:12]})"
            raise ModelError(
                f"the memories are embedded by {said}, and this vector is of the model {model[:12]}",
                hint="`gx memory reembed` computes all vectors anew",
                code="memory.mixed",
            )
        if len(vector) != FLOAT_BYTES * self.chosen.dimensions:
            raise ModelError(
                f"expected a vector of {self.chosen.dimensions} dimensions, got {len(vector) / FLOAT_BYTES:g}",
                code="memory.vector",
            )
        total = sum(map(abs, array("f", vector)))
        if not math.isfinite(total) or not total:
            raise ModelError(
                "expected a vector of numbers, got one that has NaN or infinity, or is 0", code="memory.vector"
            )

    def close(self) -> None:
        """Let the file go, whole and without a WAL."""
        with self._writing, schema.explained(self.path):
            while True:
                try:
                    self._idle.get_nowait().close()
                except Empty:
                    break
            self._con.close()

    # ── within ───────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def _writer(self) -> Iterator[apsw.Connection]:
        with self._writing, schema.explained(self.path):
            yield self._con

    @contextlib.contextmanager
    def _reader(self) -> Iterator[apsw.Connection]:
        try:
            con = self._idle.get_nowait()
        except Empty:
            con = schema.connect(self.path)
        try:
            with schema.explained(self.path):
                yield con
        finally:
            self._idle.put(con)

    def _read_meta(self) -> tuple[Mark, Chosen | None]:
        with schema.explained(self.path):
            meta: dict[str, Any] = dict(ask(self._con, "SELECT name, value FROM meta"))
        chosen = Chosen(meta["name"], meta["model"], meta["dimensions"]) if "model" in meta else None
        return Mark(meta.get("applied_seq", -1), meta.get("applied_hash", b"")), chosen
