"""Removing from the disk what forgotten memories said.

That a memory is forgotten is an event, and nobody finds it from then on; what it said goes from the log's file when
nobody writes that, since the file is written anew for it. The invariant: what a memory that stands refers to, or a run,
is kept; the rest of what was forgotten goes, whenever it was, and the log says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gx.core import event as e
from gx.core.errors import LogError
from gx.core.event import ContentErased, Ref
from gx.run.log.erase import ErasedReport, erased_before, live_refs, outside, refs_of, rewrite
from gx.run.log.eventlog import EventLog
from gx.run.log.making import WAL_FILE

SUBJECT = "memory"


def erase_forgotten(log: EventLog, *, now: Callable[[], float] = time.time) -> ErasedReport | None:
    """Erase what forgotten memories said and `log` holds still, and close it: its file is another one afterwards.

    `None`, and it stays open, where nothing is left to erase. `log` is open for writing, and no run is live in it.
    :raises LogError: if the new file can't be written.
    """
    if not log.file.ask("SELECT 1 FROM events WHERE type = 'memory.forgotten' LIMIT 1"):
        return None
    kept: dict[Ref, str] = {}
    if sizes := _left(log):
        kept = _needed(log, set(sizes))
        sizes = {ref: size for ref, size in sizes.items() if ref not in kept}
    if not sizes:
        return None
    tail, path, folder = log.file.tail(), log.file.path, log.folder
    log.close()
    if path.with_name(WAL_FILE).exists():
        raise LogError(f"{WAL_FILE} could not be folded into {path}", hint="make room, then try again", code="log.full")
    body = ContentErased(blobs=tuple(sorted(sizes)), subject=SUBJECT)
    rewrite(path, without=sizes, body=body, tail=tail, ts=max(tail.ts, int(now() * 1e6)))
    EventLog.open(folder).close()  # brings the head file up to the new event
    return ErasedReport(subject=SUBJECT, seq=tail.seq + 1, blobs=len(sizes), size_bytes=sum(sizes.values()), kept=kept)


def _left(log: EventLog) -> dict[Ref, int]:
    """What only forgotten memories refer to, of all memories, and the log has still: with its bytes."""
    sql = "SELECT data FROM events WHERE type = 'memory.written'"
    ever = {ref for (data,) in log.file.ask(sql) for ref in refs_of(e.decode_body(data))}
    return dict(
        log.file.ask(
            "SELECT digest, any_value(size) FROM contents WHERE digest = any(?::VARCHAR[]) GROUP BY digest",
            [sorted(ever - live_refs(log).keys())],
        )
    )


def _needed(log: EventLog, refs: set[Ref]) -> dict[Ref, str]:
    """Those of `refs` that a task or a run refers to which nobody wished gone, and which."""
    before, found = erased_before(log), dict[Ref, str]()
    for data in outside(log, "type = ?", "memory.written"):
        body = e.decode_body(data)
        owner = getattr(body, "task", None) or getattr(body, "run", None)
        if before.isdisjoint((getattr(body, "run", None), getattr(body, "task", None))):
            found.update(dict.fromkeys(refs.intersection(refs_of(body)), str(owner)))
    return found
