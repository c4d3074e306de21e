"""Where the `$ref`s of a schema lead, within one document (`#/...`): which never end, and which may be written out.

References to other documents are taken to be right. Invariant: nothing changes the schema that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from edge.engine.shapes.schema import NAMED_SCHEMAS, PLAIN_VALUES, Path, at, keywords

_MOST_PARTS = 20_000
"""A schema that has more once its options are written out stays as it was."""


def target_of(schema: Any, ref: Any) -> Path | None:
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

    llguidance would go round in circles there.
    """
    ending: set[Path] = set()
    for path, ref in keywords(schema):
        target = target_of(schema, ref) if path[-1] == "$ref" else None
        if target is not None and not _target_ends(schema, target, frozenset(), ending):
            return path
    return None


def _target_ends(root: Any, target: Path, entered: frozenset[Path], ending: set[Path]) -> bool:
    """Whether a finite document may fit what is at `target`, where coming back to one of `entered` is no way to end.

    `ending` are the targets that are known to end.
    """
    if target not in ending and target not in entered and _ends(root, at(root, target), entered | {target}, ending):
        ending.add(target)
    return target in ending


def _ends(root: Any, node: Any, entered: frozenset[Path], ending: set[Path]) -> bool:
    if not isinstance(node, dict):
        return True
    target = target_of(root, node.get("$ref"))
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
    except _TooLarge:
        return schema


class _TooLarge(Exception):
    """The copy would have more parts than it may."""


class _Inlining:
    """Copies a schema, at most so many parts of it."""

    def __init__(self, root: Any) -> None:
        self._root, self._left = root, _MOST_PARTS

    def schema(self, node: Any, entered: frozenset[Path]) -> Any:
        """A copy of a schema within the options `entered`."""
        self._left -= 1
        if self._left < 0:
            raise _TooLarge
        if not isinstance(node, dict):
            return node
        made = dict(node)
        for name, value in node.items():
            if name in NAMED_SCHEMAS and isinstance(value, dict):
                made[name] = {key: self.schema(part, entered) for key, part in value.items()}
            elif name == "oneOf" and isinstance(value, list):
                made[name] = [self._option(part, entered) for part in value]
            elif name not in PLAIN_VALUES:
                is_list = isinstance(value, list)
                made[name] = [self.schema(part, entered) for part in value] if is_list else self.schema(value, entered)
        return made

    def _option(self, option: Any, entered: frozenset[Path]) -> Any:
        is_reference = isinstance(option, dict) and option.keys() == {"$ref"}
        target = target_of(self._root, option["$ref"]) if is_reference else None
        if target is None or target in entered:
            return self.schema(option, entered)
        return self._option(at(self._root, target), entered | {target})
