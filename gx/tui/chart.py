"""A series as a chart of characters: a scale on the left, a filled area, the time below. Pure."""

from __future__ import annotations

from math import ceil, isfinite
from statistics import fmean

from gx.tui.glyphs import Glyphs

_SCALE = 7
"""Columns of the scale, with the space behind it."""


def chart(
    values: list[float], *, width: int, height: int, span_s: float, glyphs: Glyphs, until: str = "now"
) -> list[str]:
    """`height` lines of `width` cells: an area of the values, the last of them at the right, over `span_s` seconds.

    `until` says what the right end is.

    They fill the width: of more values than columns, a column shows the mean of its own; of fewer, several show one.
    The scale's top is a round number.
    """
    columns = max(1, width - _SCALE)
    rows = max(1, height - 1)
    shown = fitted(values, columns)
    top = round_up(max(shown, default=0.0))
    lines = [_row(shown, row, rows, top, columns, glyphs) for row in range(rows)]
    return [*lines, _axis(span_s, width, until)][:height]


def _row(values: list[float], row: int, rows: int, top: float, columns: int, glyphs: Glyphs) -> str:
    """Row 0 is the highest. A value above nothing always shows something."""
    levels = glyphs.levels
    n = len(levels)
    base = (rows - 1 - row) * n
    cells = []
    for value in values:
        height = 0 if value <= 0 else max(1, round(value / top * rows * n))
        part = min(n, height - base)
        cells.append(levels[part - 1] if part > 0 else " ")
    label = short(top) if row == 0 else short(0) if row == rows - 1 else ""
    return f"{label:>{_SCALE - 1}} " + "".join(cells)


def _axis(span_s: float, width: int, right: str) -> str:
    left = f"-{ago(span_s)}"
    room = width - _SCALE - len(left) - len(right)
    return " " * _SCALE + (left + " " * room + right if room > 0 else right.rjust(max(0, width - _SCALE)))


def fitted(values: list[float], columns: int) -> list[float]:
    """So many values: means of as many neighbours as it takes, each as often as fills the columns; none of none.

    Neighbours stay together as more come, so that what was drawn of the past stands still.
    """
    if not values:
        return []
    share = -(-len(values) // columns)
    means = [fmean(values[n : n + share]) for n in range(0, len(values), share)]
    return [means[n * len(means) // columns] for n in range(columns)]


def round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, … that is no less; 1 at least."""
    if not isfinite(value) or value <= 1:
        return 1.0
    scale = 10.0 ** (len(str(ceil(value))) - 1)
    return next(n * scale for n in (1, 2, 5, 10) if n * scale >= value)


def short(value: float) -> str:
    """A number in five characters: `0`, `950`, `1.2k`, `35k`, `1.2M`."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            share = value / limit
            return f"{share:.0f}{unit}" if share >= 10 or share == int(share) else f"{share:.1f}{unit}"
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def ago(seconds: float) -> str:
    """A time in a few characters: `42s`, `12m`, `3h`, `2d`."""
    for limit, unit in ((172800, 86400), (7200, 3600), (120, 60)):
        if seconds >= limit:
            return f"{seconds / unit:.0f}{'d' if unit == 86400 else 'h' if unit == 3600 else 'm'}"
    return f"{seconds:.0f}s"
