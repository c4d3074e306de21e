"""The shapes that values made of values can have: lists, mappings, and tables with known keys.

A shape knows one value and its place. What one part of a recipe says of another is in `gx.flow.check`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gx.flow.scalars import Shape, Text, wrong
from gx.flow.source import Kind, Node, suggest


@dataclass(frozen=True)
class Json:
    """Any mapping, taken as it is."""

    expected: str
    kinds: frozenset[Kind] = frozenset({"mapping"})

    def read(self, node: Node) -> dict[str, Any]:
        if node.kind != "mapping":
            raise wrong(self, node)
        value: dict[str, Any] = node.plain()
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "object"}


@dataclass(frozen=True)
class Anything:
    """Text or any other JSON, but nothing at all."""

    expected: str
    kinds: frozenset[Kind] = frozenset({"mapping", "list", "text", "integer", "number", "boolean"})

    def read(self, node: Node) -> Any:
        if node.kind not in self.kinds or node.value == "":
            raise wrong(self, node)
        return node.plain()

    def schema(self) -> dict[str, Any]:
        found = {"type": ["number", "boolean", "object", "array"]}
        return {"anyOf": [{"type": "string", "minLength": 1}, found]}


@dataclass(frozen=True)
class Many:
    """A list of at least `least` items as a tuple; `is_unique` refuses an item that comes again."""

    item: Shape
    expected: str
    least: int = 0
    most: int | None = None
    is_unique: bool = False
    kinds: frozenset[Kind] = frozenset({"list"})

    def read(self, node: Node) -> tuple[Any, ...]:
        if node.kind != "list":
            raise wrong(self, node)
        count = len(node.value)
        if count < self.least or (self.most is not None and count > self.most):
            limit = f"at least {self.least}" if count < self.least else f"at most {self.most}"
            raise node.error(f"expected {self.expected} with {limit}, got {count}")
        seen: set[tuple[bool, Any]] = set()
        items = []
        for child in node.value:
            value = self.item.read(child)
            if self.is_unique and (key := (isinstance(value, bool), value)) in seen:
                raise child.error(f"expected every item once, got {child} again")
            if self.is_unique:
                seen.add(key)
            items.append(value)
        return tuple(items)

    def schema(self) -> dict[str, Any]:
        made: dict[str, Any] = {"type": "array", "items": self.item.schema()}
        made |= {"minItems": self.least} if self.least else {}
        made |= {"maxItems": self.most} if self.most is not None else {}
        return made | ({"uniqueItems": True} if self.is_unique else {})


@dataclass(frozen=True)
class Named:
    """A mapping from names that fit `name` to values of one shape."""

    item: Shape
    expected: str
    name: Text
    least: int = 0
    kinds: frozenset[Kind] = frozenset({"mapping"})

    def read(self, node: Node) -> dict[str, Any]:
        if node.kind != "mapping":
            raise wrong(self, node)
        if len(node.value) < self.least:
            raise node.error(f"expected {self.expected} with at least {self.least}, got {len(node.value)}")
        return {self.name.read(node.keys[key]): self.item.read(child) for key, child in node.value.items()}

    def schema(self) -> dict[str, Any]:
        names = {k: v for k, v in self.name.schema().items() if k != "type"}
        made = {"type": "object", "additionalProperties": self.item.schema(), "propertyNames": names}
        return made | ({"minProperties": self.least} if self.least else {})


@dataclass(frozen=True)
class Either:
    """The first of `options` whose kind of node it is; `as_tuple` wraps a lone item for a list's reader."""

    options: tuple[Shape, ...]
    as_tuple: bool = False

    @property
    def expected(self) -> str:
        return " or ".join(option.expected for option in self.options)

    @property
    def kinds(self) -> frozenset[Kind]:
        return frozenset().union(*(option.kinds for option in self.options))

    def read(self, node: Node) -> Any:
        for option in self.options:
            if node.kind in option.kinds:
                value = option.read(node)
                return (value,) if self.as_tuple and not isinstance(value, tuple) else value
        raise wrong(self, node)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [option.schema() for option in self.options]}


class Rule(Protocol):
    """What the keys of one table say of each other."""

    def check(self, node: Node) -> None: ...
    def schema(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Field:
    """A key of a table: its shape, and the sentence that teaches it."""

    shape: Shape
    description: str
    is_required: bool = False


@dataclass(frozen=True)
class Table:
    """A mapping with known keys. `later` are keys that are refused by name, as not built yet."""

    expected: str
    fields: Mapping[str, Field]
    rules: tuple[Rule, ...] = ()
    later: tuple[str, ...] = ()
    kinds: frozenset[Kind] = frozenset({"mapping"})

    def read(self, node: Node) -> dict[str, Any]:
        """The values of the keys that are there. :raises RecipeError: if a key is unknown, missing or wrong."""
        if node.kind != "mapping":
            raise wrong(self, node, f"its keys are: {', '.join(self.fields)}" if node.kind == "null" else "")
        for key, key_node in node.keys.items():
            if key in self.later:
                raise key_node.error(f"`{key}` is not built yet in this version of gx", "leave it out")
            if key not in self.fields:
                raise key_node.error(
                    f"expected a key of {self.expected}, got `{key}`", suggest(key, self.fields, "keys")
                )
        for key, known in self.fields.items():
            if known.is_required and key not in node.value:
                raise node.error(f"expected {self.expected} with `{key}`, got none", known.description)
        values = {key: self.fields[key].shape.read(child) for key, child in node.value.items()}
        for rule in self.rules:
            rule.check(node)
        return values

    def schema(self) -> dict[str, Any]:
        keys = {key: {"description": known.description} | known.shape.schema() for key, known in self.fields.items()}
        made: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": keys}
        required = [key for key, known in self.fields.items() if known.is_required]
        made |= {"required": required} if required else {}
        return made | ({"allOf": [rule.schema() for rule in self.rules]} if self.rules else {})
