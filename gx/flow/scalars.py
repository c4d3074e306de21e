"""The shapes that single values of a recipe can have: text, numbers, durations, true and false.

A shape says the same thing twice: `read` to a node, `schema` to an editor. Whatever its schema refuses, it refuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

from gx.core.errors import RecipeError
from gx.flow.source import Kind, Node, suggest

_WORDS = {"yes": True, "on": True, "no": False, "off": False}  # booleans to YAML 1.1, and to many people
_UNITS = (("d", 86_400.0), ("h", 3_600.0), ("m", 60.0), ("s", 1.0), ("ms", 0.001))
_AMOUNT = "[0-9]{1,9}(?:[.][0-9]{1,9})?"
_DURATION = "".join(f"(?:{_AMOUNT}{unit})?" for unit, _ in _UNITS)
MAX_SECONDS = 1_000_000_000


class Shape(Protocol):
    """`expected` names the shape in an error message; `kinds` are the nodes that it may be tried on."""

    @property
    def expected(self) -> str: ...
    @property
    def kinds(self) -> frozenset[Kind]: ...
    def read(self, node: Node) -> Any: ...
    def schema(self) -> dict[str, Any]: ...


def wrong(shape: Shape, node: Node, hint: str = "") -> RecipeError:
    return node.error(f"expected {shape.expected}, got {node}", hint)


@dataclass(frozen=True)
class Text:
    """Text of 1 to `longest` characters that fits `pattern`; `choices` leaves only those."""

    expected: str = "text"
    pattern: str | None = None
    longest: int | None = None
    choices: tuple[str, ...] = ()
    kinds: frozenset[Kind] = frozenset({"text"})

    def read(self, node: Node) -> str:
        if node.kind != "text":
            is_scalar = node.kind in ("integer", "number", "boolean")
            raise wrong(self, node, f'put quotes around it: "{str(node).split()[-1]}"' if is_scalar else "")
        text: str = node.value
        if self.choices and text not in self.choices:
            raise wrong(self, node, suggest(text, self.choices, "choices"))
        if not text or (self.longest is not None and len(text) > self.longest):
            limit = f"at most {self.longest} characters" if text else "at least one character"
            raise node.error(f"expected {self.expected} of {limit}, got {len(text)}")
        if self.pattern is not None and not re.fullmatch(self.pattern, text):
            raise wrong(self, node)
        return text

    def schema(self) -> dict[str, Any]:
        if self.choices:
            return {"enum": list(self.choices)}
        made: dict[str, Any] = {"type": "string", "minLength": 1}
        if self.longest is not None:
            made["maxLength"] = self.longest
        return made | ({"pattern": f"^{self.pattern}$"} if self.pattern is not None else {})


@dataclass(frozen=True)
class Number:
    """A number from `least` (or above `above`) to `most`; `is_whole` ones come as int, others as float."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    is_whole: bool = False
    kinds: frozenset[Kind] = frozenset({"integer", "number"})

    @property
    def expected(self) -> str:
        bounds = [f"at least {self.least:,}" if self.least is not None else ""]
        bounds.append(f"above {self.above:,}" if self.above is not None else "")
        bounds.append(f"at most {self.most:,}" if self.most is not None else "")
        return ("a whole number " if self.is_whole else "a number ") + " and ".join(b for b in bounds if b)

    def read(self, node: Node) -> int | float:
        value = node.value
        if node.kind not in self.kinds or (self.is_whole and value != int(value)):
            raise wrong(self, node)
        is_low = (self.least is not None and value < self.least) or (self.above is not None and value <= self.above)
        if is_low or (self.most is not None and value > self.most):
            raise wrong(self, node)
        return int(value) if self.is_whole else float(value)

    def schema(self) -> dict[str, Any]:
        bounds = {"minimum": self.least, "exclusiveMinimum": self.above, "maximum": self.most}
        return {"type": "integer" if self.is_whole else "number"} | {k: v for k, v in bounds.items() if v is not None}


def seconds_of(text: str) -> float | None:
    """The seconds that a text such as "1h30m" says; `None` if it says none."""
    if not re.fullmatch(_DURATION, text) or not re.search("[1-9]", text):
        return None
    factor = dict(_UNITS)
    return sum(float(n) * factor[unit] for n, unit in re.findall(r"([0-9.]+)([a-z]+)", text))


@dataclass(frozen=True)
class Duration:
    """Seconds, from "500ms", "1s", "2m", "1h30m", "1d" or a plain number of seconds; above zero."""

    expected: str = "a duration such as 500ms, 30s, 2m or 1h30m, above zero"
    kinds: frozenset[Kind] = frozenset({"text", "integer", "number"})

    def read(self, node: Node) -> float:
        if node.kind == "text":
            text: str = node.value
            if (found := seconds_of(text)) is None:
                hint = "units are d, h, m, s and ms, the largest first, without spaces; a plain number is in seconds"
                raise wrong(self, node, hint)
            return found
        if node.kind not in self.kinds or not 0 < node.value <= MAX_SECONDS:
            raise wrong(self, node)
        return float(node.value)

    def schema(self) -> dict[str, Any]:
        text = {"type": "string", "pattern": f"^(?=.*[1-9]){_DURATION}$"}
        return {"anyOf": [text, {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_SECONDS}]}


@dataclass(frozen=True)
class Flag:
    """True or false; the words yes, no, on and off will do when they stand without quotes."""

    expected: str = "true or false"
    kinds: frozenset[Kind] = frozenset({"boolean"})

    def read(self, node: Node) -> bool:
        if node.kind == "text" and node.style is None and node.value.lower() in _WORDS:
            return _WORDS[node.value.lower()]
        if node.kind != "boolean":
            raise wrong(self, node)
        return bool(node.value)

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Scalar:
    """Text, a number, or true or false."""

    expected: str = "text, a number, or true or false"
    kinds: frozenset[Kind] = frozenset({"text", "integer", "number", "boolean"})

    def read(self, node: Node) -> str | int | float | bool:
        if node.kind not in self.kinds:
            raise wrong(self, node)
        value: str | int | float | bool = node.value
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": ["string", "number", "boolean"]}


@dataclass(frozen=True)
class Constant:
    """One whole number and no other."""

    value: int
    kinds: frozenset[Kind] = frozenset({"integer", "number"})

    @property
    def expected(self) -> str:
        return str(self.value)

    def read(self, node: Node) -> int:
        if node.kind not in self.kinds or node.value != self.value:
            raise wrong(self, node)
        return self.value

    def schema(self) -> dict[str, Any]:
        return {"const": self.value}
