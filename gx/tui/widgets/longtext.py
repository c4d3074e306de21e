"""Text of any length, wrapped to the width; of a million characters only the lines on the screen are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from rich.cells import cell_len, chop_cells
from rich.style import Style
from rich.text import Text
from textual.binding import BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from gx.core.inert import inert
from gx.tui.keys import TEXT
from gx.tui.widgets.drawn import strip_of


class Part(NamedTuple):
    """Some text in one style; what it holds is made harmless before it is shown."""

    text: str
    style: Style | str = ""


class LongText(ScrollView, can_focus=True):
    """Shows parts one below the other. While `follows_end`, the end stays in sight as text comes."""

    BINDINGS: ClassVar[list[BindingType]] = [*TEXT]

    def __init__(self, *parts: Part, id: str | None = None) -> None:
        super().__init__(id=id)
        self._parts = list(parts)
        self._lines: list[tuple[str, Style | str]] = []
        self._wrapped = 0
        self.follows_end = False

    def show(self, parts: list[Part]) -> None:
        """Show these parts instead."""
        if parts != self._parts:
            self._parts = parts
            self._wrap()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return sum(1 for part in self._parts for _ in wrapped(part.text, max(8, width - 1)))

    def on_resize(self) -> None:
        if self._wrapped != self._room:
            self._wrap()

    @property
    def _room(self) -> int:
        return max(8, self.size.width - 1)

    def _wrap(self) -> None:
        self._wrapped = self._room
        self._lines = [(line, part.style) for part in self._parts for line in wrapped(part.text, self._room)]
        self.virtual_size = Size(self.size.width, len(self._lines))
        if self.follows_end:
            self.scroll_end(animate=False)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        n = y + self.scroll_offset.y
        line, style = self._lines[n] if n < len(self._lines) else ("", "")
        return strip_of(self, Text(line, style))

    def action_scroll(self, by: int) -> None:
        self.scroll_relative(y=by, animate=False)

    def action_page(self, pages: float) -> None:
        self.scroll_relative(y=int(pages * max(1, self.size.height)), animate=False)

    def action_first(self) -> None:
        self.scroll_home(animate=False)

    def action_last(self) -> None:
        self.scroll_end(animate=False)


def wrapped(text: str, width: int) -> Iterator[str]:
    """The lines of a text, harmless, none wider than `width` cells; words are kept whole where they fit."""
    for line in inert(text).expandtabs(4).split("\n"):
        while len(line) > width or (not line.isascii() and cell_len(line) > width):
            space = line.rfind(" ", width // 2, width + 1) if line.isascii() else -1
            cut = space
            if space < 0:
                cut = width if line.isascii() else max(1, len(chop_cells(line[: 2 * width], width)[0]))
            yield line[:cut]
            line = line[cut:] if space < 0 else line[cut:].lstrip(" ")
        yield line
