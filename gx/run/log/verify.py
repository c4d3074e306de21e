"""Whether a log is whole: its file, its archives, and what was acknowledged.

`verify` recomputes the chain of hashes, through the archives and on through the file, and compares the hot columns with
the bodies, the blobs with their digests, what bodies refer to with what is there, and the tail with the head file. It
changes nothing, and its memory does not grow with the log: events are read in pages. What the file carried over from
before it was archived is compared with the archive, row by row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from gx.core.errors import LogError
from gx.core.event import LogArchived, Ref, decode_body
from gx.core.ids import digest
from gx.core.message import Value
from gx.run.log import schema
from gx.run.log.archive import ARCHIVE_FOLDER, archives_of, missing, open_archives
from gx.run.log.erase import REFERRING, refs_of
from gx.run.log.eventlog import EventLog
from gx.run.log.head import HEAD_FILE, Head, read_head
from gx.run.log.reading import large_blobs_in_turn

PAGE = 10_000
REFS_AT_ONCE = 200_000
"""Refs that are looked up together: each look-up scans all digests."""


class Report(Value, frozen=True, kw_only=True):
    """What was found. `problems` are sentences, the first ones of each kind; `lost` counts acknowledged events.

    `events` are all that ever were, `archived` those of them that are in `archives`; blobs are those of the file.
    """

    events: int
    last_seq: int
    last_hash: str
    blobs: int
    blob_bytes: int
    erased: int
    problems: tuple[str, ...] = ()
    lost: int = 0
    archived: int = 0
    archives: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether every event is there and unchanged."""
        return not self.problems and not self.lost


def verify(log: EventLog) -> Report:
    """Check every row that the log has by now. :raises LogError: if the file can't be read at all."""
    head = read_head(log.folder)  # before the events: while somebody writes, it moves on
    last = int(log.file.ask("SELECT coalesce(max(seq), -1) FROM events")[0][0])
    archives = archives_of(log)
    pass_, beyond = _follow(log, archives, last)
    problems = [*beyond, *pass_.problems(), *_check_blobs(log), *_check_head(log, head, last)]
    blobs, size = log.file.ask("SELECT count(DISTINCT digest), coalesce(sum(size), 0) FROM contents")[0]
    return Report(
        events=last + 1,
        last_seq=last,
        last_hash=pass_.last_hash.hex(),
        blobs=blobs,
        blob_bytes=int(size),
        erased=pass_.erased,
        problems=tuple(problems),
        lost=max(0, head.seq - last) if head is not None else 0,
        archived=archives[-1].last + 1 if archives else 0,
        archives=tuple(archive.name for archive in archives),
    )


def verify_archive(log: EventLog, archive: LogArchived, before: bytes) -> list[str]:
    """What is wrong with an archive that `log` does not name yet; `before` is the hash that it begins after."""
    pass_ = _Pass(log)
    pass_.last_hash, pass_.place = before, archive.first
    return [*_check_archive(log, archive, pass_), *pass_.problems()]


def is_chained(log: EventLog) -> bool:
    """Whether the chain of hashes holds from the first event to the last."""
    last = int(log.file.ask("SELECT coalesce(max(seq), -1) FROM events")[0][0])
    pass_, _ = _follow(log, archives_of(log), last)
    return not pass_.broken


def _follow(log: EventLog, archives: list[LogArchived], last: int) -> tuple[_Pass, list[str]]:
    """A pass over the archives and then the file, and what is wrong with the archives' files."""
    pass_ = _Pass(log)
    found = [problem for archive in archives for problem in _check_archive(log, archive, pass_)]
    pass_.check(log, _first(log), last, previous=archives[-1].hash if archives else None)
    return pass_, found


def _first(log: EventLog) -> int:
    """Where the file begins."""
    rows = log.file.ask("SELECT coalesce(max(seq), 0) FROM events WHERE type = 'log.opened'")
    return int(rows[0][0])


def _check_head(log: EventLog, head: Head | None, last: int) -> list[str]:
    if head is None:
        return [f"{HEAD_FILE} is missing or can't be read, so that a lost end would not be noticed"]
    if head.seq > last:
        return [f"{head.seq - last} events after {last} were acknowledged and are not there"]
    found = log.file.ask("SELECT hash FROM events WHERE seq = ?", [head.seq])
    if found and found[0][0].hex() != head.hash:
        return [f"event {head.seq} is not the one that {HEAD_FILE} names"]
    return []


