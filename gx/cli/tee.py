"""`--tee FILE`: records as JSON lines in a file too, each once, however often the run is resumed.

A record is in the file as a whole or not at all: what is printed together is appended by one write, and a record that a
crash left torn is cut off before the next; what else the file ends in stays. A record that the file has, the same row
with the same result, isn't added again; what it took and whether it was answered from the log make no other record of
it. Which row it is, `row` says, a digest of what the row holds: two inputs both have a first row. A batch line has its
`custom_id` instead, and what a run has twice, as of two agents that answer alike, the file has twice. A pipe or a
device is only written to, never read: it may have no end.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from gx.core.errors import UsageError, WorkspaceError

_PASSING = ("usage", "cached", "input")
"""Fields that don't make it another record."""
_OF_A_RUN = ("id", "request_id", "usage")
"""Those of a batch line, in which `custom_id` says the row."""


class Tee:
    """The file at `path`, made if it isn't there, and this process' own until it is closed.

    :raises GxError: if it can't be written, or another gx writes to it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = Counter[int]()  # how often the file has a record that this process hasn't come across yet
        try:
            self._is_regular = not path.exists() or path.is_file()
            self._file = _opened(path, is_regular=self._is_regular)
            if self._is_regular:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._read()
        except BlockingIOError:
            raise WorkspaceError(
                f"--tee: {path} is written by another gx", hint="wait for it, or name another file"
            ) from None
        except OSError as error:
            raise UsageError(f"--tee: expected a file to append to, got {path}: {error.strerror or error}") from None

    def write(self, records: Sequence[dict[str, Any]]) -> None:
        """Append those that the file doesn't have. :raises OSError: naming the file, if it can't be written."""
        lines = []
        for record in records:
            name, is_batch = _name(record), "custom_id" in record
            if self._known[name]:
                self._known[name] -= is_batch  # the next one like it is another one
                continue
            self._known[name] += not is_batch
            lines.append(msgspec.json.encode(record) + b"\n")
        left = memoryview(b"".join(lines))
        before = os.fstat(self._file).st_size
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            if self._is_regular:
                os.ftruncate(self._file, before)  # a full disk took half of it
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def close(self) -> None:
        """Let others write to it."""
        os.close(self._file)

    def _read(self) -> None:
        """Learn what the file has, and cut off a record at its end that was torn, or end its last line."""
        whole = 0
        with open(self._file, "rb", closefd=False) as lines:
            lines.seek(0)
            for line in lines:
                record, is_ended = _record(line), line.endswith(b"\n")
                if not is_ended and record is None and line.startswith(b"{"):
                    os.ftruncate(self._file, whole)
                elif not is_ended:
                    os.write(self._file, b"\n")
                whole += len(line)
                if record is not None:
                    self._known[_name(record)] += 1


def _opened(path: Path, *, is_regular: bool) -> int:
    """The file, to be appended to. :raises OSError: if it can't be opened; a pipe that nobody reads, at once."""
    if is_regular:
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(file, True)
    return file


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _name(record: dict[str, Any]) -> int:
    kept = {name: value for name, value in record.items() if name not in _PASSING}
    kept = _lasting(kept) if "custom_id" in record else kept
    return int.from_bytes(blake2b(msgspec.json.encode(kept, order="sorted"), digest_size=8).digest())


def _lasting(line: dict[str, Any]) -> dict[str, Any]:
    """What of a batch line is the same in each run: see `gx.run.record.Record.as_batch`."""
    return {
        name: _lasting(value) if name in ("response", "body") and isinstance(value, dict) else value
        for name, value in line.items()
        if name not in _OF_A_RUN
    }
