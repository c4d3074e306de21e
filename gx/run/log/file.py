"""The log's DuckDB file and the head file beside it: opening, checking, asking, and DuckDB's errors in our words.

It knows connections and what can be wrong with a file; it appends nothing but the first event. Two invariants: what
`open_checked` returns is a log of a format that this gx reads and that holds every acknowledged event; and from the
moment of opening, this process's DuckDB touches its own files and no other, whoever's SQL it runs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import msgspec

from gx.core.errors import LogError
from gx.core.event import FORMAT, LogOpened, encode_body
from gx.run.log import schema

LOG_FILE = "log.duckdb"
HEAD_FILE = "log.head"
WAL_FILE = LOG_FILE + ".wal"
MEMORY = "1GB"
"""What DuckDB may hold; the rest of the machine belongs to the models. Larger questions spill to the disk."""
REOPENING_S = 5.0
"""How long questions wait for a file that is opened again, and the reopening for questions to end."""


class Tail(NamedTuple):
    """The last durable event: its `seq`, its hash (32 bytes), its time (µs)."""

    seq: int = -1
    hash: bytes = schema.GENESIS
    ts: int = 0


class Head(msgspec.Struct, frozen=True):
    """What the head file says: the last acknowledged event; `hash` is hex. It may lag, and never leads."""

    seq: int
    hash: str


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
        self._head_fd: int | None = None

    @classmethod
    def open_checked(cls, folder: Path, *, read_only: bool, gx: str, ts: int) -> tuple[LogFile, Tail]:
        """Open the file; for writing, make it where there is none, `ts` (µs) being the time of its first event.

        :raises LogError: `log.missing`, `log.locked`, `log.read_only`, `log.newer`, `log.format`, `log.damaged`,
            `log.truncated`.
        """
        if not read_only:
            if not (folder / LOG_FILE).exists():
                _refuse_to_replace(folder)
                _create(folder / LOG_FILE, gx, ts)
            else:  # looking comes first: DuckDB cuts off a damaged end when it opens a file for writing
                cls.open_checked(folder, read_only=True, gx=gx, ts=ts)[0].close()
        file = cls(folder, read_only=read_only)
        try:
            file.connect()
            file._check_format()
            tail = file.tail()
            file._check_head(tail)
            if not read_only:
                file._renew_views()
                file.write_head(tail)
        except BaseException:
            file.close()
            raise
        return file, tail

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
            con = duckdb.connect(
                str(self.path),
                read_only=self.is_read_only,
                config={"memory_limit": MEMORY, "threads": min(4, os.cpu_count() or 1), "wal_autocheckpoint": "1GB"},
            )
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

        While the file is being opened again after an error, it waits. :raises LogError: `log.closed`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._con is not None or self._is_closed, timeout=REOPENING_S)
            cursor = self.connection().cursor()
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

    def write_head(self, tail: Tail) -> None:
        """Overwrite the head in place: no new block is needed, so a full disk can't stop it; a kill can't tear it."""
        with contextlib.suppress(OSError):  # it may lag; the log itself is what counts
            if self._head_fd is None:
                self._head_fd = os.open(self.folder / HEAD_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.pwrite(self._head_fd, msgspec.json.encode(Head(tail.seq, tail.hash.hex())).ljust(127) + b"\n", 0)

    def close(self) -> None:
        """Sync the head and let both files go."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self.disconnect()
        if self._head_fd is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._head_fd)
            os.close(self._head_fd)
            self._head_fd = None

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
            rows = con.execute("SELECT data FROM events WHERE seq = 0").fetchall()
        except duckdb.CatalogException:
            rows = []
        except duckdb.Error as error:
            raise explain(error, self.path) from error
        first = msgspec.json.decode(rows[0][0]) if rows else {}
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
        keep = f"copy {self.folder} aside; `gx log --salvage` then goes on from what is there"
        if head.seq > tail.seq:
            raise LogError(
                f"{self.path} ends at event {tail.seq}, but {head.seq - tail.seq} later ones were acknowledged",
                hint=f"put {WAL_FILE} back if it was moved; else {keep}",
                code="log.truncated",
            )
        if [row[0].hex() for row in self.ask("SELECT hash FROM events WHERE seq = ?", [head.seq])] != [head.hash]:
            raise LogError(
                f"event {head.seq} of {self.path} is not the one that {HEAD_FILE} names", hint=keep, code="log.damaged"
            )