def _check_archive(log: EventLog, archive: LogArchived, pass_: _Pass) -> list[str]:
    """Follow the chain through an archive; what is wrong with its files."""
    if missing(log.folder, [archive]):
        pass_.last_hash, pass_.place = bytes.fromhex(archive.hash), archive.last + 1
        where = f"{ARCHIVE_FOLDER}/{archive.name}"
        return [f"{where} is missing: events {archive.first} to {archive.last} could not be checked"]
    try:
        with open_archives(log.folder, [archive]) as archived:
            pass_.check(archived, archive.first, archive.last, name=archive.name)
            found = [f"archive {archive.name}: {problem}" for problem in _check_blobs(archived)]
    except LogError as error:
        found = [f"archive {archive.name}: {error.message}"]
    if pass_.last_hash.hex() != archive.hash:
        found.append(f"archive {archive.name} does not end with the hash that its log.archived names")
    pass_.last_hash, pass_.place = bytes.fromhex(archive.hash), archive.last + 1
    return found


class _Found:
    """How many rows have one kind of fault, and the first of them."""

    def __init__(self) -> None:
        self.count = 0
        self.first: int | str = ""

    def add(self, first: int | str, count: int = 1) -> None:
        self.first = self.first if self.count else first
        self.count += count

    def said(self, sentence: str) -> list[str]:
        """The sentence with the count and the first one, if there is any."""
        return [sentence.format(self.count, self.first)] if self.count else []


