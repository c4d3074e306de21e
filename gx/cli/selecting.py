"""Parts of a record by dotted paths, and values as bare lines: what `--select` and `--raw` print, as jq would.

Pure and total: a path that a record doesn't have gives `None`. A bare line is what `jq -r` makes of the value: a string
without its quotes, with its line feeds as they are, and anything else as JSON on one line. Of several values it is what
`@tsv` makes of them: tabs between, and tabs, line ends and backslashes in them escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from gx.core.errors import UsageError

_DIGITS = 20
"""No list is so long that the place of an element has as many."""
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class Path(NamedTuple):
    """A path as it was typed, and its parts. One that begins with a dot starts at the record, else at its output."""

    text: str
    parts: tuple[str, ...]
    is_of_record: bool


def path_of(text: str) -> Path:
    """`category`, `parties.0.name`; `.id`, `.input.text`. :raises UsageError: if it is none."""
    is_of_record = text.startswith(".")
    parts = tuple(text.removeprefix(".").split("."))
    if "" in parts:
        raise UsageError(
            f"--select: expected a dotted path such as category or parties.0.name, got {text!r}",
            hint="a path that begins with a dot starts at the record: .id, .input.text",
        )
    return Path(text, parts, is_of_record)


def at(value: Any, parts: Sequence[str]) -> Any:
    """What stands there; `None` if nothing does. Parts of digits count a list's elements from 0."""
    for part in parts:
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and len(part) < _DIGITS and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def selected(record: Mapping[str, Any], paths: Sequence[Path]) -> Any:
    """The value of one path, an object of several by their texts; the whole output where there is none."""
    found = {path.text: at(record if path.is_of_record else record.get("output"), path.parts) for path in paths}
    if not paths:
        return record.get("output")
    return found if len(paths) > 1 else next(iter(found.values()))


def bare(value: Any) -> str:
    """The value as `jq -r` prints it, without a line end after it."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def bare_row(values: Sequence[Any]) -> str:
    """The values as `@tsv` prints them: `null` is empty."""
    return "\t".join("" if value is None else bare(value).translate(_ESCAPES) for value in values)
