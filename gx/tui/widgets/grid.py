"""Every task as one cell, by colour and shape; of 100,000 only the lines on the screen are drawn."""

from __future__ import annotations

from itertools import groupby
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from gx.tui.glyphs import Glyphs
from gx.tui.keys import GRID
from gx.tui.model import RunModel
from gx.tui.states import LOOKS, State
from gx.tui.themes import Paint, paint_of


class TaskGrid(ScrollView, can_focus=True):
    """The tasks of a run in the order of coming, or those of them that `wanted` leaves."""

    BINDINGS: ClassVar[list[BindingType]] = [*GRID]

    class Chosen(Message):
        """Enter, or a second click, on a task, which is told by its place."""

        def __init__(self, place: int) -> None:
            super().__init__()
            self.place = place

    class Moved(Message):
        """The cursor is on another task."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, TaskGrid.Moved)

    def __init__(self, glyphs: Glyphs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._glyphs = glyphs
        self._shapes = {int(state): glyphs.state(state) for state in State}
        self._model: RunModel | None = None
        self._places: list[int] | None = None
        self._states = b""
        self.paint: Paint = paint_of("dark")
        self.cursor = 0

    @property
    def place(self) -> int | None:
        """The task under the cursor; None where there is none."""
        if self.cursor >= len(self._states):
            return None
        return self.cursor if self._places is None else self._places[self.cursor]

    def show(self, model: RunModel, places: list[int] | None = None) -> None:
        """Show the tasks as they are now; only those at `places`, where given."""
        states = bytes(model.states) if places is None else bytes(model.states[place] for place in places)
        if (states, places) == (self._states, self._places) and model is self._model:
            return
        is_same, before = (model is self._model and places == self._places), self._states
        if model is not self._model:
            self.cursor = 0
        self._model, self._states, self._places = model, states, places
        self.cursor = max(0, min(self.cursor, len(states) - 1))
        self._fit()
        if is_same:
            self._refresh_changed(before)
        else:
            self.refresh()

    def _refresh_changed(self, before: bytes) -> None:
        """Paint the lines on the screen whose tasks aren't as they were."""
        columns, top = self._columns, self.scroll_offset.y
        for y in range(top, top + self.size.height):
            part = slice(y * columns, (y + 1) * columns)
            if self._states[part] != before[part]:
                self.refresh_line(y)

    def _fit(self) -> None:
        """As many lines as the tasks need. A layout is made only where the scrollbar comes or goes."""
        size = Size(self.size.width, -(-len(self._states) // self._columns))
        if size == self.virtual_size:
            return
        if self.show_vertical_scrollbar and size.height > self.size.height and size.width == self.virtual_size.width:
            self.set_reactive(Widget.virtual_size, size)
            self.vertical_scrollbar.window_virtual_size = size.height
            self.scroll_y = self.scroll_target_y = self.validate_scroll_y(self.scroll_y)  # which a layout would do
        else:
            self.virtual_size = size

    @property
    def _columns(self) -> int:
        """Tasks in a line, beside the scrollbar where they need one: that is laid out once the lines are counted."""
        width = max(1, self.size.width)
        has_bar = -(-len(self._states) // width) > self.size.height
        return max(1, width - self.styles.scrollbar_size_vertical) if has_bar else width

    def on_resize(self) -> None:
        self._fit()

    def render_line(self, y: int) -> Strip:
        columns, style = self._columns, self.rich_style
        start = (y + self.scroll_offset.y) * columns
        cells = self._states[start : start + columns]
        segments = []
        for state, run in groupby(cells):
            text = self._shapes[state] * sum(1 for _ in run)
            segments.append(Segment(text, style + self.paint[LOOKS[State(state)].colour]))
        strip = Strip(segments, len(cells)).adjust_cell_length(self.size.width, style)
        at = self.cursor - start
        if 0 <= at < len(cells) and self.has_focus:
            mark = Strip([Segment(self._shapes[cells[at]], style + self.paint["cursor"])], 1)
            strip = Strip.join([strip.crop(0, at), mark, strip.crop(at + 1, self.size.width)])
        return strip

    def move(self, to: int) -> None:
        """Put the cursor on that cell, and the cell on the screen."""
        self.cursor = max(0, min(to, len(self._states) - 1))
        self.scroll_to_region(Region(0, self.cursor // self._columns, 1, 1), animate=False, force=True)
        self.refresh()
        self.post_message(self.Moved())

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        n = (event.y + self.scroll_offset.y) * self._columns + event.x
        if event.x < self._columns and n < len(self._states):
            is_again = n == self.cursor
            self.move(n)
            if is_again:
                self.action_choose()

    def action_choose(self) -> None:
        if self.place is not None:
            self.post_message(self.Chosen(self.place))

    def action_move(self, by: int) -> None:
        self.move(self.cursor + by)

    def action_move_line(self, by: int) -> None:
        to = self.cursor + by * self._columns
        if 0 <= to < len(self._states):
            self.move(to)

    def action_page(self, pages: float) -> None:
        self.move(self.cursor + int(pages * max(1, self.size.height)) * self._columns)

    def action_first(self) -> None:
        self.move(0)

    def action_last(self) -> None:
        self.move(len(self._states) - 1)
