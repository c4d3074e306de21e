"""The shapes that everything is drawn with: in Unicode, or in ASCII where a terminal has no more."""

from __future__ import annotations

import os
from typing import NamedTuple

from gx.tui.states import LOOKS, State


class Glyphs(NamedTuple):
    """`levels` fill a cell from below, from a little to all of it; `shares` fill it from the left."""

    is_ascii: bool
    levels: str
    shares: str
    rest: str
    arrow: str
    tree: tuple[str, str, str]
    dot: str
    more: str
    minus: str

    def state(self, state: int) -> str:
        """The shape of a task in that state."""
        look = LOOKS[State(state)]
        return look.ascii if self.is_ascii else look.shape


UNICODE = Glyphs(False, "▁▂▃▄▅▆▇█", "▏▎▍▌▋▊▉█", "░", "→", ("├─ ", "└─ ", "│  "), "·", "…", "−")
ASCII = Glyphs(True, ".:#", "#", ".", "->", ("|- ", "`- ", "|  "), "-", "~", "-")


def glyphs_for(encoding: str, *, is_ascii: bool | None = None) -> Glyphs:
    """What a terminal of that encoding can show; `is_ascii` decides, where somebody has said so.

    Under a locale that names another encoding, as C does, Python writes UTF-8 all the same: the locale is asked first.
    """
    if is_ascii is None:
        named = next((value for name in ("LC_ALL", "LC_CTYPE", "LANG") if (value := os.environ.get(name))), encoding)
        is_plain = os.environ.get("TERM") in ("linux", "vt100", "dumb")
        is_ascii = is_plain or any("utf" not in one.lower() for one in (encoding, named))
    return ASCII if is_ascii else UNICODE
