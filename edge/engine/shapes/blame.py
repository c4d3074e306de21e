"""Which keyword of a schema is to blame for what somebody says of all of it.

llguidance says what it doesn't like, and mostly not where. So keywords are left out, one at a time and then within the
one to blame, as delta debugging does (Zeller and Hildebrandt 2002, https://doi.org/10.1109/32.988498). It knows no
llguidance: whoever asks says of each schema that is tried what is wrong with it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from edge.engine.shapes.references import target_of
from edge.engine.shapes.schema import NAMED_SCHEMAS, Path, at, replaced

_OF_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items", "additionalProperties", "additionalItems"})
_DEFINITIONS = frozenset({"$defs", "definitions"})
_CHARS = 1 << 19
"""So much of the schema is tried at most, over and over: about two seconds of compiling."""

ReasonOf = Callable[[Any], str | None]
"""Why a schema can't be used; `None` if it can."""


class _Spent(Exception):
    """What may be tried was tried."""


def blame(schema: Any, reason_of: ReasonOf) -> tuple[str, Path] | None:
    """The innermost keyword without which the schema could be used, and the path of what is wrong with it.

    `None` if no keyword alone is to blame, or the schema is too large to look.
    """
    left = _CHARS // (len(json.dumps(schema)) + 1)

    def trial(changed: Any) -> str | None:
        nonlocal left
        left -= 1
        if left < 0:
            raise _Spent
        return reason_of(changed)

    found: list[tuple[str, Path]] = []
    with contextlib.suppress(_Spent):
        found.extend(_narrowing(schema, trial))
    return found[-1] if found else None


def _narrowing(schema: Any, reason_of: ReasonOf) -> Iterator[tuple[str, Path]]:
    """Keyword and path to blame, ever more precisely."""
    path: Path = ()
    seen: set[Path] = set()
    reason = reason_of(schema) or ""
    keyword, is_schema = "", True
    while True:
        step, schema = _guilty(schema, path, reason_of, reason, is_schema=is_schema)
        if step is None:
            return
        path = (*path, step)
        if is_schema:
            keyword = str(step)
        yield keyword, path
        if not is_schema:
            is_schema = True
        elif keyword == "$ref" and (target := target_of(schema, at(schema, path))) is not None and target not in seen:
            seen.add(target)
            path = target
        elif keyword in NAMED_SCHEMAS:
            is_schema = False
        elif keyword in _OF_SCHEMAS:
            is_schema = not isinstance(at(schema, path), list)
        else:
            return


def _guilty(
    schema: Any, path: Path, reason_of: ReasonOf, reason: str, *, is_schema: bool
) -> tuple[str | int | None, Any]:
    """The child of what is at `path` that brings the reason about, and the schema to look on in.

    Where two parts are wrong in the same way, the reason goes away without neither, and the schema is cut down to one.
    """
    node: Any = at(schema, path)
    is_open = is_schema and isinstance(node, dict)
    kept = {name: node[name] for name in _DEFINITIONS if is_open and name in node}
    steps: list[Any] = list(range(len(node))) if isinstance(node, list) else []
    if isinstance(node, dict):
        steps = sorted((name for name in node if name not in kept), key=lambda name: _suspicion(name, reason))
    if is_schema:
        without = {step: reason_of(replaced(schema, path, _without(node, step))) for step in steps}
        cured = [step for step, left in without.items() if left is None]
        if cured:
            return cured[0], schema
    for step in steps:
        alone = [node[step]] if isinstance(node, list) else kept | {step: node[step]}
        cut = replaced(schema, path, alone)
        if reason_of(cut) == reason:
            return step, schema if isinstance(node, list) else cut
    changed = [step for step, left in without.items() if left != reason] if is_schema else []
    return (changed[0] if changed else None), schema


def _suspicion(name: str, reason: str) -> tuple[bool, bool, int]:
    """Who is looked at first: a keyword that the reason names, a long one rather than a word; last a type."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", reason) is None, name == "type", -len(name)


def _without(node: Any, step: str | int) -> Any:
    if isinstance(node, list):
        return [part for index, part in enumerate(node) if index != step]
    return {name: part for name, part in node.items() if name != step}
