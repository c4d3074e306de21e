"""What the keys of one table say of each other: which exclude or ask for which. Said to a reader and to an editor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gx.flow.source import Node


@dataclass(frozen=True)
class NotBoth:
    """Of two keys, one at most."""

    one: str
    other: str
    why: str

    def check(self, node: Node) -> None:
        if self.one in node.value and self.other in node.value:
            raise node.keys[self.other].error(f"expected `{self.one}` or `{self.other}`, got both", self.why)

    def schema(self) -> dict[str, Any]:
        return {"not": {"required": [self.one, self.other]}}


@dataclass(frozen=True)
class OneOf:
    """One of two keys."""

    one: str
    other: str

    def check(self, node: Node) -> None:
        if self.one in node.value and self.other in node.value:
            raise node.keys[self.other].error(f"expected `{self.one}` or `{self.other}`, got both", "keep one of them")
        if self.one not in node.value and self.other not in node.value:
            raise node.error(f"expected a step with `{self.one}` or `{self.other}`, got none", "name who is to do it")

    def schema(self) -> dict[str, Any]:
        return {"oneOf": [{"required": [self.one]}, {"required": [self.other]}]}


@dataclass(frozen=True)
class OnlyWith:
    """A key that means nothing without another."""

    key: str
    other: str

    def check(self, node: Node) -> None:
        if self.key in node.value and self.other not in node.value:
            raise node.keys[self.key].error(f"expected `{self.key}` together with `{self.other}`, got it alone")

    def schema(self) -> dict[str, Any]:
        return {"dependencies": {self.key: [self.other]}}


@dataclass(frozen=True)
class PromptUnless:
    """A step has a prompt, unless it goes by these rows, which can bring their own messages."""

    rows: str

    def check(self, node: Node) -> None:
        if "prompt" not in node.value and node.at("for_each").value != self.rows:
            raise node.error(
                "expected a step with `prompt`, got none",
                f"only a step with `for_each: {self.rows}` may leave it out: batch rows bring their own messages",
            )

    def schema(self) -> dict[str, Any]:
        rows = {"required": ["for_each"], "properties": {"for_each": {"const": self.rows}}}
        return {"anyOf": [{"required": ["prompt"]}, rows]}


@dataclass(frozen=True)
class JustOne:
    """Exactly one of the table's keys. `keys` are those, in words."""

    expected: str
    keys: tuple[str, ...]

    def check(self, node: Node) -> None:
        if len(node.value) > 1:
            second = list(node.keys.values())[1]
            hint = "write one more rule with the same query"
            raise second.error(f"expected {self.expected}, got `{'` and `'.join(node.value)}`", hint)
        if not node.value:
            raise node.error(f"expected {self.expected}, got none", f"the choices are: {', '.join(self.keys)}")

    def schema(self) -> dict[str, Any]:
        return {"minProperties": 1, "maxProperties": 1}
