"""YAML as a tree that knows its places.

This file knows YAML and nothing of recipes. Scalars follow YAML 1.2: only `true` and `false` are booleans (`yes`, `no`
and `on` stay words), dates stay text, and a number with a leading zero stays text. Nothing here can be made to build
an object, to expand without end, or to raise anything but `RecipeError`.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple, cast

import yaml

from gx.core.errors import RecipeError
from gx.flow.source import LINE_BREAK, Kind, Node, Source

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_DEPTH = 50
MAX_NODES = 100_000  # counted after aliases are expanded, so an alias bomb is too large


def read_yaml(
    text: str, *, file: str, what: str = "a recipe", hint: str = "begin with `version: 1` and `name: …`"
) -> Node:
    """The tree of `text`, which should be `what`; `hint` says how that begins.

    :raises RecipeError: if it isn't YAML, is empty, too large or too deep, or repeats a key.
    """
    source = Source(file, LINE_BREAK.split(text))
    if len(text) > MAX_CHARACTERS:
        raise source.error(f"expected at most {MAX_CHARACTERS:,} characters, got {len(text):,}", 1, 1)
    try:
        loader = _Loader(text)
        loader.source = source
        root = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        before = LINE_BREAK.split(text[: error.position])
        problem = f"a character that YAML doesn't allow (U+{ord(text[error.position]):04X})"
        raise source.error(problem, len(before), len(before[-1]) + 1) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part) or "it can't be read"
        line, col = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise source.error(f"this isn't YAML: {what}", line, col, _advice(what)) from None
    except (ValueError, OverflowError) as error:  # PyYAML lets these through for impossible escapes and versions
        raise source.error(f"this isn't YAML: {error}", 1, 1) from None
    if root is None:
        raise source.error(f"expected {what}, got an empty file", 1, 1, hint)
    return _Places(source).convert(root)


def _advice(problem: str) -> str:
    if "'\\t'" in problem:
        return "indent with spaces: YAML doesn't allow tabs there"
    if "mapping values are not allowed" in problem:
        return "put quotes around a text that holds `: `"
    if "undefined alias" in problem or "expected alphabetic" in problem:
        return "put quotes around a text that begins with `*` or `&`"
    if "flow mapping" in problem or "'%'" in problem:
        return "put quotes around a text that begins with `{{` or `{%`"
    return ""


class _Loader(yaml.SafeLoader):
    """PyYAML's composer with YAML 1.2 scalars, and limits that hold while it reads."""

    yaml_implicit_resolvers = {}  # its own, so that YAML 1.1's are gone
    source: Source
    depth = 0
    nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.nodes += 1
        self.depth += 1
        if self.depth > MAX_DEPTH or self.nodes > MAX_NODES:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _too_large(self.source, self.depth > MAX_DEPTH, mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+|0o[0-7_]+", list("-+0123456789")),
    ("float", r"[-+]?(?:(?:0|[1-9][0-9_]*)(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_pattern})$(?!\n)"), _first)


def _too_large(source: Source, is_deep: bool, mark: Any) -> RecipeError:
    what = f"at most {MAX_DEPTH} levels" if is_deep else f"at most {MAX_NODES:,} values"
    return source.error(f"expected {what}, got more", mark.line + 1, mark.column + 1, "is an alias repeated too often?")


class _Part(NamedTuple):
    """A node, its size with aliases expanded, and its height."""

    node: Node
    size: int
    height: int


