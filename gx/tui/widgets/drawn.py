"""A pane whose lines are drawn by a function; what didn't change since is not painted again."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget

Draw = Callable[[int, int], list[Text]]
"""Width and height in cells → lines; more than fit are cut off."""


class Drawn(Widget):
    """Shows what `draw` gives. Call `redraw` when that may have changed."""

    def __init__(self, draw: Draw, *, title: str = "", id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._draw = draw
        self._lines: list[Text] = []
        self._wanted = 0
        self.border_title = title or None

    def redraw(self) -> None:
        """Draw anew, if the pane is on the screen."""
        if not self.is_attached or not self.display:
            return
        drawn = self._draw(self.size.width, self.size.height)
        if self.styles.is_auto_height and len(drawn) != self._wanted:
            self._wanted = len(drawn)
            self.refresh(layout=True)
        lines = drawn[: self.size.height]
        if lines != self._lines or [line.spans for line in lines] != [line.spans for line in self._lines]:
            self._lines = lines
            self.refresh()

    def on_resize(self) -> None:
        self._lines = []
        self.redraw()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._draw(width or container.width, container.height))

    def render_line(self, y: int) -> Strip:
        return strip_of(self, self._lines[y] if y < len(self._lines) else Text())


def strip_of(widget: Widget, text: Text, *, width: int | None = None) -> Strip:
    """A line as wide as the widget, on its background."""
    cells = widget.size.width if width is None else width
    style = widget.rich_style
    if text.style and not text.spans:  # rich forgets the style of a text that has no other
        text = Text.assemble((text.plain, text.style))
    strip = Strip(text.render(widget.app.console))
    return strip.apply_style(style).adjust_cell_length(cells, style)
