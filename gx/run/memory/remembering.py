"""What is written to the log for a memory, and what the log says of the memory: events to changes, in order.

It reads and makes events and blobs, and knows nothing of how memories are kept or searched. The log is the truth: the
same events give the same changes, whenever they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gx.core import memorycheck
from gx.core.errors import UsageError
from gx.core.event import Blob, Event, MemoryForgotten, MemoryModelled, MemoryWritten, Ref, Remembered, decode_body
from gx.core.memory import Change, Chosen, Draft, Drop, Mark, Memory, Put, Source, says, uid_of
from gx.run.contents import blob_of
from gx.run.log import EventLog

MOST_AT_ONCE = 64
"""Memories of one event: DuckDB decompresses 2,048 rows to give one, so no row may be large."""
PAGE = 2_000 // MOST_AT_ONCE
"""Events that are read at once."""
_TYPES = "type IN ('memory.written', 'memory.forgotten', 'memory.modelled')"


def written(drafts: Sequence[Draft], *, by: str, now: float) -> tuple[list[MemoryWritten], list[Blob]]:
    """The events that have these remembered, and their blobs. Of two that are the same, the later one counts."""
    noted: dict[str, Remembered] = {}
    blobs: dict[Ref, Blob] = {}
    for draft in drafts:
        source = draft.source
        body = blob_of(draft.body.encode(), draft.label)
        heading = blob_of(source.heading.encode(), draft.label) if source.heading else None
        blobs.update({blob.digest: blob for blob in (body, heading) if blob is not None})
        uid = uid_of(draft)
        noted[uid] = Remembered(
            uid=uid,
            namespace=draft.namespace,
            kind=draft.kind,
            body=body.digest,
            at=now if draft.at is None else draft.at,
            label=draft.label,
            by=source.by,
            path=source.path,
            ordinal=source.ordinal,
            heading=None if heading is None else heading.digest,
            page=source.page,
            run=source.run,
            task=source.task,
            sha256=source.sha256,
        )
    listed = list(noted.values())
    starts = range(0, len(listed), MOST_AT_ONCE)
    return [MemoryWritten(memories=tuple(listed[n : n + MOST_AT_ONCE]), by=by) for n in starts], list(blobs.values())


def check_parts(namespace: str, paths: Sequence[str], drafts: Sequence[Draft]) -> None:
    """:raises UsageError: if a draft can't be remembered, or is no part of a document at one of `paths`."""
    memorycheck.check_namespace(namespace)
    for draft in drafts:
        memorycheck.check_draft(draft)
        source = draft.source
        if draft.namespace != namespace or source.path not in paths or not source.sha256 or source.ordinal is None:
            raise UsageError(
                f"expected a part of a document in {namespace}, got one of {source.path[:200]!a} in {draft.namespace}",
                hint="a part has the path of its document, its number in it, and the SHA-256 of the document's bytes",
            )


def changed(
    before: Sequence[str], drafts: Sequence[Draft], known: Mapping[str, Memory]
) -> tuple[list[Draft], list[str]]:
    """Which drafts are to be written in place of the memories `before`, and which of these are to be forgotten."""
    by_uid = {uid_of(draft): draft for draft in drafts}
    fresh = [draft for uid, draft in by_uid.items() if uid not in known or not says(known[uid], draft)]
    return fresh, [uid for uid in before if uid not in by_uid]


def forgotten(uids: Sequence[str], *, by: str) -> list[MemoryForgotten]:
    """The events that have these forgotten."""
    starts = range(0, len(uids), MOST_AT_ONCE)
    return [MemoryForgotten(uids=tuple(uids[n : n + MOST_AT_ONCE]), by=by) for n in starts]


def changes_of(event: Event, contents: dict[Ref, str]) -> list[Change]:
    """What an event changes; `contents` has what its memories say. One whose body was erased is not there any more."""
    match event.body:
        case MemoryWritten(memories=memories):
            return [
                Put(_memory(one, event.seq, contents), one.body)
                for one in memories
                if one.body in contents and (one.heading is None or one.heading in contents)
            ]
        case MemoryForgotten(uids=uids):
            return [Drop(uid) for uid in uids]
        case MemoryModelled(name=name, model=model, dimensions=dimensions):
            return [Chosen(name, model, dimensions)]
        case _:
            return []


