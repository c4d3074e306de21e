"""What can be said of a JSON Schema without a model: its keywords, where it is wrong, and whether it ever ends.

It knows JSON Schema's structure and `$ref`s within one document (`#/...`); it knows no tokens and no llguidance.
Places are JSON pointers (RFC 6901). Invariant: no function changes the schema that it is given.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

# Where JSON Schema keeps names that the user chose, and values: what looks like a keyword there isn't one.
_NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "definitions", "$defs", "dependentSchemas"})
_PLAIN_VALUES = frozenset({"enum", "const", "default", "examples", "required", "x-guidance"})
_OF_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items", "additionalProperties", "additionalItems"})
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_DEFINITIONS = frozenset({"$defs", "definitions"})
# Looking for the keyword to blame compiles parts of the schema over and over; about two seconds of that.
_BLAME_CHARS = 1 << 19
_MOST_PARTS = 20_000
# The calendar of RFC 3339, section 5.7 and appendix C, from the year 1 on: most programs know no year 0.
_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_PAIR = "(?:0[48]|[2468][048]|[13579][26])"
_DATE = f"^(?:{_YEAR}-(?:0[13-9]|1[0-2]|02-[01]|02-2[0-8])|(?:[0-9]{{2}}{_LEAP_PAIR}|{_LEAP_PAIR}00)-02-29)"
_REAL = {"date": _DATE, "time": "^[^:]*:[^:]*:[0-5]", "date-time": _DATE + "[^:]*:[^:]*:[0-5]"}

Path = tuple[str | int, ...]
ReasonOf = Callable[[Any], str | None]
"""Why a schema can't be used; `None` if it can."""


def pointer(path: Path) -> str:
    """A path as a JSON pointer."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def keywords(schema: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Each keyword of a schema with its path and its value, at all depths."""
    if isinstance(schema, list):
        for index, part in enumerate(schema):
            yield from keywords(part, (*path, index))
    if not isinstance(schema, dict):
        return
    for name, value in schema.items():
        yield (*path, name), value
        if name in _NAMED_SCHEMAS and isinstance(value, dict):
            for key, part in value.items():
                yield from keywords(part, (*path, name, key))
        elif name not in _PLAIN_VALUES:
            yield from keywords(value, (*path, name))


# ── which keyword is wrong ───────────────────────────────────────────────────────────────────────────────────────────


class _Spent(Exception):
    """The work that something may take is done."""


def blame(schema: Any, reason_of: ReasonOf) -> tuple[str, Path] | None:
    """The innermost keyword without which the schema could be used, and the path of what is wrong with it.

    `None` if no keyword alone is to blame, or the schema is too large to look.
    """
    left = _BLAME_CHARS // (len(json.dumps(schema)) + 1)

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
        elif keyword == "$ref" and (target := _target(schema, _at(schema, path))) is not None and target not in seen:
            seen.add(target)
            path = target
        elif keyword in _NAMED_SCHEMAS:
            is_schema = False
        elif keyword in _OF_SCHEMAS:
            is_schema = not isinstance(_at(schema, path), list)
        else:
            return


def _guilty(
    schema: Any, path: Path, reason_of: ReasonOf, reason: str, *, is_schema: bool
) -> tuple[str | int | None, Any]:
    """The child of what is at `path` that brings the reason about, and the schema to look on in.

    Where two parts are wrong in the same way, the reason goes away without neither, and the schema is cut down to one.
    """
    node: Any = _at(schema, path)
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


def replaced(node: Any, path: Path, value: Any) -> Any:
    """A copy of `node` with another value at `path`."""
    if not path:
        return value
    changed: Any = list(node) if isinstance(node, list) else dict(node)
    changed[path[0]] = replaced(node[path[0]], path[1:], value)
    return changed


def _at(node: Any, path: Path) -> Any:
    for step in path:
        node = node[step]
    return node


# ── what is decoded wrongly ────────────────────────────────────────────────────────────────────────────────────────


def with_real_dates(schema: Any) -> Any:
    """The schema with a pattern beside each date and time, that leaves out what the format of llguidance lets through.

    That is the 29th of February of any year, the year 0, and a leap second at any time. No clock can say when the next
    leap second is, so that there are none here.
    """
    for path, value in list(keywords(schema)):
        if path[-1] == "format" and isinstance(value, str) and value in _REAL:
            node = _at(schema, path[:-1])
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
        around = [_at(schema, path[:-1])]
        if path[-3:-2] == ("allOf",):  # parts of one range
            around += [_at(schema, path[:-3]), *_at(schema, path[:-2])]
        bounds = {name: part[name] for part in around if isinstance(part, dict) for name in _BOUNDS if name in part}
        if bound == int(bound) and around[0].get("type") not in ("integer", ["integer"]):
            yield path, int(bound), {"type": "number"} | bounds


