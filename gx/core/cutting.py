"""A text that is longer than a model takes, cut in two as often as it must be, so that all of it is read."""

from __future__ import annotations

LEAST_CHARS = 8
"""A part that is still too long at that length will be so at any."""


def halves(text: str) -> tuple[str, str]:
    """A text cut in two near its middle, at a space if there is one in its second quarter."""
    middle = len(text) // 2
    at = max(text.rfind(" ", middle // 2, middle), text.rfind("\n", middle // 2, middle))
    cut = at + 1 if at >= 0 else middle
    return text[:cut], text[cut:]