class _Places:
    """Turns PyYAML's nodes into ours, each once, however often it is aliased."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.made: dict[int, _Part] = {}
        self.open: set[int] = set()

    def convert(self, raw: yaml.Node) -> Node:
        return self._convert(raw).node

    def _convert(self, raw: yaml.Node) -> _Part:
        known = self.made.get(id(raw))
        if known is not None:
            return known
        if id(raw) in self.open:
            raise self._error(raw, "an alias that holds itself")
        self.open.add(id(raw))
        if isinstance(raw, yaml.MappingNode):
            made = self._mapping(raw)
        elif isinstance(raw, yaml.SequenceNode):
            parts = [self._convert(child) for child in raw.value]
            self._check_tag(raw, "seq")
            made = self._sized(raw, "list", [part.node for part in parts], parts)
        else:
            made = _Part(self._scalar(cast(yaml.ScalarNode, raw)), 1, 1)
        self.open.discard(id(raw))
        self.made[id(raw)] = made
        return made

    def _mapping(self, raw: yaml.MappingNode) -> _Part:
        self._check_tag(raw, "map")
        entries: dict[str, Node] = {}
        keys: dict[str, Node] = {}
        merged: dict[str, tuple[Node, Node]] = {}
        parts: list[_Part] = []
        for raw_key, raw_value in raw.value:
            if not isinstance(raw_key, yaml.ScalarNode):
                hint = "put quotes around a text that begins with `{{`"
                raise self._error(raw_key, "expected a name as the key, got a list or a mapping", hint)
            part = self._convert(raw_value)
            parts.append(part)
            if raw_key.tag.endswith(":merge"):
                for child in part.node.value if part.node.kind == "list" else [part.node]:
                    if child.kind != "mapping":
                        raise self._error(raw_key, f"expected `<<` to name a mapping, got {child}")
                    for name, value in child.value.items():
                        merged.setdefault(name, (child.keys[name], value))
                continue
            key = self._node(raw_key, "text", self._text(raw_key))
            if key.value in entries:
                first = keys[key.value]
                message = f"`{key.value}` is given twice: first at line {first.line}, col {first.col}, and again here"
                raise key.error(message, "keep one of them")
            entries[key.value], keys[key.value] = part.node, key
        for name, (key, value) in merged.items():
            if name not in entries:
                entries[name], keys[name] = value, key
        return self._sized(raw, "mapping", entries, parts, keys)

    def _sized(
        self,
        raw: yaml.Node,
        kind: Kind,
        value: Any,
        parts: list[_Part],
        keys: dict[str, Node] | None = None,
    ) -> _Part:
        size = 1 + sum(part.size for part in parts)
        height = 1 + max((part.height for part in parts), default=0)
        if size > MAX_NODES or height > MAX_DEPTH:
            raise _too_large(self.source, height > MAX_DEPTH, raw.start_mark)
        return _Part(self._node(raw, kind, value, keys), size, height)

    def _scalar(self, raw: yaml.ScalarNode) -> Node:
        kind, text = raw.tag.rpartition(":")[2], self._text(raw)
        try:
            if kind == "null":
                return self._node(raw, "null", None)
            if kind == "bool":
                return self._node(raw, "boolean", text.lower() == "true")
            if kind == "int":
                return self._node(raw, "integer", int(text.replace("_", ""), 0))
            if kind == "float" and math.isfinite(number := float(text.replace("_", ""))):
                return self._node(raw, "number", number)
        except ValueError:
            pass  # "!!int x", or a number of more digits than Python reads
        if kind in ("str", "merge"):
            return self._node(raw, "text", text)
        if kind in ("int", "float"):
            raise self._error(raw, f"expected a number that a computer can hold, got {text[:40]!r}")
        raise self._error(
            raw, f"expected a plain value, got the tag {raw.tag!r}", "a recipe is data: leave the tag out"
        )

    def _text(self, raw: yaml.ScalarNode) -> str:
        try:  # two escapes may make one character, as in JSON
            return str(raw.value).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise self._error(raw, "expected text, got half of a surrogate pair") from None

    def _node(self, raw: yaml.Node, kind: Kind, value: Any, keys: dict[str, Node] | None = None) -> Node:
        start, end = raw.start_mark, raw.end_mark
        style = raw.style if isinstance(raw, yaml.ScalarNode) and raw.style != "" else None
        last = end.line if end.column == 0 and end.line > start.line else end.line + 1
        return Node(self.source, kind, value, start.line + 1, start.column + 1, last, style, keys or {})

    def _error(self, raw: yaml.Node, message: str, hint: str = "") -> RecipeError:
        return self.source.error(message, raw.start_mark.line + 1, raw.start_mark.column + 1, hint)

    def _check_tag(self, raw: yaml.Node, kind: str) -> None:
        if raw.tag != f"tag:yaml.org,2002:{kind}":
            raise self._tagged(raw)

    def _tagged(self, raw: yaml.Node) -> RecipeError:
        return self._error(
            raw, f"expected a plain value, got the tag {raw.tag!r}", "a recipe is data: leave the tag out"
        )
