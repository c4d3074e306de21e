"""Paths into files: which there are below them, and the digest of each. It reads bytes, and knows nothing of formats.

Invariant: whoever walks the same files twice gets the same answers in the same order. Only regular files are opened,
and none through a link that stands below a path that was given.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from edge.knowledge.document import Limits, Skipped
from gx.core.errors import InputError
from gx.core.message import Value

PASSED_OVER = frozenset({"node_modules", "__pycache__"})
"""Folders that hold nothing that a person wrote; names that begin with a dot are passed over as well."""


_READ_BYTES = 1 << 20


class Found(Value, frozen=True, kw_only=True):
    """A file that can be read. `path` is absolute; `sha256` is of its bytes, in hex."""

    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str


def found(paths: Iterable[str | Path], limits: Limits) -> Iterator[Found | Skipped]:
    """Each file of the paths, in the order of the paths and of the names below them; once, if it is there twice.

    A given path may be a link, since whoever gave it means what is behind. A link below it is passed over where it
    leads to what is walked anyway, and told where it leads elsewhere or nowhere. What can't be read is told.

    :raises InputError: if a given path doesn't exist, or nobody may look whether it does.
    """
    seen: set[str] = set()
    for given in paths:
        path = Path(given).absolute()
        _check(path)
        root = os.path.realpath(path)
        for one in _walk(root, root, limits):
            if one.path not in seen:
                seen.add(one.path)
                yield one


def _check(path: Path) -> None:
    """:raises InputError: unless there is something at a path."""
    try:
        path.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            hint = "files and folders can be given" + ("; it is a link to nowhere" if path.is_symlink() else "")
            raise InputError(f"there is no file {_shown(str(path))}", hint=hint) from None
        raise InputError(f"{_shown(str(path))} can't be read: {error.strerror or error}") from None


def _walk(path: str, root: str, limits: Limits) -> Iterator[Found | Skipped]:
    try:
        path.encode()
    except UnicodeEncodeError:
        yield Skipped(path=_shown(path), reason="its name is not UTF-8: rename it")
        return
    try:
        kind = os.lstat(path).st_mode
        if stat.S_ISLNK(kind):
            if (why := _leads_out(path, root)) is not None:
                yield Skipped(path=path, reason=why)
        elif stat.S_ISDIR(kind):
            seen = (one for one in Path(path).iterdir() if not one.name.startswith("."))
            inner = (one for one in seen if one.name not in PASSED_OVER)
            for one in sorted(inner, key=lambda one: os.fsencode(one.name)):
                yield from _walk(str(one), root, limits)
        elif stat.S_ISREG(kind):
            yield _hashed(path, limits)
        else:
            yield Skipped(path=path, reason="it is neither a file nor a folder")
    except RecursionError:
        yield Skipped(path=path, reason="its folders are nested too deeply")
    except OSError as error:
        yield Skipped(path=path, reason=f"it can't be read: {error.strerror or error}")


def _hashed(path: str, limits: Limits) -> Found | Skipped:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_size > limits.file_bytes:
            return Skipped(path=path, reason=f"it has {status.st_size:,} bytes; at most {limits.file_bytes:,} are read")
        sha256, size_bytes = hashlib.sha256(), 0
        while chunk := file.read(_READ_BYTES):
            size_bytes += len(chunk)
            if size_bytes > limits.file_bytes:  # it grows while it is read, or never said how long it is
                return Skipped(path=path, reason=f"it has more than {limits.file_bytes:,} bytes")
            sha256.update(chunk)
    return Found(path=path, size_bytes=size_bytes, mtime_ns=status.st_mtime_ns, sha256=sha256.hexdigest())


def _leads_out(path: str, root: str) -> str | None:
    """Why a link is worth a word; `None` if it leads to what is walked anyway."""
    target = os.path.realpath(path)
    if not Path(target).exists():
        return "it is a link to nowhere"
    inside = target == root or target.startswith(root.rstrip(os.sep) + os.sep)
    return None if inside else f"it is a link out of the folder, to {_shown(target)}"


def _shown(path: str) -> str:
    """A path that can be encoded: bytes that are no UTF-8 as `\\xNN`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