def _refuse_to_replace(folder: Path) -> None:
    if (head := read_head(folder)) is not None:
        raise LogError(
            f"{folder / LOG_FILE} is gone, but events up to {head.seq} were acknowledged",
            hint=f"put it back; or remove {folder / HEAD_FILE} to begin a new log",
            code="log.truncated",
        )


def _create(path: Path, gx: str, ts: int) -> None:
    """Make the file under another name and rename it, so that it is whole from its first moment."""
    new = path.with_name(path.name + ".new")
    remove(new)
    body = LogOpened(format=FORMAT, gx=gx)
    data = encode_body(body).decode()
    try:
        with contextlib.closing(duckdb.connect(str(new))) as con:
            con.begin()
            for statement in (*schema.TABLES, *schema.TRIGGERS, *schema.create_views()):
                con.execute(statement)
            insert_event(con, schema.row_of(schema.GENESIS, 0, uuid.uuid4(), ts, "log", body, data))
            con.commit()
            con.execute("CHECKPOINT")
        move_into_place(new, path)
    except (duckdb.Error, OSError) as error:
        raise explain(error, path) from error


def insert_event(con: duckdb.DuckDBPyConnection, row: tuple[Any, ...]) -> None:
    """Put one row into `events`."""
    places = ", ".join("?" * len(row))
    con.execute(f"INSERT INTO events ({', '.join(schema.EVENT_COLUMNS)}) VALUES ({places})", row)


def remove(path: Path) -> None:
    """Remove a database file that nobody uses, with what DuckDB keeps beside it."""
    for name in (path.name, path.name + ".wal", path.name + ".wal.checkpoint"):
        path.with_name(name).unlink(missing_ok=True)


def move_into_place(new: Path, path: Path) -> None:
    """Rename a closed database file over `path`, so that after any crash the one or the other is there, whole."""
    for target in (new, path.parent):
        fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        if target is new:
            new.replace(path)


def read_head(folder: Path) -> Head | None:
    """The head file; `None` where there is none that can be read, since it may lag anyway."""
    try:
        return msgspec.json.decode((folder / HEAD_FILE).read_bytes(), type=Head)
    except (OSError, msgspec.DecodeError):
        return None


_FULL = re.compile(rf"no space left|file too large|quota|{os.strerror(errno.ENOSPC)}", re.IGNORECASE)
_LOCKED = re.compile(r"could not set lock|conflicting lock", re.IGNORECASE)
_OPEN_HERE = re.compile(r"configuration has been locked|different configuration", re.IGNORECASE)
_READ_ONLY = re.compile(r"permission denied|read-only file system|not permitted", re.IGNORECASE)
_DAMAGED = re.compile(r"checksum|corrupt|wal|invalid|not a valid|serializ", re.IGNORECASE)


def explain(error: Exception, path: Path, *, writing: bool = False) -> LogError:
    """DuckDB's error as ours, with what to do."""
    text = str(error).partition("\n")[0]
    if _LOCKED.search(text):
        return LogError(f"{path} is in use by another process", hint="let it end, or stop it", code="log.locked")
    if _OPEN_HERE.search(text):
        return LogError(f"{path} is open in this process already", hint="close it first", code="log.locked")
    if _FULL.search(text):
        return LogError(f"the disk is full: {text}", hint="make room; nothing recorded is lost", code="log.full")
    if _READ_ONLY.search(text):
        return LogError(f"{path} can't be written: {text}", hint="see the folder's permissions", code="log.read_only")
    if writing:
        return LogError(f"the log can't be written: {text}", hint="nothing recorded is lost", code="log.write")
    if _DAMAGED.search(text):
        hint = f"`gx log --salvage` copies {path.parent} aside and keeps all that can be read"
        return LogError(f"{path} is damaged: {text}", hint=hint, code="log.damaged")
    return LogError(f"{path} can't be read: {text}", code="log.read")
