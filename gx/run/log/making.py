"""Making a log's file and putting it in its place: attaching, creating, renaming.

It knows files and the first event, nothing of an open log. Two invariants: a file has its name only when it is whole;
and every connection attaches the file by `attach`, since `duckdb.connect(path)` looks into it first and so drops this
process's lock on it.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from typing import Any

import duckdb

from gx.core.event import FORMAT, LogOpened, encode_body
from gx.run.log import schema
from gx.run.log.faults import explain

LOG_FILE = "log.duckdb"
WAL_FILE = LOG_FILE + ".wal"
MEMORY = "1GB"
"""What DuckDB may hold; the rest of the machine belongs to the models. Larger questions spill to the disk."""
ROW_GROUP_ROWS = 16_384
"""Rows that a checkpoint writes anew with those that were added. DuckDB's own 122,880 took twice the time and a sixth
more room on a log of 600,000 events, three times the time on large blobs."""


def attach(path: Path, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """A connection whose only file is `path`, attached as "log". :raises duckdb.Error: if it can't be."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "threads": min(4, os.cpu_count() or 1),
        "wal_autocheckpoint": "1GB",
        "temp_directory": f"{path}.tmp",
    }
    con = duckdb.connect(config=settings)
    try:
        mode = "READ_ONLY" if read_only else "READ_WRITE"
        con.execute("SET enable_progress_bar = false")  # where Python has no script, DuckDB draws one on stdout
        con.execute(f"ATTACH {quoted(path)} AS log ({mode}, ROW_GROUP_SIZE {ROW_GROUP_ROWS})")
        con.execute("USE log")
    except BaseException:
        con.close()
        raise
    return con


def quoted(path: Path) -> str:
    """A path as SQL text."""
    return "'" + str(path).replace("'", "''") + "'"


def create(path: Path, gx: str, ts: int) -> None:
    """Make the file under another name and rename it; `ts` (µs) is the time of its first event.

    :raises LogError: if it can't be written.
    """
    new = path.with_name(path.name + ".new")
    remove(new)
    body = LogOpened(format=FORMAT, gx=gx)
    data = encode_body(body).decode()
    try:
        with contextlib.closing(attach(new)) as con:
            con.begin()
            define(con)
            insert_event(con, schema.row_of(schema.GENESIS, 0, uuid.uuid4(), ts, "log", body, data))
            con.commit()
            con.execute("CHECKPOINT")
        move_into_place(new, path)
    except (duckdb.Error, OSError) as error:
        raise explain(error, path) from error


def define(con: duckdb.DuckDBPyConnection) -> None:
    """Make the tables, triggers and views."""
    for statement in (*schema.TABLES, *schema.TRIGGERS, *schema.create_views()):
        con.execute(statement)


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
    sync(new)
    new.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk. Not for a DuckDB file that this process has open."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
