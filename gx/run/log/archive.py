"""Archives: stretches of the log as Parquet files in `.gx/archive/`, and how they are asked.

An archive is a folder, named by its first and last `seq`, with the tables of the log as files. It has every event of
its stretch with its hash, so that it can be verified alone, and the content of the runs that went. Archives follow each
other without a gap, and the file follows the last of them: together they hold every event that ever was. A digest
stands in one archive only.

It knows Parquet and nothing of what is archived when. The invariant: an archive has its name only when it is whole, and
is never changed, unless content in it is erased.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import duckdb

from gx.core.errors import LogError
from gx.core.event import LogArchived, decode_body
from gx.run.log import schema
from gx.run.log.eventlog import EventLog
from gx.run.log.faults import explain
from gx.run.log.file import LogFile
from gx.run.log.making import MEMORY, ROW_GROUP_ROWS, quoted, sync

ARCHIVE_FOLDER = "archive"
NEW = ".new"
"""Ends the name of an archive that is being written."""
DIGESTS = "unnest(regexp_extract_all(data, '[0-9a-f]{32}'))"
"""Whatever in a body may be a digest: too many rather than too few, whatever bodies are added."""


def archives_of(log: EventLog) -> list[LogArchived]:
    """The archives that the log names, in order."""
    found = [
        decode_body(data)
        for (data,) in log.file.ask("SELECT data FROM events WHERE type = 'log.archived' ORDER BY seq")
    ]
    return [body for body in found if isinstance(body, LogArchived)]


def missing(folder: Path, archives: Sequence[LogArchived]) -> list[LogArchived]:
    """Those of which a file is not in the workspace's `folder`."""
    return [one for one in archives if not all(file_of(folder, one.name, table).exists() for table in schema.COPIED)]


def unnamed(log: EventLog) -> list[Path]:
    """Archives that the log does not name, because the archiving was killed, and of which it has the last event.

    Those of which it hasn't are somebody's: of a log that went on further than this one.
    """
    named = {archive.name for archive in archives_of(log)}
    found = []
    for place in sorted((log.folder / ARCHIVE_FOLDER).glob("*-*")):
        last = place.name.rpartition("-")[2]
        if place.name in named or place.name.endswith(NEW) or not last.isdecimal():
            continue
        body = LogArchived(name=place.name, first=0, last=int(last), hash="", runs="")
        try:
            with open_archives(log.folder, [body]) as archived:
                is_ours = log.file.ask("SELECT hash FROM events WHERE seq = ?", [int(last)]) == [(archived.last_hash,)]
        except LogError:
            continue
        if is_ours:
            found.append(place)
    return found


def open_archives(folder: Path, archives: Sequence[LogArchived]) -> EventLog:
    """The archives of the workspace in `folder` as one log, for reading; it needs no lock, for none ever changes.

    :raises LogError: `log.missing`, if one isn't there; `log.damaged`.
    """
    if gone := missing(folder, archives):
        raise LogError(
            f"the archive {gone[0].name} is not in {folder / ARCHIVE_FOLDER}",
            hint="put it back, from a backup or where it was moved to",
            code="log.missing",
        )
    file = _ArchivedFile(folder, archives)
    try:
        file.connect()
        file.newest = file.tail()
    except BaseException:
        file.close()
        raise
    return EventLog(file, now=time.time)


class _ArchivedFile(LogFile):
    """Archives in place of a file: the same tables and views, made of Parquet."""

    def __init__(self, folder: Path, archives: Sequence[LogArchived]) -> None:
        super().__init__(folder, read_only=True)
        self.path = folder / ARCHIVE_FOLDER
        self._archives = archives

    def connect(self) -> None:
        """Open an empty database with views of the files. :raises LogError: if they can't be read."""
        con = duckdb.connect(config={"memory_limit": MEMORY, "threads": min(4, os.cpu_count() or 1)})
        try:
            con.execute("ATTACH ':memory:' AS log; USE log; SET TimeZone = 'UTC'")
            for table in schema.COPIED:
                files = ", ".join(quoted(file_of(self.folder, one.name, table)) for one in self._archives)
                rowid = "(file_index::BIGINT << 40) + file_row_number AS rowid"  # as a table has it
                con.execute(f"CREATE VIEW {table} AS SELECT *, {rowid} FROM read_parquet([{files}])")
            for statement in schema.create_views():
                con.execute(statement)
            con.execute(f"SET allowed_directories = [{quoted(self.path)}]; SET enable_external_access = false")
            con.execute("SET allowed_configs = ['memory_limit']; SET lock_configuration = true")
        except duckdb.Error as error:
            con.close()
            raise explain(error, self.path) from error
        self._con = con


def write_archive(
    con: duckdb.DuckDBPyConnection, folder: Path, older: Sequence[LogArchived], *, first: int, last: int
) -> str:
    """Write the events `first` to `last` of the database "old" with their content; the archive's name.

    The tables `gone_runs` and `kept_refs` of `con` have the runs that go, and the digests that the log goes on to
    need. Content that none of them names is taken along: nothing is dropped that was never erased.
    :raises duckdb.Error: if it can't be written. :raises OSError: as well.
    """
    name = f"{first}-{last}"
    place = folder / ARCHIVE_FOLDER / name
    new = place.with_name(name + NEW)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True, mode=0o700)
    con.execute("CREATE OR REPLACE TEMP TABLE taken_refs AS SELECT DISTINCT digest FROM old.contents")
    own = f"SELECT {DIGESTS} FROM old.events WHERE run IN (SELECT run FROM gone_runs)"
    con.execute(f"DELETE FROM taken_refs WHERE digest IN (SELECT ref FROM kept_refs) AND digest NOT IN ({own})")
    if older:
        files = ", ".join(quoted(file_of(folder, one.name, "contents")) for one in older)
        con.execute(f"DELETE FROM taken_refs WHERE digest IN (SELECT digest FROM read_parquet([{files}]))")
    taken = "digest IN (SELECT digest FROM taken_refs)"
    chosen = {"events": f"seq BETWEEN {first} AND {last}", "contents": taken, "parts": taken}
    for table, columns in schema.COPIED.items():
        names = ", ".join(columns)
        order = "seq, digest, part" if "part" in columns else "seq"
        file = new / f"{table}.parquet"
        con.execute(
            f"COPY (SELECT {names} FROM old.{table} WHERE {chosen[table]} ORDER BY {order}) TO {quoted(file)}"
            f" (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS})"
        )
        sync(file)
    sync(new)
    if place.exists():  # the log does not name it, but another one may: one that this was restored from
        place.rename(
            next(aside for n in range(1, 1000) if not (aside := place.with_name(f"{name}.aside-{n}")).exists())
        )
    new.rename(place)
    sync(place.parent)
    sync(folder)
    return name


def file_of(folder: Path, name: str, table: str) -> Path:
    """The file of a table in the archive of that name."""
    return folder / ARCHIVE_FOLDER / name / f"{table}.parquet"
