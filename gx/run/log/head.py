"""The head file beside the log: which event was acknowledged last, so that a log which lost its end is noticed.

It knows one small file. The invariant: it may lag behind the log, and never runs ahead.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import msgspec

from gx.run.log.schema import GENESIS

HEAD_FILE = "log.head"


class Tail(NamedTuple):
    """The last durable event: its `seq`, its hash (32 bytes), its time (µs)."""

    seq: int = -1
    hash: bytes = GENESIS
    ts: int = 0


class Head(msgspec.Struct, frozen=True):
    """What the head file says; `hash` is hex."""

    seq: int
    hash: str


class HeadFile:
    """`log.head` of one folder, as its owner writes it. Any error is passed over: it may lag, the log itself counts."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / HEAD_FILE
        self._fd: int | None = None

    def write(self, tail: Tail) -> None:
        """Overwrite the head in place: no new block is needed, so a full disk can't stop it; a kill can't tear it."""
        with contextlib.suppress(OSError):
            if self._fd is None:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.pwrite(self._fd, msgspec.json.encode(Head(tail.seq, tail.hash.hex())).ljust(127) + b"\n", 0)

    def close(self) -> None:
        """Sync it and let it go."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                os.fsync(fd)
            os.close(fd)


def read_head(folder: Path) -> Head | None:
    """The head file; `None` where there is none that can be read, since it may lag anyway."""
    try:
        return msgspec.json.decode((folder / HEAD_FILE).read_bytes(), type=Head)
    except (OSError, msgspec.DecodeError):
        return None
