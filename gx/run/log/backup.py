"""A copy of the log, made while it is written: a workspace's folder of its own, from which runs go on.

The rows are read by DuckDB and written into another file, since the owner of a log must open none of its files beside
it. Rows are only ever added, and content is written with the events that refer to it, so that all rows up to one `seq`
are the log as it was then, however long the copying takes. The invariant: a backup has its name only when it is whole
and verified.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from gx.core.errors import LogError, UsageError
from gx.core.message import Value
from gx.run.log import schema
from gx.run.log.archive import ARCHIVE_FOLDER, archives_of, missing
from gx.run.log.eventlog import EventLog
from gx.run.log.faults import explain
from gx.run.log.head import HEAD_FILE, Head, Tail
from gx.run.log.making import LOG_FILE, attach, define, sync
from gx.run.log.verify import verify

PAGES = {"events": 10_000, "contents": 1000, "parts": 4000}
"""Rows that are held at a time: some 16 MB at the most."""
CHECKPOINT_PAGES = 50
PREFIX = "gx-backup-"
"""Begins the name of a folder, beside the target, that is to be a backup: one of its own, whoever else makes one."""


class Backup(Value, frozen=True, kw_only=True):
    """The folder, the last event that it has, and how much it is."""

    path: str
    seq: int
    hash: str
    events: int
    blobs: int
    archives: int
    size_bytes: int


def back_up(log: EventLog, target: Path) -> Backup:
    """Copy the log, its head and its archives to the folder `target`, and verify the copy.

    :raises UsageError: if there is something at `target`, or it can be none. :raises LogError: if the copy can't be
        written, isn't whole, or an archive is missing; then there is no copy.
    """
    _check_target(log, target)
    archives = archives_of(log)
    if gone := missing(log.folder, archives):
        raise LogError(f"the archive {gone[0].name} is not there", hint="put it back: `gx verify`", code="log.missing")
    part = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=PREFIX, dir=target.parent))
        upto = log.file.newest
        _copy_rows(log, part / LOG_FILE, upto)
        (part / HEAD_FILE).write_bytes(msgspec.json.encode(Head(upto.seq, upto.hash.hex())).ljust(127) + b"\n")
        for archive in archives:
            place = Path(ARCHIVE_FOLDER) / archive.name
            shutil.copytree(log.folder / place, part / place)
        report = _check(part, upto)
        for path in part.rglob("*"):
            sync(path)
        part.replace(target)
        sync(target.parent)
    except (duckdb.Error, OSError) as error:
        raise explain(error, target, writing=True) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return Backup(path=str(target), archives=len(archives), size_bytes=size, **report)


def _check_target(log: EventLog, target: Path) -> None:
    """:raises UsageError: if no backup can be there."""
    try:
        is_taken = target.exists() and not (target.is_dir() and not any(target.iterdir()))
        is_inside = target.resolve().is_relative_to(log.folder.resolve())
        if "\0" in str(target):
            raise ValueError("a name has no NUL")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"no backup can be at {str(target)[:200]!r}: {why}", hint="name another folder") from None
    if is_taken:
        raise UsageError(f"{target} is there already", hint="a backup overwrites nothing: name another folder")
    if is_inside:
        hint = "it would go with the log, or be taken for a leftover: name a folder elsewhere"
        raise UsageError(f"{target} is within the workspace itself", hint=hint)


def _copy_rows(log: EventLog, new: Path, upto: Tail) -> None:
    """All rows up to an event, page by page: no question stays open while somebody writes."""
    with contextlib.closing(attach(new)) as con:
        define(con)
        for table, columns in schema.COPIED.items():
            names = ", ".join(columns)
            last = log.file.ask(f"SELECT coalesce(max(rowid), -1) FROM {table} WHERE seq <= ?", [upto.seq])[0][0]
            sql = f"SELECT {names} FROM {table} WHERE rowid BETWEEN ? AND ? AND seq <= ? ORDER BY rowid"
            for number, first in enumerate(range(0, last + 1, PAGES[table]), 1):
                appender = con.appender(table, columns=columns)
                appender.append_rows(log.file.ask(sql, [first, first + PAGES[table] - 1, upto.seq]))
                appender.flush()
                if number % CHECKPOINT_PAGES == 0:
                    con.execute("CHECKPOINT")
        con.execute("CHECKPOINT")


def _check(part: Path, upto: Tail) -> dict[str, Any]:
    """Verify the copy; the counts of it. :raises LogError: if it isn't whole."""
    with EventLog.open(part, read_only=True) as copy:
        report = verify(copy)
    if not report.is_whole or report.last_hash != upto.hash.hex():
        why = report.problems[0] if report.problems else f"it ends at event {report.last_seq}, not {upto.seq}"
        raise LogError(
            f"the backup is not whole: {why}",
            hint="`gx verify` says whether the log itself is",
            code="log.damaged",
        )
    return {"seq": report.last_seq, "hash": report.last_hash, "events": report.events, "blobs": report.blobs}
