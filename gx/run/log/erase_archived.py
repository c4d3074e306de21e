"""Removing the content of an archived run from the disk, at somebody's wish: from its archive, and from the log.

The events of the archive and their chain stay. What another run also refers to, archived or not, or a memory, is kept
and counted.
The invariant: the log says that the content was erased before any of it goes from an archive, so that after a crash
the log still verifies, and erasing again takes the rest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from gx.core.errors import LogError, NotFound
from gx.core.event import ContentErased, LogArchived, Ref
from gx.run.log import schema
from gx.run.log.archive import DIGESTS, archives_of, file_of, open_archives
from gx.run.log.erase import ErasedReport, live_refs, rewrite
from gx.run.log.eventlog import EventLog
from gx.run.log.faults import explain
from gx.run.log.making import quoted, sync


def erase_archived(log: EventLog, run: str, *, now: Callable[[], float] = time.time) -> ErasedReport:
    """Erase the content of an archived run, by its whole id, and close `log`: its file is another one afterwards.

    `log` is open for writing, and no run is live in it.
    :raises NotFound: if no such run is archived. :raises LogError: if something can't be written.
    """
    archives = archives_of(log)
    if not log.file.ask("SELECT 1 FROM archived WHERE run = ? LIMIT 1", [run]):
        raise NotFound(f"there is no archived run {run}", hint="`gx runs` lists the runs")
    with open_archives(log.folder, archives) as archived:
        own = _refs(archived, "run = ?", [run])
        needing = "run <> ? AND NOT list_contains(?::VARCHAR[], run)"
        others = _refs(archived, needing, [run, erased := _erased_runs(log)])
        others |= _refs(log, f"{needing} AND run IN (SELECT run FROM runs)", [run, erased]) | live_refs(log).keys()
        there = archived.sizes(own) | log.sizes(own)
    gone = {ref: size for ref, size in there.items() if ref not in others}
    kept = dict.fromkeys(there.keys() - gone.keys(), "another run")
    tail, path, folder = log.file.tail(), log.file.path, log.folder
    log.close()
    if gone:
        body = ContentErased(blobs=tuple(sorted(gone)), subject=run, run=run)
        rewrite(path, without=gone, body=body, tail=tail, ts=max(tail.ts, int(now() * 1e6)))
        EventLog.open(folder).close()  # brings the head file up to the new event
        _remove(folder, archives, sorted(gone))
    return ErasedReport(
        subject=run, seq=tail.seq + bool(gone), blobs=len(gone), size_bytes=sum(gone.values()), kept=kept
    )


def archived_run(log: EventLog, start: str) -> str:
    """The whole id of the archived run that starts so. :raises NotFound: unless there is just one."""
    found = (
        log.file.ask("SELECT DISTINCT run FROM archived WHERE starts_with(run, ?) ORDER BY ALL", [start])
        if archives_of(log)
        else []
    )
    exact = [run for (run,) in found if run == start]
    if len(exact or found) != 1:
        raise NotFound(
            f"there is no run or task {start}, nor one archived run", hint="`gx runs` lists the runs, archived or not"
        )
    return exact[0] if exact else str(found[0][0])


def _erased_runs(log: EventLog) -> list[str]:
    """The runs that were erased as a whole: what they shared with others, they need no more."""
    sql = "SELECT DISTINCT run FROM events WHERE type = 'content.erased' AND task IS NULL AND run IS NOT NULL"
    return [run for (run,) in log.file.ask(sql)]


def _refs(source: EventLog, where: str, values: list[Any]) -> set[Ref]:
    sql = f"SELECT DISTINCT {DIGESTS} FROM events WHERE {where} AND type <> 'content.erased'"
    return {ref for (ref,) in source.file.ask(sql, values)}


def _remove(folder: Path, archives: Sequence[LogArchived], gone: list[Ref]) -> None:
    """Write the content of the archives anew without those digests, a file at a time."""
    for archive in archives:
        for table in ("contents", "parts"):
            path = file_of(folder, archive.name, table)
            new = path.with_name(path.name + ".new")
            names = ", ".join(schema.COPIED[table])
            rest = f"SELECT {names} FROM read_parquet({quoted(path)}) WHERE digest NOT IN (SELECT ref FROM gone)"
            try:
                with contextlib.closing(duckdb.connect()) as con:
                    con.execute("CREATE TABLE gone AS SELECT unnest(?::VARCHAR[]) AS ref", [gone])
                    con.execute(f"COPY ({rest}) TO {quoted(new)} (FORMAT parquet, COMPRESSION zstd)")
                sync(new)
                new.replace(path)
                sync(path.parent)
            except (duckdb.Error, OSError) as error:
                new.unlink(missing_ok=True)
                failure = explain(error, path, writing=True)
                raise LogError(
                    failure.message, hint="erase it again: some is still there", code=failure.code
                ) from error
