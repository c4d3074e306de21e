"""A list of any length, of which only the lines on the screen are drawn; with a cursor, vim keys and the mouse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from gx.tui.keys import LIST
from gx.tui.widgets.drawn import strip_of

Line = Callable[[Any, int], Text]
"""A row and a width in cells → its line."""


class Rows(ScrollView, can_focus=True):
    """Shows `rows`, a line each. While `follows_end`, the cursor stays on the last one as more come."""

    BINDINGS: ClassVar[list[BindingType]] = [*LIST]

    class Chosen(Message):
        """Enter, or a second click, on a row."""

        def __init__(self, rows: Rows, row: Any) -> None:
            super().__init__()
            self.rows, self.row = rows, row

        @property
        def control(self) -> Rows:
            return self.rows

    def __init__(self, line: Line, *, empty: str, follows_end: bool = False, id: str | None = None) -> None:
        super().__init__(id=id)
        self.line, self._empty, self._follows_end = line, empty, follows_end
        self._rows: Sequence[Any] = ()
        self.cursor = 0

    @property
    def chosen(self) -> Any | None:
        """The row under the cursor; None where there is none."""
        return self._rows[self.cursor] if self.cursor < len(self._rows) else None

    def show(self, rows: Sequence[Any]) -> None:
        """Show these rows instead, with the cursor where it was, or on the last one."""
        was_last = self.cursor >= len(self._rows) - 1
        self._rows = rows
        self.virtual_size = Size(self.size.width, max(1, len(rows)))
        if self._follows_end and was_last:
            self.move(len(rows) - 1)
        else:
            self.cursor = max(0, min(self.cursor, len(rows) - 1))
        self.refresh()

    def move(self, to: int) -> None:
        """Put the cursor on that row, and the row on the screen."""
        self.cursor = max(0, min(to, len(self._rows) - 1))
        self.scroll_to_region(Region(0, self.cursor, 1, 1), animate=False, force=True)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        n = y + self.scroll_offset.y
        if n >= len(self._rows):
            return strip_of(self, Text(self._empty if n == 0 else "", "dim"))
        text = self.line(self._rows[n], self.size.width)
        if n == self.cursor and self.has_focus:
            text.stylize("reverse")
        return strip_of(self, text)

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        n = event.y + self.scroll_offset.y
        if n < len(self._rows):
            is_again = n == self.cursor
            self.move(n)
            if is_again:
                self.action_choose()

    def action_choose(self) -> None:
        if self.chosen is not None:
            self.post_message(self.Chosen(self, self.chosen))

    def action_move(self, by: int) -> None:
        self.move(self.cursor + by)

    def action_page(self, pages: float) -> None:
        self.move(self.cursor + int(pages * max(1, self.size.height)))

    def action_first(self) -> None:
        self.move(0)

    def action_last(self) -> None:
        self.move(len(self._rows) - 1)
