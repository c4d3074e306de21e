"""One stream of rows, from a file or from stdin: its format, its rows, its digest."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import msgspec

from gx.core.errors import InputError
from gx.run.inputs.csvrows import csv_rows
from gx.run.inputs.jsonarray import UnclosedError, elements
from gx.run.inputs.lines import Line, lines, rejoined, utf8
from gx.run.inputs.rowids import RowIds
from gx.run.inputs.rows import Read, Row, json_row, text_row

FORMATS = {
    "jsonl": "JSON lines",
    "json": "a JSON array",
    "csv": "CSV",
    "tsv": "tab-separated values",
    "lines": "plain lines",
    "files": "text files",
}
_SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json-lines": "jsonl", ".jsonlines": "jsonl", ".json": "json",
    ".csv": "csv", ".tsv": "tsv", ".txt": "lines",
}  # fmt: skip


def format_of(path: Path) -> str | None:
    """The format that a file's name says; `None` if it says none."""
    return _SUFFIXES.get(path.suffix.lower())


class Source(ABC):
    """Rows, wherever they are from. `warnings` fills while they are read."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def rows(self) -> Iterator[Row]:
        """The rows in order, from the first. :raises InputError: if the input as a whole can't be read on."""
        self.warnings.clear()
        ids = RowIds()
        for index, read in enumerate(self._reads()):
            brought = read.id if read.id is not None else str(index)
            row_id = ids.unique(brought)
            if row_id != brought and ids.repeats == 1:
                place = f" in line {read.line}" if read.line is not None else ""
                self.warnings.append(
                    f"the id {brought!r} comes again{place}: it and later repeats run as {row_id!r} and so on"
                )
            yield Row(
                index=index, line=read.line, id=row_id, value=read.value, error=read.error, is_batch=read.is_batch
            )

    @abstractmethod
    def digest(self) -> str | None:
        """The digest of the content as 32 hex digits; `None` where it can be read only once."""

    @abstractmethod
    def describe(self) -> str:
        """What is read, in a few words."""

    @abstractmethod
    def _reads(self) -> Iterator[Read]: ...


class StreamSource(Source):
    """A stream that can be read once: stdin, or a pipe."""

    def __init__(self, stream: BinaryIO, name: str, fmt: str | None, max_row_bytes: int) -> None:
        super().__init__()
        self._stream, self._name, self._fmt, self._max = stream, name, fmt, max_row_bytes
        self._is_read = False

    def digest(self) -> str | None:
        return None

    def describe(self) -> str:
        return f"{self._name} ({FORMATS[self._fmt]})" if self._fmt else self._name

    def _reads(self) -> Iterator[Read]:
        if self._is_read:
            raise InputError(f"{self._name} can be read only once")
        self._is_read = True
        try:
            yield from read_rows(self._stream, self._fmt, self._max, self._name)
        except OSError as error:
            raise InputError(f"{self._name} can't be read on: {error.strerror or error}") from None


class FileSource(Source):
    """One file, read anew each time."""

    def __init__(self, path: Path, name: str, fmt: str | None, max_row_bytes: int) -> None:
        super().__init__()
        self._path, self._name, self._fmt, self._max = path, name, fmt, max_row_bytes

    def digest(self) -> str | None:
        try:
            return file_digest(self._path).hexdigest()[:32]
        except OSError as error:
            raise self._unreadable(error) from None

    def describe(self) -> str:
        return f"{self._name} ({FORMATS[self._fmt]})" if self._fmt else self._name

    def probe(self) -> None:
        """Read as far as the first row. :raises InputError: if that can't be done."""
        next(self._reads(), None)

    def _reads(self) -> Iterator[Read]:
        try:
            with self._path.open("rb") as stream:
                yield from read_rows(stream, self._fmt, self._max, self._name)
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError) -> InputError:
        return InputError(f"{self._name}: expected a file that can be read, got: {error.strerror or error}")


def file_digest(path: Path) -> hashlib._Hash:
    """SHA-256 of a file's content, read in pieces of 1 MiB. :raises OSError: if it can't be read."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256")


def read_rows(stream: BinaryIO, fmt: str | None, max_bytes: int, name: str) -> Iterator[Read]:
    """The rows of a stream. `fmt` `None` looks at the first line: a JSON object begins JSON lines, else plain ones."""
    text = utf8(stream)
    if fmt == "json":
        yield from _json(text, max_bytes)
        return
    found = lines(text, max_bytes)
    if fmt in ("csv", "tsv"):
        yield from csv_rows(found, delimiter="," if fmt == "csv" else "\t", max_bytes=max_bytes, name=name)
        return
    if fmt is None:
        fmt, found = _sniffed(found)
    to_row = json_row if fmt == "jsonl" else text_row
    for line in found:
        if line.content is None or line.content.strip():
            yield to_row(line, max_bytes)


def _sniffed(found: Iterator[Line]) -> tuple[str, Iterator[Line]]:
    seen: list[Line] = []
    for line in found:
        if line.content is None:
            seen.append(line)  # too long to look at: the next one may tell
        elif line.content.strip():
            return "jsonl" if line.content.lstrip().startswith(b"{") else "lines", chain(seen, [line], found)
    return "lines", iter(seen)


def _json(stream: BinaryIO, max_bytes: int) -> Iterator[Read]:
    """An array row by row; another value as the only row; JSON lines if it is neither."""
    line, first = 1, stream.read(1)
    while first and first.isspace():
        line += first == b"\n"
        first = stream.read(1)
    if first == b"[":
        try:
            for element in elements(stream, max_bytes, line=line):
                yield json_row(element, max_bytes)
        except UnclosedError as error:
            yield Read(error.line, error=error.message)
        return
    head = first + stream.read(max_bytes)
    rest = stream.read(1)
    if not rest and _is_json(head):
        yield json_row(Line(line, head, len(head)), max_bytes)
        return
    for found in lines(rejoined(head + rest, stream), max_bytes):
        if found.content is None or found.content.strip():
            yield json_row(found._replace(number=found.number + line - 1), max_bytes)


def _is_json(content: bytes) -> bool:
    try:
        msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    return True
