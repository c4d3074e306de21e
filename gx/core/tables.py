"""Rows and columns, as a question to the log is answered."""

from __future__ import annotations

from typing import Any

from gx.core.message import Value


class Table(Value, frozen=True, kw_only=True):
    """An answer as JSON has it: rows by column, each column with a name of its own."""

    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    is_cut: bool = False
