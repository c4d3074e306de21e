"""Mending a damaged log: what can be had of its WAL, and a head file that fits.

All is done on a copy, in `repair.new`, which is verified before anything is decided; then the files as they were go to
`damaged-TIME`, and the mended one takes their place. An event that DuckDB can read is never dropped. What the main file
lost can't be mended: a backup has it.

What is known of DuckDB's WAL (measured on 2.0.0): it begins with some 40 bytes that say which file, and which
checkpoint of it, it belongs to. A new WAL of a copy of the main file begins with the same bytes, so that a damaged
beginning can be given anew. After it come entries: size, checksum, content. One that doesn't fit is named by its byte,
and all before it can be replayed.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from gx.core.errors import LogError
from gx.core.message import Value
from gx.run.log.archive import ARCHIVE_FOLDER
from gx.run.log.eventlog import EventLog
from gx.run.log.file import LogFile
from gx.run.log.head import HEAD_FILE, Head, read_head
from gx.run.log.making import LOG_FILE, WAL_FILE, attach, move_into_place, sync
from gx.run.log.verify import is_chained, verify

WORK_FOLDER = "repair.new"
DAMAGED = "damaged-"
"""Begins the name of a folder with the files as they were."""
FILES = (LOG_FILE, WAL_FILE, WAL_FILE + ".checkpoint", HEAD_FILE)
_BYTE = re.compile(r"at byte position (\d+)")


class Repair(Value, frozen=True, kw_only=True):
    """What is wrong (`found`), what mends it (`mended`), and what can't be mended (`problems`), as sentences.

    `lost` acknowledged events after `last_seq` are gone; the files as they were are in `copies`, `None` where nothing
    was changed.
    """

    found: tuple[str, ...]
    mended: tuple[str, ...]
    problems: tuple[str, ...]
    events: int
    last_seq: int
    lost: int
    copies: str | None = None


def repair(folder: Path, agrees: Callable[[Repair], bool], *, now: Callable[[], float]) -> Repair:
    """Mend the log in `folder` if somebody `agrees` to what that would do. The caller holds the workspace's lock.

    :raises LogError: `log.missing`; `log.damaged` if the main file can't be read: nothing is changed then.
    """
    if not (folder / LOG_FILE).exists():
        raise LogError(
            f"there is no {LOG_FILE} in {folder}",
            hint="it can't be repaired: copy it there, or a whole backup (`gx backup` makes one)",
            code="log.missing",
        )
    work = folder / WORK_FOLDER
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        _copy(folder, work)
        (work / ARCHIVE_FOLDER).symlink_to(Path("..") / ARCHIVE_FOLDER)
        try:
            planned = _mend(work)
        except LogError as error:
            raise LogError(
                error.message.replace(str(work), str(folder)),
                hint="it can't be repaired, and is as it was: begin from a backup, in its place or with --workspace",
                code=error.code,
            ) from error
        if not planned.mended or not agrees(planned):
            return planned
        copies = _copies(folder, now())
        _copy(folder, copies)
        move_into_place(work / LOG_FILE, folder / LOG_FILE)  # with an old WAL beside it, it is still mended alike
        _remove_wal(folder)
        (work / HEAD_FILE).replace(folder / HEAD_FILE)
        sync(folder)
        return Repair(**{name: getattr(planned, name) for name in planned.__struct_fields__} | {"copies": str(copies)})
    except OSError as error:
        raise LogError(f"the repair stopped: {error}", hint="make room, then try again", code="log.write") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _mend(work: Path) -> Repair:
    """Mend the copy in `work`, so far as it can be."""
    found: list[str] = []
    mended: list[str] = []
    head = read_head(work)
    (work / HEAD_FILE).unlink(missing_ok=True)  # it is compared below
    _mend_wal(work, head, found, mended)
    with EventLog.open(work) as log:
        report = verify(log)
        at_head = log.file.ask("SELECT hash FROM events WHERE seq = ?", [head.seq]) if head is not None else []
    if head is None:
        found.append(f"{HEAD_FILE} is missing, or can't be read")
    elif head.seq > report.last_seq:
        found.append(f"the log ends at event {report.last_seq}, and event {head.seq} was acknowledged")
    elif at_head and at_head[0][0].hex() != head.hash:
        found.append(f"{HEAD_FILE} names another event {head.seq} than the log has, whose chain of hashes decides")
    elif head.seq < report.last_seq:
        found.append(f"{HEAD_FILE} is {report.last_seq - head.seq} events behind, as after a kill")
    if found:
        mended.append(f"{HEAD_FILE} is written anew: the log goes on after event {report.last_seq}")
    return Repair(
        found=tuple(found),
        mended=tuple(mended),
        problems=report.problems,
        events=report.events,
        last_seq=report.last_seq,
        lost=max(0, head.seq - report.last_seq) if head is not None else 0,
    )


def _mend_wal(work: Path, head: Head | None, found: list[str], mended: list[str]) -> None:
    """Make the WAL one that DuckDB replays, with as many of its entries as possible."""
    wal = work / WAL_FILE
    whole = wal.read_bytes() if wal.exists() else b""
    if whole and (header := _header_of(work)) and not whole.startswith(header):
        before = _tail(work)
        wal.write_bytes(header + whole[len(header) :])
        cut, after = _cut(work)
        if after > before and _is_chained(work):  # DuckDB would replay another log's entries, too
            found.append(f"the first {len(header)} bytes of {WAL_FILE} are not those that belong to this {LOG_FILE}")
            mended.append(f"they are given anew: events up to {after} are read, instead of {max(before, 0)}")
            _tell_cut(len(whole), cut, found, mended)
            return
        wal.write_bytes(whole)
    cut, after = _cut(work)
    if cut is not None:
        _tell_cut(len(whole), cut, found, mended)
    elif not whole and head is not None and after < head.seq:
        found.append(f"{WAL_FILE} is missing")


def _tell_cut(size: int, cut: int | None, found: list[str], mended: list[str]) -> None:
    if cut == 0:
        found.append(f"{WAL_FILE} can't be read, or belongs to another file")
        mended.append("it is left out")
    elif cut is not None:
        found.append(f"{WAL_FILE} is damaged at byte {cut:,} of {size:,}")
        mended.append(f"it is cut there: what stands before is read, and {size - cut:,} bytes are left out")


def _cut(work: Path) -> tuple[int | None, int]:
    """Shorten the WAL until DuckDB can replay it; where it was cut, and the last event that there is then.

    It is given up (0) where no byte is named. :raises LogError: if the main file can't be read.
    """
    wal, cut = work / WAL_FILE, None
    while True:
        try:
            return cut, _read_tail(work)
        except LogError as error:
            size = wal.stat().st_size if wal.exists() else 0
            if not size or "WAL" not in error.message:
                raise
            found = _BYTE.search(error.message)
            cut = int(found[1]) if found and int(found[1]) < size else 0
            if cut == 0:
                wal.unlink()
            else:
                with wal.open("r+b") as opened:
                    opened.truncate(cut)


def _tail(work: Path) -> int:
    """The last event that the files give as they are; -1 if they give none."""
    try:
        return _read_tail(work)
    except LogError:
        return -1


def _is_chained(work: Path) -> bool:
    try:
        with EventLog.open(work, read_only=True) as log:
            return is_chained(log)
    except LogError:
        return False


def _read_tail(work: Path) -> int:
    file = LogFile(work, read_only=True)
    try:
        file.connect()
        return file.tail().seq
    finally:
        file.close()


def _header_of(work: Path) -> bytes:
    """How a WAL of the main file begins: the beginning of the one that a copy of it gets. Empty if it gets none."""
    other = work / "header" / LOG_FILE
    other.parent.mkdir()
    try:
        shutil.copyfile(work / LOG_FILE, other)
        with contextlib.closing(attach(other)) as con:
            con.execute("CREATE TABLE log.anything(a INTEGER)")
            content = other.with_name(WAL_FILE).read_bytes()
        return next((content[:end] for end in range(8, 128) if are_entries(content[end:])), b"")
    except (duckdb.Error, OSError):
        return b""
    finally:
        shutil.rmtree(other.parent, ignore_errors=True)


def are_entries(content: bytes) -> bool:
    """Whether these are whole entries, one after the other: eight bytes of size, eight of checksum, the content."""
    place = 0
    while place + 16 <= len(content):
        place += 16 + int.from_bytes(content[place : place + 8], "little")
    return 0 < place == len(content)


def _remove_wal(folder: Path) -> None:
    """Remove the WAL of a log that nobody has open."""
    for name in (WAL_FILE, WAL_FILE + ".checkpoint"):
        (folder / name).unlink(missing_ok=True)


def _copies(folder: Path, now: float) -> Path:
    """A new folder for the files as they were."""
    stem = DAMAGED + datetime.fromtimestamp(now, UTC).strftime("%Y%m%d-%H%M%S")
    names = (stem, *(f"{stem}-{n}" for n in range(2, 1000)))
    place = next(folder / name for name in names if not (folder / name).exists())
    place.mkdir(mode=0o700)
    return place


def _copy(folder: Path, target: Path) -> None:
    for name in FILES:
        if (folder / name).exists():
            shutil.copy2(folder / name, target / name)
            sync(target / name)
    sync(target)
