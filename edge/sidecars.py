"""What lies beside NAME.gguf: its note, its lock, and the part of it that is on its way.

NAME.gguf.json says what the model is, NAME.gguf.lock lets one process at a time write it, NAME.gguf.part holds what
came of it so far, and NAME.gguf.part.json how to resume that.

This file knows bytes on a disk. It doesn't know HTTP, nor what a source means, nor which models there are. The
invariant: each of these files can be made again, so one that can't be read counts as not there; a note is seen whole
or not at all.

ModelError codes: model.busy.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gx.core.errors import ModelError

MAGIC = b"GGUF"  # the first bytes of every version: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
CHUNK_BYTES = 1 << 20

T = TypeVar("T")


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """What lies beside a model, for people and for `list_local`."""

    sha256: str
    size_bytes: int
    source: str
    licence: str


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the server said of the whole file. `etag` is a strong one, as If-Range demands (RFC 9110, 13.1.5)."""

    url: str
    sha256: str
    etag: str | None
    total_bytes: int | None


class Part:
    """The bytes of a download so far: NAME.part, the sha256 of what is in it, and what was told of the whole.

    Invariant: the hash covers exactly the `done_bytes` bytes in the file; what an earlier process left is hashed anew.
    """

    def __init__(self, target: Path, url: str) -> None:
        self.path, self._note = beside(target, ".part"), beside(target, ".part.json")
        self.told = read_json(self._note, Told)
        self.has_answer = False
        self._file = self.path.open("a+b")
        self._hash, self._head, self.done_bytes = hashlib.sha256(), b"", 0
        if self.told is None or self.told.url != url:
            self.restart()
        self._file.seek(0)
        while chunk := self._file.read(CHUNK_BYTES):
            self._count(chunk)

    @property
    def is_complete(self) -> bool:
        """Whether these are all the bytes that the server announced."""
        return self.told is not None and self.told.total_bytes == self.done_bytes

    @property
    def can_be_gguf(self) -> bool:
        """Whether the bytes so far can be the beginning of a GGUF file."""
        return MAGIC.startswith(self._head)

    def restart(self) -> None:
        """Forget all bytes, and what was told of them."""
        self._file.truncate(0)
        self._hash, self._head, self.done_bytes, self.told = hashlib.sha256(), b"", 0, None

    def learn(self, told: Told) -> None:
        """Note what the whole is, so that a later process can go on."""
        if told != self.told:
            write_json(self._note, told)
        self.told = told

    def append(self, chunk: bytes) -> None:
        """Add the bytes that come next."""
        self._file.write(chunk)
        self._count(chunk)

    def sha256(self) -> str:
        """The digest of all bytes, once they are safe on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._hash.hexdigest()

    def delete(self) -> None:
        """Take the file and its note off the disk."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file; one without a byte is deleted."""
        self._file.close()
        if not self.done_bytes:
            self.delete()

    def _count(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self._head = (self._head + chunk[: len(MAGIC)])[: len(MAGIC)]
        self.done_bytes += len(chunk)


@contextlib.contextmanager
def lock(target: Path, *, is_waiting: bool) -> Iterator[None]:
    """The right to write `target`, held by one thread of one process; the kernel frees it when its holder dies."""
    with beside(target, ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if is_waiting else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ModelError(f"{target.name} is being downloaded by another process", code="model.busy") from None
        yield


def beside(path: Path, ending: str) -> Path:
    """The file beside `path` with this ending (`.json`, `.lock`, `.part`, `.part.json`)."""
    return path.with_name(path.name + ending)


def read_json(path: Path, kind: type[T]) -> T | None:
    """The file's value; `None` if it is missing or was cut short (each such file can be made again)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def write_json(path: Path, value: Any) -> None:
    """Replaces the file whole. :raises OSError: if it can't be written."""
    draft = beside(path, f".{os.getpid()}-{threading.get_ident()}")
    draft.write_bytes(msgspec.json.encode(value))
    draft.replace(path)
