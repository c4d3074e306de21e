"""A pane whose lines are drawn by a function; a line that didn't change since is not painted again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest

from rich.text import Text
from textual.geometry import Region, Size
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
        blank = Text()
        pairs = zip_longest(lines, self._lines, fillvalue=blank)
        changed = [y for y, (new, old) in enumerate(pairs) if new != old or new.style != old.style]
        self._lines = lines
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def on_resize(self) -> None:
        self.redraw()
        self.refresh()

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
