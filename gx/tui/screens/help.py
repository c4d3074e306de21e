"""The keys that are in force, by where they hold."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from gx.tui import keys
from gx.tui.widgets.longtext import LongText, Part


class Help(ModalScreen[None]):
    """Lists every key. `keymap` are those that the settings changed."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,f1,enter", "leave", "back")]

    def __init__(self, keymap: dict[str, str]) -> None:
        super().__init__()
        self._keymap = keymap

    def compose(self) -> ComposeResult:
        with Vertical(classes="window tall") as window:
            window.border_title = "Keys"
            yield LongText()

    def on_mount(self) -> None:
        text = self.query_one(LongText)
        text.show(parts(self._keymap))
        text.focus()

    def action_leave(self) -> None:
        self.dismiss(None)


def parts(keymap: dict[str, str]) -> list[Part]:
    """A heading a group, then a line a key."""
    found = []
    for where, bindings in keys.groups().items():
        found.append(Part(where, "bold"))
        for one in bindings:
            pressed = keys.shown(keymap.get(one.id or "", one.key))
            what = f"{one.description}: {one.tooltip}" if one.tooltip else one.description
            found.append(Part(f"  {pressed:<13} {what}  ({one.id})"))
        found.append(Part(""))
    return [*found, Part("Other keys: monitor_keys in the settings, by these names.", "dim")]
