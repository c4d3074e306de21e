"""Records as a table that is written row by row, so that a person sees each result when it comes.

Widths are fixed by the first record and the terminal; a longer cell ends in "…".
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from typing import Any, TextIO

from gx import output

_GAP = "  "
_NARROW = 14
"""Columns of ids and enums; the last one takes what is left."""


class StreamedTable:
    """A table on `stream`; its columns are the fields of the first record's output."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._fields: list[str] | None = None
        self._widths: list[int] = []
        self._is_dim = output.has_colour(stream)

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows, and the header before the first."""
        lines = []
        for row in rows:
            if self._fields is None:
                lines.append(self._begin(row))
            lines.append(self._line([str(row["id"]), *self._cells(row)]))
        self._stream.write("".join(line.rstrip() + "\n" for line in lines))
        self._stream.flush()

    def _begin(self, row: dict[str, Any]) -> str:
        value = row.get("output")
        self._fields = list(value) if isinstance(value, dict) and value else ["output"]
        room = shutil.get_terminal_size().columns - 1 - (_NARROW + len(_GAP)) * len(self._fields)
        self._widths = [_NARROW] * len(self._fields) + [max(room, _NARROW)]
        header = self._line(["id", *self._fields])
        return f"\x1b[1m{header}\x1b[0m" if self._is_dim else header

    def _cells(self, row: dict[str, Any]) -> list[str]:
        if "error" in row:
            return [f"{row['status']}: {row['error']['code']}: {row['error']['message']}"]
        value, fields = row.get("output"), self._fields or []
        if isinstance(value, dict) and fields != ["output"]:
            return [_text(value.get(name)) for name in fields]
        return [_text(value)]

    def _line(self, cells: list[str]) -> str:
        widths = self._widths if len(cells) == len(self._widths) else [_NARROW, sum(self._widths[1:]) + len(_GAP)]
        return _GAP.join(_fit(cell, width) for cell, width in zip(cells, widths, strict=False))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _fit(text: str, width: int) -> str:
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat[: width - 1] + "…" if len(flat) > width else flat.ljust(width)
