"""Tables: CSV and JSON lines. A row becomes a line that says its columns, so that it means something by itself."""

from __future__ import annotations

import csv
import io
from typing import Any

import msgspec

from edge.knowledge.document import Draft, Unreadable
from edge.knowledge.readers.plain import decode, lines_of

_DELIMITERS = ",;\t|"
_SNIFFED_CHARS = 8192
CELL_CHARS = 1 << 20
"""The longest cell; the csv module has its own limit, of 128 Ki, for the same reason."""


def read_csv(raw: bytes, draft: Draft) -> None:
    """Comma-separated values (RFC 4180), or separated by what the file separates them by; the first row has the names.

    A file of one row is that row.
    """
    text = decode(raw)
    csv.field_size_limit(CELL_CHARS)
    try:
        dialect: Any = csv.Sniffer().sniff(text[:_SNIFFED_CHARS], delimiters=_DELIMITERS)
    except csv.Error:
        dialect = csv.excel  # one column, say
    rows = csv.reader(io.StringIO(text, newline=""), dialect, strict=False)
    try:
        names = next(rows, [])
        n_rows = 0
        for row in rows:
            cells = [(name, cell) for name, cell in zip(names, row, strict=False) if cell.strip()]
            _add_row(cells + [("", cell) for cell in row[len(names) :] if cell.strip()], draft)
            n_rows += 1
    except csv.Error as error:
        raise Unreadable(f"it is broken in line {rows.line_num}: {error}") from None
    if not n_rows:
        _add_row([("", name) for name in names], draft)


def read_json_lines(raw: bytes, draft: Draft) -> None:
    """A JSON value a line; of an object, its fields, and what is nested in them as JSON."""
    decoder = msgspec.json.Decoder()
    for number, line in enumerate(lines_of(decode(raw)), start=1):
        if not line.strip():
            continue
        try:
            value = decoder.decode(line.encode())
        except (msgspec.DecodeError, RecursionError) as error:
            raise Unreadable(f"it is broken in line {number}: {error}") from None
        fields = value.items() if isinstance(value, dict) else [("", value)]
        _add_row([(name, _shown(field)) for name, field in fields if field not in (None, "", [], {})], draft)


def _add_row(cells: list[tuple[str, str]], draft: Draft) -> None:
    told = [f"{name.strip()}: {cell.strip()}" if name.strip() else cell.strip() for name, cell in cells]
    if told:
        draft.add("; ".join(" ".join(cell.split()) for cell in told) + "\n")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
