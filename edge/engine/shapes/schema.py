"""A JSON Schema as a tree: its keywords with their places, and copies of it that differ in one of them.

Places are paths, told as JSON pointers (RFC 6901). It knows where JSON Schema has schemas, where names that the user
chose, and where plain values; it knows no keyword's meaning. Invariant: nothing changes the schema that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]
"""The steps from a schema's root to a part of it: names of fields, places in lists."""

# What looks like a keyword under these isn't one.
NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "definitions", "$defs", "dependentSchemas"})
PLAIN_VALUES = frozenset({"enum", "const", "default", "examples", "required", "x-guidance"})


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
        if name in NAMED_SCHEMAS and isinstance(value, dict):
            for key, part in value.items():
                yield from keywords(part, (*path, name, key))
        elif name not in PLAIN_VALUES:
            yield from keywords(value, (*path, name))


def at(node: Any, path: Path) -> Any:
    """What is at `path` in `node`."""
    for step in path:
        node = node[step]
    return node


def replaced(node: Any, path: Path, value: Any) -> Any:
    """A copy of `node` with another value at `path`."""
    if not path:
        return value
    changed: Any = list(node) if isinstance(node, list) else dict(node)
    changed[path[0]] = replaced(node[path[0]], path[1:], value)
    return changed