def uncounted(schema: Any) -> Path | None:
    """The path of a `minProperties` that needs more than one field whose name is left to the model.

    A JSON object may have a name twice, and a grammar doesn't remember which ones it had.
    """
    for path, least in keywords(schema):
        node = _at(schema, path[:-1])
        if path[-1] != "minProperties" or not isinstance(least, int):
            continue
        required = node.get("required")
        is_open = bool(node.get("patternProperties")) or node.get("additionalProperties") is not False
        names = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
        if is_open and least > len(names) + 1:
            return path
    return None


# ── references ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _target(schema: Any, ref: Any) -> Path | None:
    """The path that a `$ref` points to; `None` if it isn't one of this document."""
    if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
        return None
    node: Any = schema
    path: Path = ()
    for part in ref[2:].split("/") if len(ref) > 1 else []:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        step: str | int = int(name) if isinstance(node, list) and name.isascii() and name.isdigit() else name
        try:
            node, path = node[step], (*path, step)
        except (KeyError, IndexError, TypeError):
            return None
    return path


def endless(schema: Any) -> Path | None:
    """The path of a `$ref` that no finite document fits: a list that needs a list that needs a list.

    llguidance would go round in circles there. References to other documents are taken to end.
    """
    ending: set[Path] = set()
    for path, ref in keywords(schema):
        target = _target(schema, ref) if path[-1] == "$ref" else None
        if target is not None and not _target_ends(schema, target, frozenset(), ending):
            return path
    return None


def _target_ends(root: Any, target: Path, entered: frozenset[Path], ending: set[Path]) -> bool:
    """Whether a finite document may fit what is at `target`, where coming back to one of `entered` is no way to end.

    `ending` are the targets that are known to end.
    """
    if target not in ending and target not in entered and _ends(root, _at(root, target), entered | {target}, ending):
        ending.add(target)
    return target in ending


def _ends(root: Any, node: Any, entered: frozenset[Path], ending: set[Path]) -> bool:
    if not isinstance(node, dict):
        return True
    target = _target(root, node.get("$ref"))
    if target is not None and not _target_ends(root, target, entered, ending):
        return False
    for name in ("anyOf", "oneOf"):
        options = node.get(name)
        if isinstance(options, list) and options and not any(_ends(root, part, entered, ending) for part in options):
            return False
    return all(_ends(root, part, entered, ending) for part in _necessary(node))


def _necessary(node: dict[str, Any]) -> Iterator[Any]:
    """The schemas that every document that fits `node` has a part for, or fits as a whole."""
    types = node.get("type", ("object", "array"))
    if isinstance(node.get("allOf"), list):
        yield from node["allOf"]
    # Of a type that isn't the only one, nothing is needed: the document can be of the other.
    properties, required = node.get("properties"), node.get("required")
    if types in ("object", ["object"]) and isinstance(properties, dict) and isinstance(required, list):
        yield from (properties[name] for name in required if isinstance(name, str) and name in properties)
    least, first = node.get("minItems"), node.get("prefixItems")
    if types in ("array", ["array"]) and isinstance(least, int):
        first = first if isinstance(first, list) else []
        yield from first[:least]
        if least > len(first) and "items" in node:
            yield node["items"]


def options_inlined(schema: Any) -> Any:
    """The schema with the options of each `oneOf` in place of the references to them, where they are of this document.

    llguidance tells options apart (by a `const` that differs, for example) only where they aren't references, which
    is how most programs write them. The schema stays as it is if it has parts with an `$id`, since references within
    those mean something else, or if it grew too large.
    """
    if any(path[-1] == "$id" and len(path) > 1 for path, _ in keywords(schema)):
        return schema
    try:
        return _Inlining(schema).schema(schema, frozenset())
    except _Spent:
        return schema


class _Inlining:
    """Copies a schema, at most so many parts of it."""

    def __init__(self, root: Any) -> None:
        self._root, self._left = root, _MOST_PARTS

    def schema(self, node: Any, entered: frozenset[Path]) -> Any:
        """A copy of a schema within the options `entered`."""
        self._left -= 1
        if self._left < 0:
            raise _Spent
        if not isinstance(node, dict):
            return node
        made = dict(node)
        for name, value in node.items():
            if name in _NAMED_SCHEMAS and isinstance(value, dict):
                made[name] = {key: self.schema(part, entered) for key, part in value.items()}
            elif name == "oneOf" and isinstance(value, list):
                made[name] = [self._option(part, entered) for part in value]
            elif name not in _PLAIN_VALUES:
                is_list = isinstance(value, list)
                made[name] = [self.schema(part, entered) for part in value] if is_list else self.schema(value, entered)
        return made

    def _option(self, option: Any, entered: frozenset[Path]) -> Any:
        target = _target(self._root, option["$ref"]) if isinstance(option, dict) and option.keys() == {"$ref"} else None
        if target is None or target in entered:
            return self.schema(option, entered)
        return self._option(_at(self._root, target), entered | {target})