class _Pass:
    """One pass over all events, in order: through the archives, then through the file `log`."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.last_hash, self.place = schema.GENESIS, 0
        self.erased = 0
        self.broken: list[str] = []  # the chain; after its first break all is broken
        self._unread, self._differ, self._absent, self._carried = _Found(), _Found(), _Found(), _Found()
        self._wanted: dict[Ref, int] = {}  # refs that were not looked up yet, and an event that has each
        self._wanted_anywhere: dict[Ref, int] = {}  # those of events that stand in an archive only
        self._seen_absent: set[Ref] = set()
        self._gone = self._erased_refs()

    def problems(self) -> list[str]:
        return [
            *self.broken,
            *self._unread.said("{} events can't be read, the first is {}"),
            *self._differ.said("{} events have columns that differ from their body, the first is {}"),
            *self._carried.said("{} events differ from what the archive has of them, the first is {}"),
            *self._absent.said("{} blobs that events refer to are missing and were not erased, one is of event {}"),
        ]

    def check(
        self, source: EventLog, first: int, last: int, *, name: str | None = None, previous: str | None = None
    ) -> None:
        """Go on with the events `first` to `last` of a file, or of the archive of that `name`.

        `previous` is the hash that the first one must name as the one before it.
        """
        if first != self.place and not self.broken:
            self.broken.append(f"events {self.place} to {first - 1} are neither in the file nor in an archive")
            self.place = first
        for start in range(first, last + 1, PAGE):
            end = min(start + PAGE - 1, last)
            carried = {row[0]: row for row in _rows(self._log, start, end)} if name is not None else {}
            for row in _rows(source, start, end):
                self._check_row(row, previous if row[0] == first else None)
                copy = carried.pop(row[0], None)
                self._check_body(row, self._wanted if name is None or copy else self._wanted_anywhere)
                if copy not in (None, row):
                    self._carried.add(row[0])
            for seq in carried:
                self._carried.add(seq)
            if len(self._wanted) + len(self._wanted_anywhere) > REFS_AT_ONCE:
                self._look_up()
        if self.place <= last and not self.broken:
            self.broken.append(f"event {self.place} is missing: the archive {name} ends before it")
        self._look_up()

    def _check_row(self, row: tuple[Any, ...], previous: str | None) -> None:
        seq, name, ts, source, data, found, *_ = row
        if self.broken:
            pass
        elif seq != self.place:
            self.broken.append(f"event {self.place} is missing: after {self.place - 1} comes {seq}")
        elif found != schema.link(self.last_hash, seq, name, ts, source, data):
            self.broken.append(f"event {seq} was changed, or one before it: its hash is another one")
        elif previous is not None and f'"previous":"{previous}"' not in data:
            self.broken.append(f"event {seq} opens the file after another hash than the last archive's")
        self.last_hash, self.place = found, seq + 1

    def _check_body(self, row: tuple[Any, ...], wanted: dict[Ref, int]) -> None:
        seq, _, _, _, data, _, *hot = row
        try:
            body = decode_body(data)
        except msgspec.DecodeError:
            self._unread.add(seq)
            return
        if tuple(hot) != (expected := schema.hot_of(body)):
            self._differ.add(seq)
        if expected[0] in REFERRING:
            wanted.update((ref, seq) for ref in refs_of(body) if ref and ref not in self._gone)

    def _look_up(self) -> None:
        """Which of the refs so far are not there."""
        absent = _absent_of(self._log, self._wanted)
        elsewhere = _absent_of(self._log, self._wanted_anywhere)
        if elsewhere and (there := _present(self._log)):
            with open_archives(self._log.folder, there) as archived:
                elsewhere = _absent_of(archived, elsewhere)
        for ref, seq in (absent | elsewhere).items():
            if ref not in self._seen_absent:
                self._seen_absent.add(ref)
                self._absent.add(seq)
        self._wanted, self._wanted_anywhere = {}, {}

    def _erased_refs(self) -> Collection[Ref]:
        rows = self._log.file.ask(
            "SELECT unnest(json_extract_string(data, '$.blobs[*]')) FROM events WHERE type = 'content.erased'"
        )
        self.erased = len(rows)
        return {ref for (ref,) in rows}


def _absent_of(source: EventLog, wanted: dict[Ref, int]) -> dict[Ref, int]:
    """Those refs that have no content there."""
    if not wanted:
        return {}
    sql = "SELECT unnest(?::VARCHAR[]) AS ref EXCEPT SELECT digest FROM contents"
    return {ref: wanted[ref] for (ref,) in source.file.ask(sql, [list(wanted)])}


def _present(log: EventLog) -> list[LogArchived]:
    """The archives that are there."""
    archives = archives_of(log)
    gone = missing(log.folder, archives)
    return [archive for archive in archives if archive not in gone]


def _rows(source: EventLog, first: int, last: int) -> Iterator[tuple[Any, ...]]:
    """The rows of `events` in a range: seq, id, ts, source, data, hash, type and the hot columns."""
    names = ", ".join(("type", *schema.HOT))
    sql = f"SELECT seq, id::VARCHAR, ts, source, data, hash, {names} FROM events WHERE seq BETWEEN ? AND ? ORDER BY seq"
    yield from source.file.ask(sql, [first, last])


def _check_blobs(log: EventLog) -> list[str]:
    """What is wrong with `contents` and `parts`: each whole blob by DuckDB, those in parts here, a few at a time."""
    false, partial = _Found(), _Found()
    count, first = log.file.ask(
        "SELECT count(*), min(digest) FROM contents"
        " WHERE bytes IS NOT NULL AND (digest <> left(sha256(bytes), 32) OR size <> octet_length(bytes))"
    )[0]
    if count:
        false.add(first, count)
    large = log.file.ask("SELECT seq, digest, size FROM contents WHERE bytes IS NULL")
    sizes = {(seq, ref): size for seq, ref, size in large}
    for asked in large_blobs_in_turn(large):
        for (seq, ref), content in log.join_parts(asked).items():
            if len(content) != sizes[seq, ref]:
                partial.add(ref)
            elif digest(content) != ref:
                false.add(ref)
    stray = log.file.ask(
        "SELECT count(*), min(digest) FROM (SELECT DISTINCT seq, digest FROM parts"
        " EXCEPT SELECT seq, digest FROM contents WHERE bytes IS NULL)"
    )[0]
    return [
        *false.said("{} blobs are not what their digest says, one is {}"),
        *partial.said("{} blobs lack parts, one is {}"),
        *([f"parts of {stray[0]} blobs belong to none, one is {stray[1]}"] if stray[0] else []),
    ]
