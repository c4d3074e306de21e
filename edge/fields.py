"""The choices that a schema leaves: its enums, in the very JSON that constrained writing would give.

An option is weighed without what closes it, a quote or a comma, unless one option begins with another: then only what
follows tells the two apart. It knows schemas and text; it knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from gx.core.errors import GxError


class Field(NamedTuple):
    """A choice to make, after `opening`. Of each option: how it is called among the scores, what of it is weighed, and
    all that is written. Where they `are_whole`, the answer's end is weighed too.
    """

    name: str
    opening: str
    options: tuple[str, ...]
    weighed: tuple[str, ...]
    written: tuple[str, ...]
    are_whole: bool = False


def fields_of(schema: dict[str, Any] | None) -> tuple[Field, ...]:
    """The choices that a schema leaves. :raises GxError: (code "choice") if it has anything but enums."""
    if schema is not None and schema.get("enum"):
        written = tuple(map(_json, schema["enum"]))
        weighed = tuple(map(_unclosed, written))
        is_clear = _differ(weighed)
        return (Field("", "", _names(schema["enum"]), weighed if is_clear else written, written, not is_clear),)
    properties: dict[str, Any] = (schema or {}).get("properties", {})
    if not properties or not all(isinstance(field, dict) and field.get("enum") for field in properties.values()):
        raise GxError(
            "a choice needs an output schema that is an enum, or an object whose every property is one", code="choice"
        )
    last = len(properties) - 1
    return tuple(
        _field(name, field["enum"], is_first=number == 0, is_last=number == last)
        for number, (name, field) in enumerate(properties.items())
    )


def _field(name: str, values: Sequence[Any], *, is_first: bool, is_last: bool) -> Field:
    after = "}" if is_last else ", "
    written = tuple(_json(value) + after for value in values)
    weighed = tuple(_unclosed(_json(value)) for value in values)
    if not _differ(weighed):  # a blank is one token with what follows it, and no option's own
        weighed = tuple(text.rstrip() for text in written)
    return Field(name, f"{'{' if is_first else ''}{_json(name)}: ", _names(values), weighed, written)


def _names(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(value if isinstance(value, str) else _json(value) for value in values)


def _unclosed(value: str) -> str:
    return value[:-1] if value.endswith('"') else value


def _differ(options: Sequence[str]) -> bool:
    """Whether no option is another's beginning."""
    ordered = sorted(options)
    return not any(after.startswith(one) for one, after in pairwise(ordered))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
