"""Records on stdout: JSON lines, chosen parts of them, bare lines, or a table on a terminal; and in a file besides.

Bytes are exact where stdout is no terminal. On a terminal nothing that a model wrote is obeyed by it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gx import output
from gx.cli import selecting
from gx.cli.selecting import bare, bare_row, path_of

if TYPE_CHECKING:
    from gx.node.client import Started
    from gx.run.record import Record

SelectOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--select",
        metavar="FIELD",
        help="Print this part of the output: a dotted path; .id and such for the record's own.",
    ),
]
RawOpt = Annotated[
    bool, typer.Option("--raw", "-r", help="Bare lines, as jq -r: strings without quotes; several fields with tabs.")
]
TeeOpt = Annotated[
    Path | None,
    typer.Option("--tee", metavar="FILE", help="Append whole records to this file too, each once.", dir_okay=False),
]


ROW_CHARS = 16
"""Hexadecimal digits of the digest of a row: 64 bits tell the rows of any file apart."""


class Style(msgspec.Struct, frozen=True, kw_only=True):
    """What of a record is printed, and how. `select` are paths; with none, the record, or its output if `is_raw`."""

    with_input: bool = False
    select: tuple[selecting.Path, ...] = ()
    is_raw: bool = False
    tee: Path | None = None

    @property
    def needs_input(self) -> bool:
        """Whether a record is made with the row's own fields."""
        return self.with_input or any(p.is_of_record and p.parts[0] == "input" for p in self.select)


def style_of(*, with_input: bool, select: list[str] | None, raw: bool, tee: Path | None) -> Style:
    """What the flags say. :raises UsageError: if a path is none."""
    return Style(with_input=with_input, select=tuple(map(path_of, select or ())), is_raw=raw, tee=tee)


class Printer:
    """Writes records as a style says. :raises GxError: if the file besides can't be written."""

    def __init__(self, style: Style) -> None:
        from gx.cli.table import StreamedTable
        from gx.cli.tee import Tee

        self._style = style
        is_table = not style.is_raw and not output.wants_json()
        self._table = StreamedTable(sys.stdout) if is_table else None
        self._tee = None if style.tee is None else Tee(style.tee)
        self._out = output.data_out()
        self._is_told = not style.select
        self.is_writing = False

    def show(self, records: list[Record], started: Started) -> None:
        """Write the records; a batch file's rows get batch lines. :raises OSError: nobody reads, or a disk is full."""
        self.is_writing = True
        try:
            self._write(records, started)
        finally:
            self.is_writing = False

    def _write(self, records: list[Record], started: Started) -> None:
        style = self._style
        if self._tee is not None:
            self._tee.write([_kept(record, started, with_input=style.with_input) for record in records])
        if self._table is not None:
            rows = [record.as_dict(with_input=style.needs_input) for record in records]
            self._table.write([self._chosen(row) for row in rows] if style.select else rows)
        elif style.is_raw or style.select:
            shown = [self._line(record.as_dict(with_input=style.needs_input)) for record in records]
            self._put("".join(line + "\n" for line in shown).encode("utf-8", "surrogatepass"))
        else:
            made = (_row(record, started, with_input=style.with_input) for record in records)  # with logprobs, large
            self._put(b"".join(msgspec.json.encode(row) + b"\n" for row in made))

    def _put(self, lines: bytes) -> None:
        self._out.write(lines)
        self._out.flush()

    def _line(self, row: dict[str, Any]) -> str:
        value = self._selected(row)
        if not self._style.is_raw:
            return msgspec.json.encode(value).decode()
        return bare_row(list(value.values())) if len(self._style.select) > 1 else bare(value)

    def _chosen(self, row: dict[str, Any]) -> dict[str, Any]:
        """The record with what was selected for its output, as a table shows it."""
        value = self._selected(row)
        paths = self._style.select
        return row if "error" in row else row | {"output": value if len(paths) > 1 else {paths[0].text: value}}

    def _selected(self, row: dict[str, Any]) -> Any:
        if not self._is_told and "output" in row:
            self._is_told = True
            self._tell_missing(row)
        return selecting.selected(row, self._style.select)

    def _tell_missing(self, row: dict[str, Any]) -> None:
        """Say of the first output which paths it doesn't have: a mistyped one is null in every line."""
        made = row["output"]
        missing = [p.text for p in self._style.select if selecting.selected(row, [p]) is None]
        has = f"it has {', '.join(made)}" if isinstance(made, dict) and made else "it is no object"
        if missing:
            output.note(f"note: --select: the first output has no {', '.join(missing)}: {has}")


def _row(record: Record, started: Started, *, with_input: bool) -> dict[str, Any]:
    is_batch = record.task.is_batch
    return record.as_batch(model=started.model) if is_batch else record.as_dict(with_input=with_input)


def _kept(record: Record, started: Started, *, with_input: bool) -> dict[str, Any]:
    """The record as a file keeps it, beside those of other inputs: with a digest of its row, if there is one.

    A batch line stays as its format has it, and names its request.
    """
    row = _row(record, started, with_input=with_input)
    read = record.task.input or record.task.item
    return row if record.task.is_batch or read is None else row | {"row": read[:ROW_CHARS]}
