"""What llguidance would take of a schema and get wrong: put right where another keyword says it, else found.

`python -m tests.fuzz.schemas` looks for more: it draws schemas, and has another library validate the answers.
Invariant: nothing changes the schema that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edge.engine.shapes.schema import Path, at, keywords, replaced

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
# The calendar of RFC 3339, section 5.7 and appendix C, from the year 1 on: most programs know no year 0.
_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_PAIR = "(?:0[48]|[2468][048]|[13579][26])"
_DATE = f"^(?:{_YEAR}-(?:0[13-9]|1[0-2]|02-[01]|02-2[0-8])|(?:[0-9]{{2}}{_LEAP_PAIR}|{_LEAP_PAIR}00)-02-29)"
_REAL = {"date": _DATE, "time": "^[^:]*:[^:]*:[0-5]", "date-time": _DATE + "[^:]*:[^:]*:[0-5]"}


def with_real_dates(schema: Any) -> Any:
    """The schema with a pattern beside each date and time, that leaves out what the format of llguidance lets through.

    That is the 29th of February of any year, the year 0, and a leap second at any time. No clock can say when the next
    leap second is, so that there are none here.
    """
    for path, value in list(keywords(schema)):
        if path[-1] == "format" and isinstance(value, str) and value in _REAL:
            node = at(schema, path[:-1])
            more: dict[str, Any] = {"pattern": _REAL[value]}
            if "pattern" in node:
                parts = node.get("allOf", [])
                more = {"allOf": [*parts, more]} if isinstance(parts, list) else {}
            schema = replaced(schema, path[:-1], node | more)
    return schema


def exclusive_bounds(schema: Any) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """Each whole number that a range of numbers ends before, with its path, and the range as a schema of its own."""
    for path, bound in keywords(schema):
        if path[-1] not in ("exclusiveMinimum", "exclusiveMaximum") or not isinstance(bound, int | float):
            continue
        around = [at(schema, path[:-1])]
        if path[-3:-2] == ("allOf",):  # parts of one range
            around += [at(schema, path[:-3]), *at(schema, path[:-2])]
        bounds = {name: part[name] for part in around if isinstance(part, dict) for name in _BOUNDS if name in part}
        if bound == int(bound) and around[0].get("type") not in ("integer", ["integer"]):
            yield path, int(bound), {"type": "number"} | bounds


def uncounted(schema: Any) -> Path | None:
    """The path of a `minProperties` that needs more than one field whose name is left to the model.

    A JSON object may have a name twice, and a grammar doesn't remember which ones it had.
    """
    for path, least in keywords(schema):
        node = at(schema, path[:-1])
        if path[-1] != "minProperties" or not isinstance(least, int):
            continue
        required = node.get("required")
        is_open = bool(node.get("patternProperties")) or node.get("additionalProperties") is not False
        names = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
        if is_open and least > len(names) + 1:
            return path
    return None
