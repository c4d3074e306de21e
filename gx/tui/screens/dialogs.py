"""Small windows that ask one thing: whether to do something, which of some choices, or a few values; or tell one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from gx.core.inert import inert, inert_line
from gx.tui.widgets.longtext import LongText, Part
from gx.tui.widgets.rows import Rows


class Confirm(ModalScreen[bool]):
    """Says what would be done, and waits for `y`. Everything else leaves it undone."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes"),
        Binding("n,escape,q,enter", "answer(False)", "no"),
    ]

    def __init__(self, title: str, lines: Sequence[str]) -> None:
        super().__init__()
        self._title, self._lines = title, lines

    def compose(self) -> ComposeResult:
        with Vertical(classes="window") as window:
            window.border_title = self._title
            yield LongText(Part("\n".join(self._lines)))
            yield Static(Text.from_markup("\n[b]y[/b] yes, do it    [b]n[/b] no"), classes="hint")

    def on_mount(self) -> None:
        self.query_one(LongText).focus()  # of a long one j and k show the rest

    def action_answer(self, is_yes: bool) -> None:
        self.dismiss(is_yes)


class Tell(ModalScreen[None]):
    """Shows a text that had no room where it stood."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter", "leave", "back")]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        with Vertical(classes="window") as window:
            window.border_title = inert_line(self._title)
            yield LongText(Part(self._text))

    def on_mount(self) -> None:
        self.query_one(LongText).focus()

    def action_leave(self) -> None:
        self.dismiss(None)


class Choose(ModalScreen[str | None]):
    """Asks for one of some choices. None: nothing was chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "leave", "back")]

    def __init__(self, title: str, text: str, choices: Sequence[str]) -> None:
        super().__init__()
        self._title, self._text, self._choices = title, text, choices

    def compose(self) -> ComposeResult:
        with Vertical(classes="window") as window:
            window.border_title = self._title
            yield Static(Text(inert(self._text) + "\n"))
            yield Rows(lambda choice, _: Text(f"  {inert_line(choice)}"), empty="there is no choice", id="choices")

    def on_mount(self) -> None:
        rows = self.query_one(Rows)
        rows.styles.height = len(self._choices)
        rows.show(self._choices)
        rows.focus()

    def on_rows_chosen(self, message: Rows.Chosen) -> None:
        message.stop()
        self.dismiss(message.row)

    def action_leave(self) -> None:
        self.dismiss(None)


class Fill(ModalScreen[list[str] | None]):
    """Asks for a few values, each by its label and what it is now. None: it was left."""

    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "back")]

    def __init__(self, title: str, fields: Sequence[tuple[str, str]], hint: str) -> None:
        super().__init__()
        self._title, self._fields, self._hint = title, fields, hint

    def compose(self) -> ComposeResult:
        with Vertical(classes="window") as window:
            window.border_title = self._title
            for label, value in self._fields:
                yield Static(Text(label))
                yield Input(value, compact=True)
            yield Static(Text(f"\n{self._hint}"), classes="hint")

    def on_input_submitted(self) -> None:
        inputs = list(self.query(Input))
        at = next((n for n, one in enumerate(inputs) if one.has_focus), 0)
        if at + 1 < len(inputs):
            inputs[at + 1].focus()
        else:
            self.dismiss([one.value for one in inputs])

    def action_leave(self) -> None:
        self.dismiss(None)
