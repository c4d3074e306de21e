"""What stands in a workspace's folder, and how much room each part of it takes.

It knows names and sizes, and reads no file. What it has no name for is "other", and nobody's to remove.
"""

from __future__ import annotations

import os
from pathlib import Path

from gx.core.message import Value
from gx.node.start import LOG_FILE as NODE_LOG
from gx.run.log.archive import ARCHIVE_FOLDER, NEW
from gx.run.log.head import HEAD_FILE
from gx.run.log.making import LOG_FILE
from gx.run.log.repair import DAMAGED, WORK_FOLDER

_BESIDE = (".wal", ".wal.checkpoint", ".wal.recovery")
"""Ends of the names that DuckDB 2.0.0 gives to what belongs to a database file; what a question spills is in `.tmp`."""
_LOG = (*(LOG_FILE + end for end in ("", *_BESIDE)), HEAD_FILE)
_LEFT = (*(f"{LOG_FILE}.new{end}" for end in ("", *_BESIDE, ".tmp")), LOG_FILE + ".tmp", WORK_FOLDER)
_SALVAGE = "salvage-"
"""How older versions named the copies of a damaged log."""


class Part(Value, frozen=True, kw_only=True):
    """A part of the folder: what it is, in how many files, and the bytes of them."""

    part: str
    files: int
    bytes: int


def footprint(folder: Path) -> list[Part]:
    """The parts of the folder, the biggest first."""
    sizes: dict[str, list[int]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        sizes.setdefault(part_of(path.name), []).extend(_sizes(path))
    parts = [Part(part=name, files=len(found), bytes=sum(found)) for name, found in sizes.items()]
    return sorted(parts, key=lambda part: (-part.bytes, part.part))


def part_of(name: str) -> str:
    """Which part of a workspace a name in its folder belongs to."""
    if name in _LOG:
        return "log"
    if name in _LEFT:
        return "leftovers"
    if name == ARCHIVE_FOLDER:
        return "archives"
    if name.startswith((DAMAGED, _SALVAGE)):
        return "damaged copies"
    if name.startswith("memory.db"):
        return "memory"
    if name == NODE_LOG:
        return "node log"
    return "other"


def leftovers(folder: Path) -> list[Path]:
    """What something that was killed left behind. The caller holds the workspace's lock: nobody is at work on it."""
    found = [path for path in folder.iterdir() if part_of(path.name) == "leftovers"]
    archives = folder / ARCHIVE_FOLDER
    return sorted([*found, *(archives.glob("*" + NEW) if archives.is_dir() else ())])


def aged(folder: Path, part: str, before: float) -> list[Path]:
    """What belongs to that part and was not changed since `before` (wall-clock seconds)."""
    return sorted(path for path in folder.iterdir() if part_of(path.name) == part and path.stat().st_mtime < before)


def bytes_of(path: Path) -> int:
    """The size of a file, or of all in a folder."""
    return sum(_sizes(path))


def _sizes(path: Path) -> list[int]:
    """The sizes of the file, or of all files below it."""
    if path.is_symlink() or not path.is_dir():
        return [path.lstat().st_size]
    return [(Path(place) / name).lstat().st_size for place, _, names in os.walk(path) for name in names]
