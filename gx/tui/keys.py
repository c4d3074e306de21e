"""Every key of the monitor, in one place: what it is called in the settings, the keys it has, what it does.

`monitor_keys` in the settings gives a name other keys; the footer and the help show those that are in force.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from textual.binding import Binding

from gx.core.errors import SettingsError

COMPACT_CELLS = 100
"""On a narrower screen the footer has no spaces around its keys."""


class Tab(NamedTuple):
    """One of the views: its id, what stands in the bar, and what it shows."""

    id: str
    title: str
    told: str


TABS = (
    Tab("run", "Run", "all of it at a glance"),
    Tab("tasks", "Tasks", "a cell each; enter opens one"),
    Tab("workers", "Workers", "slots, containers, tasks"),
    Tab("failures", "Failures", "by cause"),
    Tab("decisions", "Decisions", "what, and why"),
    Tab("asked", "Asked", "what a person is asked"),
    Tab("events", "Events", "the log as it is written"),
    Tab("sql", "SQL", "ask the log"),
    Tab("runs", "Runs", "every run of the workspace"),
)


def _key(name: str, keys: str, action: str, what: str, *, show: bool = False, told: str = "") -> Binding:
    """`told` is what it does in a sentence, for the help and the palette."""
    return Binding(keys, action, what, show=show, id=name, tooltip=told)


APP = (
    _key("quit", "q", "leave", "Leave", show=True, told="the run goes on"),
    _key("help", "question_mark,f1", "help", "Keys", show=True, told="each key, and what it does"),
    _key("palette", "colon,ctrl+p", "command_palette", "Commands", show=True, told="find a command by its name"),
    *(
        _key(f"tab-{tab.id}", str(n), f"show_tab('{tab.id}')", tab.title, told=tab.told)
        for n, tab in enumerate(TABS, 1)
    ),
    _key("pause", "p", "pause", "Pause", show=True, told="begin nothing new, or let it go on"),
    _key("limits", "c", "limits", "Change", show=True, told="tasks at once, tokens, deadline"),
    _key("burst", "b", "burst", "Burst", show=True, told="plan it, see the price, then agree"),
    _key("cancel", "x", "cancel", "Cancel", show=True, told="give the run up for good"),
    _key("retry", "r", "retry", "Retry", show=True, told="what failed, in a new run"),
    _key("answer", "a", "answer", "Answer", told="what a person is asked"),
    _key("filter", "slash", "filter", "Filter", show=True, told="only rows that have a text"),
    _key("state", "s", "state", "Tasks of a state", told="the next state a press"),
    _key("theme", "t", "next_theme", "Theme", told="dark, light, contrast, plain"),
    _key("leave-box", "escape", "leave_box", "Out of a box", told="keys are keys again"),
    _key("next-run", "right_square_bracket", "next_run(1)", "Next run", told="show the newer run"),
    _key("previous-run", "left_square_bracket", "next_run(-1)", "Previous run", told="show the older run"),
)
LIST = (
    _key("down", "j,down", "move(1)", "Down"),
    _key("up", "k,up", "move(-1)", "Up"),
    _key("half-down", "ctrl+d", "page(0.5)", "Half a page down"),
    _key("half-up", "ctrl+u", "page(-0.5)", "Half a page up"),
    _key("page-down", "pagedown,ctrl+f", "page(1)", "A page down"),
    _key("page-up", "pageup,ctrl+b", "page(-1)", "A page up"),
    _key("first", "g,home", "first", "First"),
    _key("last", "G,end", "last", "Last"),
    _key("open", "enter", "choose", "Open"),
)
GRID = (
    *(one for one in LIST if one.id not in ("down", "up")),
    _key("grid-down", "j,down", "move_line(1)", "Down"),
    _key("grid-up", "k,up", "move_line(-1)", "Up"),
    _key("left", "h,left", "move(-1)", "Left"),
    _key("right", "l,right", "move(1)", "Right"),
)
TEXT = (
    _key("text-down", "j,down", "scroll(1)", "Down"),
    _key("text-up", "k,up", "scroll(-1)", "Up"),
    *(one for one in LIST if one.id not in ("down", "up", "open")),
)
DETAIL = (
    _key("back", "escape,q", "back", "Back", show=True, told="back to the run"),
    _key("copy-answer", "y", "copy('answer')", "Copy answer", show=True, told="to the clipboard"),
    _key("copy-prompt", "Y", "copy('prompt')", "Copy prompt", show=True, told="to the clipboard"),
    _key("editor", "e", "edit", "Open", show=True, told="in $VISUAL or $EDITOR"),
    _key("retry-task", "r", "retry", "Retry", show=True, told="the task waits again"),
    _key("fork", "f", "fork", "Fork", show=True, told="a new run, anew from this step"),
    _key("cancel-task", "x", "cancel", "Cancel", show=True, told="give the task up for good"),
    _key("why", "w", "why", "Why", show=True, told="why the task has its state"),
)


def groups() -> dict[str, tuple[Binding, ...]]:
    """The keys by where they hold."""
    return {"everywhere": APP, "in lists": LIST, "in the grid of tasks": GRID[-4:], "in a task": DETAIL}


def shown(keys: str) -> str:
    """Keys as they stand on a keyboard."""
    return " ".join(_NAMES.get(key, key) for key in keys.split(","))


_NAMES = {"question_mark": "?", "slash": "/", "colon": ":", "right_square_bracket": "]", "left_square_bracket": "[",
          "escape": "esc", "pagedown": "pgdn", "pageup": "pgup"}  # fmt: skip


def keymap(wanted: dict[str, str]) -> dict[str, str]:
    """The keys of the settings. :raises SettingsError: naming what no key is called."""
    names = {one.id for one in _all() if one.id}
    if unknown := [name for name in wanted if name not in names]:
        hint = f"there are: {', '.join(sorted(names))}"
        raise SettingsError(f"monitor_keys: no key is called `{unknown[0]}`", hint=hint)
    return wanted


def _all() -> Iterable[Binding]:
    return (one for group in groups().values() for one in group)