def replayed(
    log: EventLog, *, after: int = -1, in_hand: Mapping[Ref, str] | None = None
) -> Iterator[tuple[list[Change], Mark]]:
    """What the log says of the memory after an event, in order, and how far that goes.

    What was forgotten later is never brought up, so that a file that is made of it holds nothing of that. `in_hand` is
    what whoever just wrote to the log still has of the contents: these aren't read from there again.
    """
    gone: dict[str, int] | None = None
    for page, is_last in _pages(log, after):
        events = [event for _, event in page]
        if gone is None:
            gone = _last_forgotten(events if is_last else _forgettings(log, after))
        memories = [one for event in events if isinstance(event.body, MemoryWritten) for one in event.body.memories]
        kept = {ref for one in memories for ref in (one.body, one.heading) if ref is not None}
        texts = {ref: in_hand[ref] for ref in kept if ref in in_hand} if in_hand else {}
        texts.update((ref, content.decode()) for ref, content in log.blobs(kept - texts.keys()).items())
        found: list[Change] = []
        for event in events:
            found += [
                change
                for change in changes_of(event, texts)
                if not (isinstance(change, Put) and gone.get(change.memory.uid, -1) > event.seq)
            ]
        mark, last = page[-1]
        yield found, Mark(last.seq, mark)


def hash_at(log: EventLog, seq: int) -> bytes | None:
    """The hash of the event of the memory at `seq`; `None` if there is none, and a mark there is of another log."""
    rows = log.file.ask(f"SELECT hash FROM events WHERE seq = ? AND {_TYPES}", [seq])
    return bytes(rows[0][0]) if rows else None


def is_any(log: EventLog, upto: int) -> bool:
    """Whether anything was ever remembered, up to that event."""
    return bool(log.file.ask(f"SELECT 1 FROM events WHERE {_TYPES} AND seq <= ? LIMIT 1", [upto]))


def _pages(log: EventLog, after: int) -> Iterator[tuple[list[tuple[bytes, Event]], bool]]:
    """Events of the memory with their hashes, in order, and whether nothing follows."""
    sql = f"SELECT seq, ts, source, data, hash FROM events WHERE seq > ? AND {_TYPES} ORDER BY seq LIMIT {PAGE}"
    is_last = False
    while not is_last and (rows := log.file.ask(sql, [after])):
        is_last = len(rows) < PAGE
        page = [
            (bytes(hash), Event(seq=seq, ts=ts, source=source, body=decode_body(data)))
            for seq, ts, source, data, hash in rows
        ]
        yield page, is_last
        after = rows[-1][0]


def _forgettings(log: EventLog, after: int) -> Iterator[Event]:
    """The events after that one by which something was forgotten, in order."""
    sql = "SELECT seq, ts, source, data FROM events WHERE type = 'memory.forgotten' AND seq > ? ORDER BY seq"
    for seq, ts, source, data in log.file.ask(sql, [after]):
        yield Event(seq=seq, ts=ts, source=source, body=decode_body(data))


def _last_forgotten(events: Iterable[Event]) -> dict[str, int]:
    """When each memory was last forgotten, of those that were."""
    return {uid: one.seq for one in events if isinstance(one.body, MemoryForgotten) for uid in one.body.uids}


def _memory(one: Remembered, seq: int, contents: dict[Ref, str]) -> Memory:
    source = Source(
        by=one.by,
        path=one.path,
        ordinal=one.ordinal,
        heading="" if one.heading is None else contents[one.heading],
        page=one.page,
        run=one.run,
        task=one.task,
        sha256=one.sha256,
    )
    return Memory(
        uid=one.uid,
        namespace=one.namespace,
        kind=one.kind,
        body=contents[one.body],
        at=one.at,
        seq=seq,
        label=one.label,
        source=source,
    )
