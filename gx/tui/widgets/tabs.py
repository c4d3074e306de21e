"""The bar of views: a number and a name each, the chosen one marked by brackets too; a click goes there."""

from __future__ import annotations

from rich.text import Text
from textual import events
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from gx.tui.keys import TABS
from gx.tui.themes import Paint, paint_of
from gx.tui.widgets.drawn import strip_of


class TabBar(Widget):
    """One line. `notes` stand behind the name of a view, such as how many failed."""

    shown: reactive[str] = reactive(TABS[0].id)

    class Clicked(Message):
        """A view was clicked."""

        def __init__(self, tab: str) -> None:
            super().__init__()
            self.tab = tab

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.paint: Paint = paint_of("dark")
        self._notes: dict[str, str] = {}

    def note(self, notes: dict[str, str]) -> None:
        """What stands behind the names from now on."""
        if notes != self._notes:
            self._notes = notes
            self.refresh()

    def _cells(self) -> list[tuple[str, str]]:
        """Each view's id and its text; without notes, then without spaces, where the line is narrow."""
        room = self.size.width
        full = [(tab.id, f"{n} {tab.title}{self._notes.get(tab.id, '')}") for n, tab in enumerate(TABS, 1)]
        if sum(len(text) + 2 for _, text in full) <= room:
            return [(name, f"[{text}]" if name == self.shown else f" {text} ") for name, text in full]
        short = [(tab.id, f"{n} {tab.title}") for n, tab in enumerate(TABS, 1)]
        spare = room - sum(len(text) + 1 for _, text in short)
        if spare >= 1:
            after = " " if spare >= 2 else ""
            return [(name, f"[{text}]{after}" if name == self.shown else f"{text} ") for name, text in short]
        return [(tab.id, f"[{n} {tab.title}]" if tab.id == self.shown else f" {n} ") for n, tab in enumerate(TABS, 1)]

    def render_line(self, y: int) -> Strip:
        text = Text()
        for name, cell in self._cells():
            colour = "title" if name == self.shown else "alarm" if self._notes.get(name) else "muted"
            text.append(cell, self.paint[colour])
        return strip_of(self, text)

    def on_click(self, event: events.Click) -> None:
        at = 0
        for name, cell in self._cells():
            at += len(cell)
            if event.x < at:
                self.post_message(self.Clicked(name))
                return
