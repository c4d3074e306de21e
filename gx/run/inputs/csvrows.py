"""CSV with a header to rows: a bad record costs a row, a bad header the input.

RFC 4180 as Python's csv module reads it, strictly. A record is held in memory as a whole, up to the largest row; a
quote that is opened and never closed takes what follows with it up to that size.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

from gx.core.errors import InputError
from gx.core.ids import canonical
from gx.run.inputs.lines import Line
from gx.run.inputs.rows import Read, size_fault, text_fault


def csv_rows(lines: Iterator[Line], *, delimiter: str, max_bytes: int, name: str) -> Iterator[Read]:
    """A row for each record. :raises InputError: if the header repeats a name, leaves one empty or can't be read."""
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))  # one for the process: only ever raised
    feed = _Feed(lines, max_bytes)
    records = csv.reader(feed, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        feed.begin()
        record: list[str] = []
        try:
            record = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            feed.fault = feed.fault or f"malformed CSV: {error}"
        except _TooLargeError:
            feed.fault = size_fault(feed.size, max_bytes)
        if header is None and (feed.fault or record):
            header = _header(record, feed, name)
        elif feed.fault:
            yield Read(feed.line, error=feed.fault)
        elif header is not None and record:
            yield _row(header, record, feed.line)


def _header(record: list[str], feed: _Feed, name: str) -> list[str]:
    if feed.fault:
        raise InputError(f"{name}: expected a header in line {feed.line}: {feed.fault}")
    names = [field.strip() for field in record]
    hint = "the first line names the columns, each once"
    if "" in names:
        raise InputError(
            f"{name}: expected a name for each column, got none for column {names.index('') + 1}", hint=hint
        )
    for number, field in enumerate(names):
        if field in names[:number]:
            raise InputError(f"{name}: expected every column once, got `{field}` twice", hint=hint)
    return names


def _row(header: list[str], record: list[str], line: int) -> Read:
    if len(record) != len(header):
        return Read(line, error=f"expected {len(header)} fields as in the header, got {len(record)}")
    value = dict(zip(header, record, strict=True))
    return Read(line, canonical(value), id=value.get("id") or None)


class _TooLargeError(Exception):
    """A record that outgrew the largest row."""


class _Feed(Iterator[str]):
    """Lines for the csv module, and what was wrong with those of the present record."""

    def __init__(self, lines: Iterator[Line], max_bytes: int) -> None:
        self._lines, self._max_bytes = lines, max_bytes
        self.begin()

    def begin(self) -> None:
        self.line, self.size = 0, 0
        self.fault: str | None = None

    def __next__(self) -> str:
        line = next(self._lines)
        self.line = self.line or line.number
        self.size += line.size + 1
        if line.content is None:
            self.fault = self.fault or size_fault(line.size, self._max_bytes)
            self.size -= line.size
            return "\n"
        if self.size > self._max_bytes + 1:
            raise _TooLargeError
        self.fault = self.fault or text_fault(line.content)
        return line.content.decode("utf-8", "replace").replace("\0", "\ufffd") + "\n"
