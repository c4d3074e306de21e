"""Text from elsewhere made harmless for a terminal: what a model, a row or a tool wrote can't move the cursor.

Control characters (C0, DEL, C1), escapes, and what changes the direction of text become U+FFFD; spaces of all kinds
become spaces, line ends become line feeds. Printable characters, line feeds and tabs stay as they are.
"""

from __future__ import annotations

import unicodedata

_KEPT = "\n\t"
MARK = "�"


def inert(text: str) -> str:
    """The text with nothing in it that a terminal would obey. Idempotent; no longer than the text."""
    if text.isprintable():
        return text
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return "".join(c if c.isprintable() or c in _KEPT else _stand_in(c) for c in text)


def inert_line(text: str) -> str:
    """The same on one line: line feeds and tabs become spaces."""
    return inert(text).replace("\n", " ").replace("\t", " ")


def _stand_in(char: str) -> str:
    kind = unicodedata.category(char)
    if kind == "Zs":
        return " "
    return "\n" if kind in ("Zl", "Zp") else MARK
