"""Whether a log is whole, and what can be had from one that is not.

`verify` recomputes the chain of hashes and compares the hot columns with the bodies, the blobs with their digests, what
bodies refer to with what is there, and the tail with the head file; it changes nothing. `salvage` first copies
everything aside, then cuts a damaged WAL at the entry that DuckDB can't read, so that every event before it is back. It
never drops an event of the main file.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from pathlib import Path

import msgspec

from gx.core.errors import LogError
from gx.core.event import Ref, decode_body
from gx.core.ids import digest
from gx.core.message import Value
from gx.run.log import schema
from gx.run.log.erase import REFERRING, refs_of
from gx.run.log.eventlog import EventLog
from gx.run.log.file import LogFile
from gx.run.log.head import HEAD_FILE, read_head
from gx.run.log.making import LOG_FILE, WAL_FILE
from gx.run.log.reading import large_blobs_in_turn

PAGE = 10_000
REFS_AT_ONCE = 200_000
"""Refs that are looked up together: each look-up scans all digests."""


class Report(Value, frozen=True, kw_only=True):
    """What was found. `problems` are sentences, the first ones of each kind; `lost` counts acknowledged events.

    `copies` is the folder that a salvage copied the files to.
    """

    events: int
    last_seq: int
    last_hash: str
    blobs: int
    blob_bytes: int
    erased: int
    problems: tuple[str, ...] = ()
    lost: int = 0
    copies: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every event is there and unchanged."""
        return not self.problems and not self.lost


def verify(log: EventLog) -> Report:
    """Check every row that the log has by now. :raises LogError: if the file can't be read at all."""
    head = read_head(log.folder)  # before the events: while somebody writes, it moves on
    events = _Events(log)
    events.check()
    problems = [*events.problems(), *_check_blobs(log)]
    if head is not None and head.seq > events.last_seq:
        problems.append(
            f"{head.seq - events.last_seq} events after {events.last_seq} were acknowledged and are not there"
        )
    blobs, size = log.file.ask("SELECT count(DISTINCT digest), coalesce(sum(size), 0) FROM contents")[0]
    return Report(
        events=events.last_seq + 1,
        last_seq=events.last_seq,
        last_hash=events.last_hash.hex(),
        blobs=blobs,
        blob_bytes=int(size),
        erased=events.erased,
        problems=tuple(problems),
        lost=max(0, head.seq - events.last_seq) if head is not None else 0,
    )


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


class _Events:
    """One pass over `events`, in order."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.last_seq = int(log.file.ask("SELECT coalesce(max(seq), -1) FROM events")[0][0])
        self.last_hash = schema.GENESIS
        self.erased = 0
        self._broken: list[str] = []  # the chain; after its first break all is broken
        self._unread, self._differ = _Found(), _Found()
        self._wanted: dict[Ref, int] = {}  # refs that were not looked up yet, and an event that has each
        self._absent: dict[Ref, int] = {}
        self._gone = self._erased_refs()

    def problems(self) -> list[str]:
        absent = f"{len(self._absent)} blobs that events refer to are missing and were not erased, one is of event "
        return [
            *self._broken,
            *self._unread.said("{} events can't be read, the first is {}"),
            *self._differ.said("{} events have columns that differ from their body, the first is {}"),
            *([absent + str(min(self._absent.values()))] if self._absent else []),
        ]

    def check(self) -> None:
        names = ", ".join(("type", *schema.HOT))
        sql = f"""SELECT seq, id::VARCHAR, ts, source, data, hash, {names} FROM events
            WHERE seq BETWEEN ? AND ? ORDER BY seq"""
        place = 0
        for first in range(0, self.last_seq + 1, PAGE):
            for seq, name, ts, source, data, found, *hot in self._log.file.ask(
                sql, [first, min(first + PAGE - 1, self.last_seq)]
            ):
                if seq != place and not self._broken:
                    self._broken.append(f"event {place} is missing: after {place - 1} comes {seq}")
                if found != schema.link(self.last_hash, seq, name, ts, source, data) and not self._broken:
                    self._broken.append(f"event {seq} was changed, or one before it: its hash is another one")
                self.last_hash, place = found, seq + 1
                self._check_body(seq, data, tuple(hot))
            if len(self._wanted) > REFS_AT_ONCE:
                self._look_up()
        self._look_up()

    def _check_body(self, seq: int, data: str, hot: tuple[object, ...]) -> None:
        try:
            body = decode_body(data)
        except msgspec.DecodeError:
            self._unread.add(seq)
            return
        if hot != (expected := schema.hot_of(body)):
            self._differ.add(seq)
        if expected[0] in REFERRING:
            self._wanted.update((ref, seq) for ref in refs_of(body) if ref and ref not in self._gone)

    def _look_up(self) -> None:
        """Which of the refs so far are not there."""
        sql = "SELECT unnest(?::VARCHAR[]) AS ref EXCEPT SELECT digest FROM contents"
        for (ref,) in self._log.file.ask(sql, [list(self._wanted)]):
            self._absent.setdefault(ref, self._wanted[ref])
        self._wanted = {}

    def _erased_refs(self) -> Collection[Ref]:
        rows = self._log.file.ask(
            "SELECT unnest(json_extract_string(data, '$.blobs[*]')) FROM events WHERE type = 'content.erased'"
        )
        self.erased = len(rows)
        return {ref for (ref,) in rows}


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


_BYTE = re.compile(r"at byte position (\d+)")


def salvage(folder: Path) -> Report:
    """Make a damaged log usable again, as far as it can be read, after copying its files into `salvage-N`.

    No other process may use the log. A log without damage is only copied and verified.
    :raises LogError: `log.locked`; `log.missing`; `log.damaged` if the main file itself can't be read.
    """
    if not (folder / LOG_FILE).exists():
        raise LogError(f"there is no {LOG_FILE} in {folder}", hint="put a copy of it there", code="log.missing")
    copies = _copy_aside(folder)
    head = read_head(folder)
    _cut_wal(folder)
    (folder / HEAD_FILE).unlink(missing_ok=True)
    with EventLog.open(folder) as log:
        report = verify(log)
    lost = max(0, head.seq - report.last_seq) if head is not None else 0
    return Report(
        events=report.events,
        last_seq=report.last_seq,
        last_hash=report.last_hash,
        blobs=report.blobs,
        blob_bytes=report.blob_bytes,
        erased=report.erased,
        problems=report.problems,
        lost=lost,
        copies=str(copies),
    )


def _copy_aside(folder: Path) -> Path:
    number = 1
    while (target := folder / f"salvage-{number}").exists():
        number += 1
    target.mkdir(mode=0o700)
    for name in (LOG_FILE, WAL_FILE, WAL_FILE + ".checkpoint", HEAD_FILE):
        if (folder / name).exists():
            shutil.copy2(folder / name, target / name)
    return target


def _cut_wal(folder: Path) -> None:
    """Shorten the WAL until DuckDB can replay it; give it up where it belongs to another file."""
    wal = folder / WAL_FILE
    while True:
        file = LogFile(folder, read_only=True)
        try:
            file.connect()
            file.tail()
            return
        except LogError as error:
            size = file.wal_bytes()
            if error.code != "log.damaged" or not size or "WAL" not in error.message:
                raise
            found = _BYTE.search(error.message)
            keep = int(found[1]) if found else 0
            if keep == 0 or keep >= size:
                wal.unlink()
            else:
                with wal.open("r+b") as opened:
                    opened.truncate(keep)
        finally:
            file.close()
