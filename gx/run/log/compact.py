"""Moving old runs out of the log's file: into an archive, with a new file that goes on where the old one ended.

The archive takes every event of the old file since the archive before it, so that the chain can be followed through it.
The new file begins with `log.opened`, which names the last hash and takes the next `seq`, and `log.archived`. Before
these it carries, under their own `seq` and hash, the events that somebody still needs: all of the runs that stay, those
of no run that fall in their time, the newest `node.started`, what was erased, what the memory is made from, earlier
archives, and, if results stay, the newest result of each key, so that equal work is answered from the log whatever was
archived. `gx.run.log.verify` compares what is carried with the archives.

The invariant: at any moment the folder holds one whole log, the old or the new. The archive is written, synced and
verified first; the new file is renamed over the old one last. A kill in between leaves an archive that nothing names,
and `gx gc` removes it.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Collection

import duckdb

from gx import __version__
from gx.core import ids
from gx.core.errors import LogError
from gx.core.event import FORMAT, Blob, Body, LogArchived, LogOpened, encode_body
from gx.core.message import Value
from gx.run.log import schema
from gx.run.log.archive import DIGESTS, archives_of, missing, write_archive
from gx.run.log.eventlog import EventLog
from gx.run.log.faults import explain
from gx.run.log.head import Tail
from gx.run.log.making import LOG_FILE, WAL_FILE, attach, define, insert_event, move_into_place, quoted, remove
from gx.run.log.verify import verify_archive

SUMMARY = ("run", "name", "status", "started", "ended", "tasks", "succeeded", "failed", "tokens", "seconds")
"""What the log goes on to say of a run that was archived: columns of the view `runs`."""


class Compacted(Value, frozen=True, kw_only=True):
    """What was archived: `events` in the archive, `carried` go on in the file as well, and
    `results` of these still answer equal work.
    """

    archive: str
    runs: int
    events: int
    carried: int
    results: int


def compact(
    log: EventLog,
    runs: Collection[str],
    *,
    keeps_results: bool = True,
    now: Callable[[], float] = time.time,
) -> Compacted:
    """Archive these runs, all of them ended, and close `log`: its file is another one afterwards.

    `log` is open for writing, and no run is live in it.
    :raises LogError: if an older archive is missing (`log.missing`), or something can't be written; then nothing is
        changed. `log.damaged`: if the archive isn't what the log says.
    """
    older = archives_of(log)
    if gone := missing(log.folder, older):
        raise LogError(
            f"the archive {gone[0].name} is not there", hint="put it back first: `gx verify`", code="log.missing"
        )
    summary = _summary(log, runs)
    path, folder = log.file.path, log.folder
    log.close()
    if path.with_name(WAL_FILE).exists():
        raise LogError(f"{WAL_FILE} could not be folded into {path}", hint="make room, then try again", code="log.full")
    new = path.with_name(LOG_FILE + ".new")
    remove(new)
    try:
        with contextlib.closing(attach(new)) as con:
            con.execute(f"ATTACH {quoted(path)} AS old (READ_ONLY)")
            rows = con.execute("SELECT seq, hash, ts FROM old.events WHERE seq = (SELECT max(seq) FROM old.events)")
            tail = Tail(*rows.fetchall()[0])
            first = older[-1].last + 1 if older else 0
            _choose(con, runs, tail, keeps_results=keeps_results)
            name = write_archive(con, folder, older, first=first, last=tail.seq)
            body = LogArchived(name=name, first=first, last=tail.seq, hash=tail.hash.hex(), runs=summary.digest)
            before = bytes.fromhex(older[-1].hash) if older else schema.GENESIS
            _carry(con)
            _begin(con, tail, body, summary, ts=max(tail.ts, int(now() * 1e6)))
            counts = con.execute(
                "SELECT count(*), count(*) FILTER (type = 'task.succeeded') FROM events WHERE seq <= ?", [tail.seq]
            ).fetchall()[0]
            con.execute("DETACH old")
            con.execute("CHECKPOINT")
        with EventLog.open(folder, read_only=True) as old:
            if found := verify_archive(old, body, before):
                raise LogError(f"the archive {name}: {found[0]}", hint="`gx verify` says more", code="log.damaged")
        move_into_place(new, path)
    except (duckdb.Error, OSError, LogError) as error:
        remove(new)
        raise error if isinstance(error, LogError) else explain(error, path, writing=True) from error
    EventLog.open(folder).close()  # brings the head file up to the new events
    return Compacted(archive=name, runs=len(runs), events=tail.seq - first + 1, carried=counts[0], results=counts[1])


def _summary(log: EventLog, runs: Collection[str]) -> Blob:
    """What is told of the runs from now on."""
    found = log.file.ask(
        f"SELECT {', '.join(SUMMARY)} FROM runs WHERE run = any(?::VARCHAR[]) ORDER BY started", [list(runs)]
    )
    rows = [
        {name: value if value is None or isinstance(value, int | float) else str(value)
         for name, value in zip(SUMMARY, row, strict=True)}
        for row in found
    ]  # fmt: skip
    content = ids.canonical(rows)
    return Blob(digest=ids.digest(content), content=content)


def _choose(con: duckdb.DuckDBPyConnection, runs: Collection[str], tail: Tail, *, keeps_results: bool) -> None:
    """Tables of the runs that go, of the `seq` of each event that is carried, and of the digests that those need."""
    con.execute("CREATE TEMP TABLE gone_runs AS SELECT unnest(?::VARCHAR[]) AS run", [sorted(runs)])
    con.execute(
        "CREATE TEMP TABLE kept_runs AS SELECT DISTINCT run FROM old.events"
        " WHERE type = 'run.created' AND run NOT IN (SELECT run FROM gone_runs)"
    )
    newest = "SELECT max(seq) FROM old.events WHERE type = 'task.succeeded' GROUP BY key"
    con.execute(
        f"""CREATE TEMP TABLE carried AS SELECT seq FROM old.events WHERE run IN (SELECT run FROM kept_runs)
            OR type IN ('log.archived', 'content.erased') OR type LIKE 'memory.%'
            OR (run IS NULL AND type NOT LIKE 'log.%' AND seq >=
                (SELECT coalesce(min(seq), {tail.seq + 1}) FROM old.events WHERE run IN (SELECT run FROM kept_runs)))
            OR seq = (SELECT arg_max(seq, CAST(data->>'$.epoch' AS BIGINT)) FROM old.events
                WHERE type = 'node.started')
            {f"OR seq IN ({newest})" if keeps_results else ""}"""
    )
    con.execute(
        f"""CREATE TEMP TABLE kept_refs AS SELECT DISTINCT ref FROM (
            SELECT {DIGESTS} AS ref FROM old.events WHERE seq IN (SELECT seq FROM carried) AND type <> 'content.erased')
        """
    )


def _carry(con: duckdb.DuckDBPyConnection) -> None:
    """Copy what goes on being needed into the new file."""
    con.begin()
    define(con)
    for table, columns in schema.COPIED.items():
        names = ", ".join(columns)
        kept = "digest IN (SELECT ref FROM kept_refs)" if "digest" in columns else "seq IN (SELECT seq FROM carried)"
        con.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM old.{table} WHERE {kept} ORDER BY seq")


def _begin(con: duckdb.DuckDBPyConnection, tail: Tail, archived: LogArchived, summary: Blob, *, ts: int) -> None:
    """Write the first events of the new file, and what the second one refers to."""
    seq, before = tail.seq, tail.hash
    bodies: list[Body] = [LogOpened(format=FORMAT, gx=__version__, previous=before.hex()), archived]
    for body in bodies:
        seq += 1
        row = schema.row_of(before, seq, uuid.uuid4(), ts, "gc", body, encode_body(body).decode())
        insert_event(con, row)
        before = row[-1]
    for table, rows in (("contents", [schema.content_row(seq, summary)]), ("parts", schema.part_rows(seq, summary))):
        for values in rows:
            con.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)
    con.commit()
