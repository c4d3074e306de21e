"""The tables of `memory.db`, and how a connection to it is opened: SQLite through apsw, with sqlite-vec and FTS5.

It knows SQL and files, and nothing of what is kept or asked. What was deleted is overwritten with zeros, in the tables
and in the full-text index: a memory that is forgotten must not be found in the file either.

This is the file that imports apsw and sqlite-vec, and it does so when a connection is opened: they are an extra.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gx.core.errors import GxError, WorkspaceError
from gx.core.extras import installing

if TYPE_CHECKING:
    import apsw

APPLICATION_ID = 0x67784D31
"""Says that a file is a memory of gx, in the header of SQLite's file format, section 1.3."""
FORMAT = 3
"""The version of these tables; a file of another one is made again from the log."""
BUSY_MS = 10_000
PAGE_BYTES = 16 << 10
"""A chunk of vectors takes 98 KB, into which each is written: with SQLite's own 4 KiB that is a chain of 24 pages to go
along, and adding takes half as long again.
"""
CACHE_KIB = 32 << 10
"""Of each connection, of which there are five at most. SQLite's own 2 MiB hold less than one search touches, and a file
that is mapped instead would end the process that it is truncated under.
"""
CHUNK = 64
"""Vectors of a chunk of sqlite-vec. With its default of 1,024 a namespace of one vector takes as much room as a full
one: 200 of them 317 MB, with 64 20 MB.
"""

TABLES = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value ANY) STRICT;
CREATE TABLE memory(
    id INTEGER PRIMARY KEY AUTOINCREMENT, uid TEXT NOT NULL UNIQUE, namespace TEXT NOT NULL, kind TEXT NOT NULL,
    label TEXT NOT NULL, at REAL NOT NULL, seq INTEGER NOT NULL, body TEXT NOT NULL, digest TEXT NOT NULL,
    heading TEXT NOT NULL, author TEXT NOT NULL, path TEXT NOT NULL, ordinal INTEGER, page INTEGER, run TEXT NOT NULL,
    task TEXT NOT NULL, sha256 TEXT NOT NULL, space TEXT NOT NULL, grams TEXT NOT NULL,
    model TEXT) STRICT;
CREATE INDEX memory_in_order ON memory(seq, id);
CREATE INDEX memory_by_namespace ON memory(namespace, seq, id);
CREATE INDEX memory_by_path ON memory(path) WHERE path <> '';
CREATE INDEX memory_without_vector ON memory(id) WHERE model IS NULL;
CREATE VIRTUAL TABLE memory_fts USING fts5(body, heading, space, grams, content='memory', content_rowid='id',
    tokenize="porter unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'");
INSERT INTO memory_fts(memory_fts, rank) VALUES('secure-delete', 1);
CREATE TRIGGER memory_inserted AFTER INSERT ON memory BEGIN
    INSERT INTO memory_fts(rowid, body, heading, space, grams)
    VALUES (new.id, new.body, new.heading, new.space, new.grams);
END;
CREATE TRIGGER memory_deleted AFTER DELETE ON memory BEGIN
    INSERT INTO memory_fts(memory_fts, rowid, body, heading, space, grams)
    VALUES ('delete', old.id, old.body, old.heading, old.space, old.grams);
END;
"""
"""`space` is a word that stands for the namespace, so that the full-text index passes others by. `grams` stands for the
words of scripts without spaces. Marks on letters are part of a word: they are the vowels of many scripts. `model` is
that of the memory's vector, NULL where there is none yet.
"""


def vectors_table(dimensions: int) -> str:
    """The statement that makes the table of vectors, float32, of one model."""
    return f"""CREATE VIRTUAL TABLE memory_vec USING vec0(id INTEGER PRIMARY KEY, namespace TEXT PARTITION KEY,
        e float[{dimensions}] distance_metric=cosine, kind TEXT, label TEXT, at FLOAT, seq INTEGER, chunk_size={CHUNK})
    """


def connect(path: Path) -> apsw.Connection:
    """Open the file, and make it where there is none.

    :raises WorkspaceError: `memory.extra` if what it needs isn't installed, `memory.damaged` if it is no such file.
    """
    try:
        import apsw
        import sqlite_vec
    except ImportError as error:
        raise WorkspaceError(
            f"the memory needs {error.name or 'a package'}, which is not installed",
            hint=installing("memory"),
            code="memory.extra",
        ) from None
    with explained(path):
        con = apsw.Connection(str(path))
        try:
            con.set_busy_timeout(BUSY_MS)
            con.enable_load_extension(True)
            con.load_extension(sqlite_vec.loadable_path())
            con.enable_load_extension(False)
            con.execute("PRAGMA secure_delete = ON; PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY")
            con.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        except BaseException:
            con.close()
            raise
    return con


def prepare(con: apsw.Connection, path: Path) -> None:
    """Make the tables in a new file, and check that an old one has them. :raises WorkspaceError: `memory.damaged`."""
    with explained(path):
        ((tables,),) = ask(con, "SELECT count(*) FROM sqlite_schema")
        if not tables:
            con.execute(f"PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL")
            with transaction(con):
                con.execute(TABLES)
                con.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}")
            return
        ((application,),) = ask(con, "PRAGMA application_id")
        ((version,),) = ask(con, "PRAGMA user_version")
    if (application, version) != (APPLICATION_ID, FORMAT):
        raise WorkspaceError(
            f"{path}: expected a memory of format {FORMAT}, got another file", code="memory.damaged", hint=REBUILD
        )


REBUILD = "`gx memory rebuild` makes it again from the log"


def ask(con: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows of a statement."""
    return con.execute(sql, tuple(values)).fetchall()


@contextlib.contextmanager
def transaction(con: apsw.Connection) -> Iterator[None]:
    """All that is written in the block, or nothing of it."""
    con.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        con.execute("ROLLBACK")
        raise
    con.execute("COMMIT")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    import apsw

    try:
        yield
    except GxError:
        raise
    except (apsw.CorruptError, apsw.NotADBError, apsw.SchemaChangeError) as error:
        raise WorkspaceError(f"{path} is damaged: {error}", code="memory.damaged", hint=REBUILD) from error
    except apsw.FullError as error:
        raise WorkspaceError(
            f"the disk is full: {path} can't be written", code="memory.full", hint="make room; nothing recorded is lost"
        ) from error
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.IOError, apsw.BusyError) as error:
        raise WorkspaceError(f"{path} can't be used: {error}", code="memory.store") from error
    except apsw.Error as error:
        raise WorkspaceError(f"{path} can't answer: {error}", code="memory.damaged", hint=REBUILD) from error
