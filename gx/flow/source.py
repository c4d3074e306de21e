"""A recipe's values with their places, so that every error about a recipe can point at one.

This file knows files, lines and values, and nothing of YAML or of recipes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from gx.core.errors import RecipeError

Kind = Literal["mapping", "list", "text", "integer", "number", "boolean", "null"]
LINE_BREAK = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")  # YAML's
_ARTICLES = {"mapping": "a mapping", "list": "a list", "null": "nothing"}
_SNIPPET = 200  # characters of a long line that are shown


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A file's name and lines: what a place is shown with."""

    file: str
    lines: list[str]

    def error(self, message: str, line: int, col: int, hint: str = "") -> RecipeError:
        """A `RecipeError` at `line` and `col`, both counted from 1."""
        snippet = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        return RecipeError(
            message, file=self.file, line=line, col=col, snippet=snippet[: max(_SNIPPET, col + 80)], hint=hint
        )


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A value and its place. `value` is a dict or a list of nodes, or a scalar; `keys` are the nodes of a dict's keys.

    `line` and `col` count from 1; `end_line` is the last line that the value stands on. `style` is YAML's: `None` for
    a plain scalar, else one of `'`, `"`, `|`, `>`.
    """

    source: Source
    kind: Kind
    value: Any
    line: int
    col: int
    end_line: int
    style: str | None = None
    keys: dict[str, Node] = field(default_factory=dict)

    def at(self, *path: str | int) -> Node:
        """The node at `path`, or the last one on the way that exists."""
        node = self
        for part in path:
            if isinstance(part, str) and node.kind == "mapping" and part in node.value:
                node = node.value[part]
                continue
            if isinstance(part, int) and node.kind == "list" and part < len(node.value):
                node = node.value[part]
                continue
            break
        return node

    def error(self, message: str, hint: str = "") -> RecipeError:
        return self.source.error(message, self.line, self.col, hint)

    def plain(self) -> Any:
        """The value without its places: what JSON would hold."""
        if self.kind == "mapping":
            return {key: child.plain() for key, child in self.value.items()}
        if self.kind == "list":
            return [child.plain() for child in self.value]
        return self.value

    def __str__(self) -> str:
        """What came, in the words of an error message."""
        if self.kind in _ARTICLES:
            return _ARTICLES[self.kind]
        if self.kind == "boolean":
            return str(self.value).lower()
        shown = str(self.value) if len(str(self.value)) <= 60 else str(self.value)[:57] + "..."
        return f"the text {shown!r}" if self.kind == "text" else f"the number {shown}"


def suggest(word: str, choices: Iterable[str], what: str) -> str:
    """A hint for a name that there is not: the closest of `choices`, or all of them."""
    names = list(choices)
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    if not names:
        return f"there are no {what}"
    more = ", …" if len(names) > 20 else ""
    return f"the {what} are: {', '.join(names[:20])}{more}"
