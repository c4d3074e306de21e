"""Text files as rows, one a file: of a folder and the folders in it, or of a glob. Hidden ones are left alone."""

from __future__ import annotations

import glob
import hashlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gx.core.errors import InputError
from gx.core.ids import canonical
from gx.run.inputs.lines import utf8
from gx.run.inputs.rows import Read, size_fault, text_fault
from gx.run.inputs.source import Source, file_digest, format_of

_LOOK_BYTES = 8192


class Found(NamedTuple):
    """A file: its path, its id (the name within the folder), and its path as the user would write it."""

    path: Path
    id: str
    shown: str


def find_files(spec: str, path: Path, base_dir: Path, *, is_folder: bool) -> list[Found]:
    """The files of the folder at `path`, or of the glob `spec`, in order of their names.

    :raises InputError: if there are none, or none of them looks like text.
    """
    if is_folder:
        names = list(_walk(path, spec))
        found = [Found(path / name, readable(name), readable(f"{spec.rstrip('/')}/{name}")) for name in names]
    elif _is_file(path):
        found = [Found(path, readable(path.name), readable(spec))]
    else:
        found = _globbed(spec, base_dir)
    if not found:
        hint = "quote a glob, so that the shell leaves it alone" if not is_folder else "hidden files are left out"
        raise InputError(f"expected text files, got none: {spec}", hint=hint)
    if not any(_looks_like_text(file.path) for file in found):
        raise InputError(f"expected text files, got {len(found):,} that are binary or can't be read: {spec}")
    return found


class FilesSource(Source):
    """Rows {id, path, text}, one a file."""

    def __init__(self, name: str, files: list[Found], max_row_bytes: int) -> None:
        super().__init__()
        self._name, self._files, self._max = name, files, max_row_bytes

    def digest(self) -> str | None:
        """The digest of all names and contents."""
        whole = hashlib.sha256()
        for file in self._files:
            try:
                content = file_digest(file.path).digest()
            except OSError:  # it will be a failed row
                content = b"unreadable"
            whole.update(file.id.encode() + b"\0" + content)
        return whole.hexdigest()[:32]

    def describe(self) -> str:
        count = len(self._files)
        return f"{self._name} ({count:,} file{'s' if count != 1 else ''})"

    def _reads(self) -> Iterator[Read]:
        if all(format_of(file.path) in ("jsonl", "json", "csv", "tsv") for file in self._files):
            self.warnings.append(f"each file of {self._name} is one row, as text; name one file to read its own rows")
        for file in self._files:
            yield _read_file(file, self._max)


def _read_file(file: Found, max_bytes: int) -> Read:
    try:
        with file.path.open("rb") as stream:
            raw = stream.read(max_bytes + 1)
            size = os.fstat(stream.fileno()).st_size
    except OSError as error:
        return Read(None, error=f"expected a file that can be read, got: {error.strerror or error}", id=file.id)
    if len(raw) > max_bytes:
        return Read(None, error=size_fault(max(size, len(raw)), max_bytes), id=file.id)
    content = utf8(io.BytesIO(raw)).read()
    if fault := text_fault(content):
        return Read(None, error=fault, id=file.id)
    return Read(None, canonical({"id": file.id, "path": file.shown, "text": content.decode()}), id=file.id)


def _walk(root: Path, spec: str) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{spec}: expected a folder that can be read, got: {error.strerror or error}")

    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner = Path(folder).relative_to(root)
        for name in sorted(names):
            if not name.startswith(".") and _is_file(Path(folder) / name):
                yield (inner / name).as_posix()


def _globbed(spec: str, base_dir: Path) -> list[Found]:
    pattern = str(Path(spec).expanduser()) if spec.startswith("~/") else spec
    parts = Path(pattern).parts
    fixed = Path(*parts[: next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)])
    try:
        names = sorted(glob.glob(pattern, root_dir=base_dir, recursive=True))  # noqa: PTH207 (a Path takes no root)
    except (OSError, ValueError, RecursionError, re.error) as error:
        raise InputError(f"expected a glob, got {spec!r}: {error}") from None
    files = [(name, base_dir / name) for name in names]
    return [
        Found(path, readable(Path(name).relative_to(fixed).as_posix()), readable(name))
        for name, path in files
        if _is_file(path)
    ]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a place that may not be looked at
        return False


def readable(name: str) -> str:
    """A file's name as text, even where it isn't UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def _looks_like_text(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            head = utf8(stream).read(_LOOK_BYTES)
    except OSError:
        return False
    head = head[:-3] if len(head) == _LOOK_BYTES else head  # a character may be cut at the end
    return text_fault(head) is None or text_fault(head[:-1]) is None
