"""Removing content at somebody's wish: the blobs go from the disk, the events and their chain stay.

It knows which blobs a body refers to, and how to write the file anew without some of them. What is erased is what the
subject's own events refer to: its row, its prompts, its answers and how likely those were, its failures' details. A
task takes those of its run over the same row with it. What a reduce made of many rows, or another run of this one, must
be erased by its own id; a blob that another task with another key also refers to is kept and counted. Row ids, keys and
error messages stand in events and stay.

The invariant: at any moment the folder holds one whole log, either with the content or without it and with the event
that says so. The new file is written beside the old one and renamed over it.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import duckdb

from gx.core import event as e
from gx.core.errors import LogError, NotFound
from gx.core.event import Body, ContentErased, Ref, encode_body
from gx.core.message import Value
from gx.run.log import schema
from gx.run.log.eventlog import EventLog
from gx.run.log.faults import explain
from gx.run.log.head import Tail
from gx.run.log.making import (
    LOG_FILE,
    WAL_FILE,
    attach,
    define,
    insert_event,
    move_into_place,
    quoted,
    remove,
)

REFERRING = (
    "log.archived",
    "run.created",
    "inputs.read",
    "task.queued",
    "task.prepared",
    "task.succeeded",
    "attempt.failed",
    "rule.fired",
    "rule.failed",
    "memory.written",
)
"""The kinds of events that refer to blobs."""


class ErasedReport(Value, frozen=True, kw_only=True):
    """What was erased. `kept` maps a blob that stayed to a task, or run, outside that refers to it.

    `copies` are folders of earlier repairs, which may hold the content still.
    """

    subject: str
    seq: int
    blobs: int
    size_bytes: int
    kept: dict[Ref, str] = {}
    copies: tuple[str, ...] = ()


def refs_of(body: Body) -> Iterator[Ref]:
    """The blobs that a body refers to."""
    match body:
        case e.RunCreated():
            yield from (ref for ref in (body.recipe, body.params, body.asked) if ref is not None)
        case e.LogArchived():
            yield body.runs
        case e.InputsRead():
            yield from (row.item for row in body.rows if row.item is not None)
        case e.TaskQueued():
            yield from (ref for ref in (body.item, body.input) if ref is not None)
        case e.TaskPrepared():
            yield from (part.content for part in body.prompt)
        case e.TaskSucceeded():
            yield from (ref for ref in (body.output, body.likelihoods) if ref is not None)
        case e.AttemptFailed() if body.detail is not None:
            yield body.detail
        case e.RuleFired():
            yield body.rows
        case e.RuleFailed():
            yield body.detail
        case e.MemoryWritten():
            yield from (ref for one in body.memories for ref in (one.body, one.heading) if ref is not None)
        case _:
            return


def erase(log: EventLog, subject: str, *, now: Callable[[], float] = time.time) -> ErasedReport:
    """Erase the content of a task or a run, by its whole id, and close `log`: its file is another one afterwards.

    `log` is open for writing, and no run is live in it. That a subject was erased is recorded though others need all
    of it still, so that it goes with the last of them. Nothing is changed where nothing is left to erase.
    :raises NotFound: if there is no such task or run. :raises LogError: if the new file can't be written.
    """
    run, where = subject, "run = ?"
    names: str | list[str] = subject
    if not log.has_run(subject):
        found = log.file.ask("SELECT run FROM events WHERE task = ? AND run IS NOT NULL LIMIT 1", [subject])
        if not found:
            raise NotFound(f"there is no task or run {subject}", hint="`gx runs` lists the runs")
        run = found[0][0]
        where, names = "task = any(?::VARCHAR[])", _made_of(log, run, subject)
    wanted, kept, also = _survey(log, where, names)
    wanted |= _seen_by_rules(log, run)
    sizes = dict(
        log.file.ask(
            "SELECT digest, any_value(size) FROM contents WHERE digest IN (SELECT unnest(?::VARCHAR[]))"
            " GROUP BY digest",
            [sorted(wanted)],
        )
    )
    copies = tuple(sorted(path.name for kind in ("salvage-*", "damaged-*") for path in log.folder.glob(kind)))
    if not sizes and (not kept or subject in erased_before(log)):
        return ErasedReport(subject=subject, seq=log.last_seq, blobs=0, size_bytes=0, kept=kept, copies=copies)
    tail, path = log.file.tail(), log.file.path
    log.close()
    if path.with_name(WAL_FILE).exists():
        raise LogError(f"{WAL_FILE} could not be folded into {path}", hint="make room, then try again", code="log.full")
    body = ContentErased(
        blobs=tuple(sorted(sizes)),
        subject=subject,
        run=run,
        task=None if run == subject else subject,
        also=tuple(sorted(also - {run})),
    )
    rewrite(path, without=sizes, body=body, tail=tail, ts=max(tail.ts, int(now() * 1e6)))
    EventLog.open(log.folder).close()  # brings the head file up to the new event
    return ErasedReport(
        subject=subject, seq=tail.seq + 1, blobs=len(sizes), size_bytes=sum(sizes.values()), kept=kept, copies=copies
    )


def erased_before(log: EventLog) -> set[str | None]:
    """The tasks and runs that somebody wished gone: what they shared with others, they need no more."""
    rows = log.file.ask("SELECT DISTINCT coalesce(task, run) FROM events WHERE type = 'content.erased'")
    return {subject for (subject,) in rows}


def _made_of(log: EventLog, run: str, task: str) -> list[str]:
    """The task, and those of its run that work on the same row or on its result, step after step.

    A reduce over many results is not among them: its answer is of all of them.
    """
    sql = "SELECT task, data->>'$.item', data->>'$.input' FROM events WHERE run = ? AND type = 'task.queued'"
    queued = {name: (item, row) for name, item, row in log.file.ask(sql, [run])}
    row = queued[task][1] if task in queued else None
    return [name for name, (_, other) in queued.items() if name == task or (row is not None and other == row)]


def _seen_by_rules(log: EventLog, run: str) -> set[Ref]:
    """What the rules of a run were shown: rows of any of its tasks, and nothing is decided from them again."""
    sql = "SELECT data FROM events WHERE run = ? AND type IN ('rule.fired', 'rule.failed')"
    return {ref for (data,) in log.file.ask(sql, [run]) for ref in refs_of(e.decode_body(data))}


def _survey(log: EventLog, where: str, subject: str | list[str]) -> tuple[set[Ref], dict[Ref, str], set[str]]:
    """What the subject refers to and nobody else needs; what somebody needs, with who; and which runs lose content."""
    own = f"SELECT data FROM events WHERE {where} AND type = any(?::VARCHAR[])"
    wanted = {ref for (data,) in log.file.ask(own, [subject, list(REFERRING)]) for ref in refs_of(e.decode_body(data))}
    keys = {key for (key,) in log.file.ask(f"SELECT DISTINCT key FROM events WHERE {where}", [subject]) if key}
    others: dict[str, set[Ref]] = {}
    runs: dict[str, set[Ref]] = {}
    before = erased_before(log)
    live = live_refs(log)
    for data in outside(log, where, subject):
        body = e.decode_body(data)
        if isinstance(body, e.MemoryWritten):
            for ref in wanted.intersection(refs_of(body)) & live.keys():
                others.setdefault(f"memory {live[ref]}", set()).add(ref)
        elif shared := wanted.intersection(refs_of(body)):
            run = str(getattr(body, "run", ""))
            runs.setdefault(run, set()).update(shared)
            is_needed = before.isdisjoint((run, getattr(body, "task", None)))
            if is_needed and not isinstance(body, e.InputsRead):  # each of its rows is a task's as well, or will be
                others.setdefault(str(getattr(body, "task", None) or run), set()).update(shared)
    their_keys = dict(
        log.file.ask(
            "SELECT task, list(DISTINCT key) FROM events WHERE task = any(?::VARCHAR[]) AND key IS NOT NULL"
            " GROUP BY task",
            [list(others)],
        )
    )
    kept: dict[Ref, str] = {}
    for other, refs in others.items():
        if not keys.intersection(their_keys.get(other, ())):  # an equal key is the same content
            for ref in refs:
                kept.setdefault(ref, other)
    erased = wanted - kept.keys()
    return erased, kept, {run for run, refs in runs.items() if refs & erased}


def live_refs(log: EventLog) -> dict[Ref, str]:
    """What the memories that stand refer to: each blob, and one of them that needs it."""
    sql = "SELECT data FROM events WHERE type IN ('memory.written', 'memory.forgotten') ORDER BY seq"
    live: dict[str, e.Remembered] = {}
    for (data,) in log.file.ask(sql):
        body = e.decode_body(data)
        if isinstance(body, e.MemoryWritten):
            live.update({one.uid: one for one in body.memories})
        elif isinstance(body, e.MemoryForgotten):
            for uid in body.uids:
                live.pop(uid, None)
    return {ref: one.uid for one in live.values() for ref in (one.body, one.heading) if ref is not None}


def outside(log: EventLog, where: str, subject: str | list[str], *, page: int = 20_000) -> Iterator[str]:
    """The bodies, as JSON, of all referring events outside the subject."""
    sql = f"""SELECT data FROM events WHERE seq BETWEEN ? AND ? AND type = any(?::VARCHAR[])
        AND NOT coalesce({where}, false)"""
    for first in range(0, log.last_seq + 1, page):
        for (data,) in log.file.ask(sql, [first, first + page - 1, list(REFERRING), subject]):
            yield data


def rewrite(path: Path, *, without: Collection[Ref], body: ContentErased, tail: Tail, ts: int) -> None:
    """Write the file anew without those blobs and with one event more, then rename it over the old one."""
    new = path.with_name(LOG_FILE + ".new")
    remove(new)
    data = encode_body(body).decode()
    try:
        with contextlib.closing(attach(new)) as con:
            con.execute(f"ATTACH {quoted(path)} AS old (READ_ONLY)")
            con.begin()
            define(con)
            for table, columns in schema.COPIED.items():
                names = ", ".join(columns)
                copy = f"INSERT INTO {table} ({names}) SELECT {names} FROM old.{table}"
                if "digest" in columns:
                    con.execute(f"{copy} WHERE digest NOT IN (SELECT unnest(?::VARCHAR[]))", [sorted(without)])
                else:
                    con.execute(copy)
            insert_event(con, schema.row_of(tail.hash, tail.seq + 1, uuid.uuid4(), ts, "erase", body, data))
            con.commit()
            con.execute("DETACH old")
            con.execute("CHECKPOINT")
        move_into_place(new, path)
    except (duckdb.Error, OSError) as error:
        remove(new)
        raise explain(error, path, writing=True) from error
