"""Whether a log is whole, and what can be had from one that is not.

`verify` recomputes the chain of hashes, compares the hot columns with the bodies, the blobs with their digests and the
tail with the head file; it changes nothing. `salvage` first copies everything aside, then cuts a damaged WAL at the
entry that DuckDB can't read, so that every event before it is back. It never drops an event of the main file.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from gx.core.errors import LogError
from gx.core.message import Value
from gx.run.log import schema
from gx.run.log.eventlog import EventLog
from gx.run.log.file import HEAD_FILE, LOG_FILE, WAL_FILE, LogFile, read_head

PAGE = 10_000

_TEXTS = ("type", "run", "task", "worker", "key", "attempt")
_HOT_DIFFERS = (
    f"[{', '.join(f'{name}::VARCHAR' for name in _TEXTS)}] IS DISTINCT FROM"
    f" json_extract_string(data, [{', '.join(repr('$.' + name) for name in _TEXTS)}])"
)


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
    """Check every row of the log. :raises LogError: if the file can't be read at all."""
    problems, seq, before = _check_chain(log)
    changed = log.file.ask(f"SELECT count(*), min(seq) FROM events WHERE {_HOT_DIFFERS}")[0]
    if changed[0]:
        problems.append(f"{changed[0]} events have columns that differ from their body, the first is {changed[1]}")
    false = log.file.ask("SELECT count(*), min(digest) FROM blobs WHERE digest <> left(sha256(bytes), 32)")[0]
    if false[0]:
        problems.append(f"{false[0]} blobs are not what their digest says, one is {false[1]}")
    head = read_head(log.folder)
    if head is not None and head.seq > seq:
        problems.append(f"{head.seq - seq} events after {seq} were acknowledged and are not there")
    blobs, size = log.file.ask("SELECT count(DISTINCT digest), coalesce(sum(octet_length(bytes)), 0) FROM blobs")[0]
    erased = log.file.ask(
        "SELECT coalesce(sum(json_array_length(data, '$.blobs')), 0) FROM events WHERE type = 'content.erased'"
    )[0][0]
    return Report(
        events=seq + 1,
        last_seq=seq,
        last_hash=before.hex(),
        blobs=blobs,
        blob_bytes=int(size),
        erased=int(erased),
        problems=tuple(problems),
        lost=max(0, head.seq - seq) if head is not None else 0,
    )


def _check_chain(log: EventLog) -> tuple[list[str], int, bytes]:
    """The first break of the chain, the last `seq` that is there, and its hash."""
    problems: list[str] = []
    before, place = schema.GENESIS, 0
    end = log.file.ask("SELECT max(seq) FROM events")[0][0]
    sql = "SELECT seq, id::VARCHAR, ts, source, data, hash FROM events WHERE seq BETWEEN ? AND ? ORDER BY seq"
    for first in range(0, end + 1, PAGE):
        for seq, name, ts, source, data, found in log.file.ask(sql, [first, first + PAGE - 1]):
            if seq != place and not problems:
                problems.append(f"event {place} is missing: after {place - 1} comes {seq}")
            if found != schema.link(before, seq, name, ts, source, data) and not problems:
                problems.append(f"event {seq} was changed, or one before it: its hash is another one")
            before, place = found, seq + 1
    return problems, end, before


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
