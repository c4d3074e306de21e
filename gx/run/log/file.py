"""The log's open DuckDB file: opening and checking it, cursors for its questions, checkpoints.

It knows connections and what can be wrong with a file; it appends nothing. Two invariants: what `open_checked` returns
is a log of a format that this gx reads and that holds every acknowledged event; and from the moment of opening, this
process's DuckDB touches its own files and no other, whoever's SQL it runs.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from gx.core.errors import LogError
from gx.core.event import FORMAT, LogOpened
from gx.run.log import schema
from gx.run.log.faults import explain
from gx.run.log.head import HEAD_FILE, HeadFile, Tail, read_head
from gx.run.log.making import LOG_FILE, MEMORY, WAL_FILE, attach, create

_OPENED = "SELECT seq, data FROM events WHERE type = 'log.opened' ORDER BY seq DESC LIMIT 1"
"""Where the file begins: what comes before it was carried over from the file before."""
REOPENING_S = 5.0
"""How long questions wait for a file that is opened again, and the reopening for questions to end."""


class LogFile:
    """`log.duckdb` of one folder. Its cursors may be used from any thread, each from one."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.folder = folder
        self.path = folder / LOG_FILE
        self.is_read_only = read_only
        self._con: duckdb.DuckDBPyConnection | None = None
        self._is_closed = False
        self._cursors: set[duckdb.DuckDBPyConnection] = set()
        self._changed = threading.Condition()
        self.writing = threading.Lock()
        self.head = HeadFile(folder)
        self.newest = Tail()
        """The last acknowledged event; only the one who appends moves it."""

    @classmethod
    def open_checked(cls, folder: Path, *, read_only: bool, gx: str, ts: int) -> LogFile:
        """Open the file; for writing, make it where there is none, `ts` (µs) being the time of its first event.

        :raises LogError: `log.missing`, `log.locked`, `log.read_only`, `log.newer`, `log.format`, `log.damaged`,
            `log.truncated`.
        """
        if not read_only:
            if not (folder / LOG_FILE).exists():
                _refuse_to_replace(folder)
                create(folder / LOG_FILE, gx, ts)
            else:  # looking comes first: DuckDB cuts off a damaged end when it opens a file for writing
                cls.open_checked(folder, read_only=True, gx=gx, ts=ts).close()
        file = cls(folder, read_only=read_only)
        try:
            file.connect()
            file._check_format()
            file.newest = file.tail()
            file._check_head(file.newest)
            if not read_only:
                file._renew_views()
                file.head.write(file.newest)
        except BaseException:
            file.close()
            raise
        return file

    @property
    def is_connected(self) -> bool:
        return self._con is not None

    def connect(self) -> None:
        """Open the database. :raises LogError: if it can't be."""
        if self.is_read_only and not self.path.exists():
            raise LogError(
                f"there is no log in {self.folder}", hint="nothing has run in this workspace yet", code="log.missing"
            )
        try:
            con = attach(self.path, read_only=self.is_read_only)
            con.execute("SET TimeZone = 'UTC'; SET enable_external_access = false")
            con.execute("SET allowed_configs = ['memory_limit']; SET lock_configuration = true")
        except (duckdb.Error, OSError) as error:
            raise explain(error, self.path) from error
        with self._changed:
            self._con = con
            self._changed.notify_all()

    def disconnect(self) -> None:
        """Close the connection and every cursor: DuckDB would hand a dead database out again while one is open."""
        with self._changed:
            con, self._con = self._con, None
            for cursor in self._cursors:
                cursor.interrupt()
            self._changed.wait_for(lambda: not self._cursors, timeout=REOPENING_S)
        if con is not None:
            with contextlib.suppress(duckdb.Error):
                con.close()

    def connection(self) -> duckdb.DuckDBPyConnection:
        """The first connection, for the one thread that writes. :raises LogError: if the file is closed."""
        if self._con is None:
            raise LogError("the log is closed", code="log.closed")
        return self._con

    @contextlib.contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor for one question or one thread: a shared connection fails under load.

        While the file is being opened again after an error, it waits. :raises LogError: `log.closed`, `log.read`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._con is not None or self._is_closed, timeout=REOPENING_S)
            cursor = self.connection().cursor()
            try:
                cursor.execute("USE log")
            except duckdb.Error as error:
                cursor.close()
                raise explain(error, self.path) from error
            self._cursors.add(cursor)
        try:
            yield cursor
        finally:
            with self._changed:
                self._cursors.discard(cursor)
                cursor.close()
                self._changed.notify_all()

    def ask(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of our own SQL. :raises LogError: if the log can't be read."""
        try:
            with self.cursor() as cursor:
                return cursor.execute(sql, list(parameters)).fetchall()
        except duckdb.InterruptException:  # the file was opened again under the question
            return self.ask(sql, parameters)
        except duckdb.Error as error:
            raise explain(error, self.path) from error
        except RuntimeError as error:  # so DuckDB says that Ctrl-C was pressed
            raise KeyboardInterrupt from error

    def checkpoint(self) -> bool:
        """Fold the WAL into the file now; whether it was done. It never raises: the next one may succeed."""
        try:
            with self.cursor() as cursor:
                cursor.execute("CHECKPOINT")
                self._shrink(cursor)
        except (duckdb.Error, LogError):
            return False
        return True

    def _shrink(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Let go of the blocks that DuckDB keeps of the file: left alone, it keeps all that it wrote, up to MEMORY.

        A limit that falls makes it drop them and give the pages back. Nobody else may need memory meanwhile, so this
        waits for the commit that is under way, and is left for another time while a question is.
        """
        with self.writing, self._changed:
            if self._cursors == {cursor}:
                with contextlib.suppress(duckdb.OutOfMemoryException):
                    cursor.execute("SET memory_limit = '1MB'")
                cursor.execute(f"SET memory_limit = '{MEMORY}'")

    def tail(self) -> Tail:
        """The last event that is there."""
        rows = self.ask("SELECT seq, hash, ts FROM events WHERE seq = (SELECT max(seq) FROM events)")
        return Tail(*rows[0]) if rows else Tail()

    def wal_bytes(self) -> int:
        """The size of the write-ahead log; 0 where there is none."""
        try:
            return (self.folder / WAL_FILE).stat().st_size
        except OSError:
            return 0

    def close(self) -> None:
        """Sync the head and let both files go."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self.disconnect()
        self.head.close()

    def _renew_views(self) -> None:
        """Make the views again where another gx made them."""
        con = self.connection()
        try:
            marks = con.execute("SELECT comment FROM duckdb_views() WHERE comment IS NOT NULL").fetchall()
            if (schema.VIEWS_MARK,) not in marks:
                con.begin()
                for statement in schema.create_views():
                    con.execute(statement)
                con.commit()
        except duckdb.Error as error:
            raise explain(error, self.path) from error

    def _check_format(self) -> None:
        try:
            con = self.connection()
            rows = con.execute(_OPENED).fetchall()
            con.execute("SELECT 1 FROM contents LIMIT 0").fetchall()
        except duckdb.CatalogException:
            rows = []
        except duckdb.Error as error:
            raise explain(error, self.path) from error
        first = msgspec.json.decode(rows[0][1]) if rows else {}
        found = first.get("format")
        if first.get("type") != "log.opened" or not isinstance(found, int):
            raise LogError(f"{self.path} is no log of gx", hint="move it away", code="log.format")
        if found > FORMAT:
            raise LogError(
                f"{self.path} has format {found} (of gx {first.get('gx')}); this gx reads up to {FORMAT}",
                hint="use a newer gx",
                code="log.newer",
            )

    def _check_head(self, tail: Tail) -> None:
        head = read_head(self.folder)
        if head is None:
            return
        keep = "`gx repair` copies it aside, and goes on from what is there"
        if head.seq > tail.seq:
            raise LogError(
                f"{self.path} ends at event {tail.seq}, but {head.seq - tail.seq} later ones were acknowledged",
                hint=f"put {WAL_FILE} back if it was moved; else {keep}",
                code="log.truncated",
            )
        if self._hash_of(head.seq) not in (None, head.hash):
            raise LogError(
                f"event {head.seq} of {self.path} is not the one that {HEAD_FILE} names", hint=keep, code="log.damaged"
            )

    def _hash_of(self, seq: int) -> str | None:
        """The hash of an event, hex; `None` where it stands in an archive. Of the last archived one it is known."""
        if rows := self.ask("SELECT hash FROM events WHERE seq = ?", [seq]):
            return str(rows[0][0].hex())
        ((opened, data),) = self.ask(_OPENED)
        if seq >= opened:
            return ""
        return msgspec.json.decode(data, type=LogOpened).previous if seq == opened - 1 else None


def _refuse_to_replace(folder: Path) -> None:
    if (head := read_head(folder)) is not None:
        raise LogError(
            f"{folder / LOG_FILE} is gone, but events up to {head.seq} were acknowledged",
            hint=f"put it back, or a backup; or remove {folder / HEAD_FILE} to begin a new log",
            code="log.truncated",
        )
