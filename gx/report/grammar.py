"""What the charts of a report have in common, in the words of Vega-Lite (https://vega.github.io/vega-lite/). Pure.

A chart is told three times: as a drawing, as a sentence, and as a table of the same figures. Series differ by their
dashes as well as by their colours, which are names of CSS properties: the page gives them their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gx.run.history.report.values import Report

WIDE, THIRD = 800, 250
"""Pixels of a chart as wide as the page, and of one that has two beside it."""
INK, GRID, GOOD, BAD, OTHER = "var(--ink)", "var(--grid)", "var(--good)", "var(--bad)", "var(--other)"


class Chart(NamedTuple):
    """`name` is that of its file; `table` are rows under `columns`."""

    name: str
    title: str
    sentence: str
    spec: dict[str, Any]
    columns: tuple[str, ...]
    table: list[tuple[str, ...]]


def unit_of(run: Report) -> tuple[float, str]:
    """The unit of the axis of time, in seconds, and its name."""
    for limit, unit, name in ((259200, 86400, "days"), (10800, 3600, "hours"), (180, 60, "minutes")):
        if run.seconds >= limit:
            return float(unit), name
    return 1.0, "seconds"


def over_time(unit: str) -> dict[str, Any]:
    """A chart over the time of the run, as wide as the page."""
    x = {"field": "t", "type": "quantitative", "title": f"{unit} of the run", "scale": {"nice": False}}
    return {"width": WIDE, "encoding": {"x": x}, "config": config()}


def upward(field: str, title: str, *, ticks: int = 4) -> dict[str, Any]:
    axis = {"tickCount": ticks} | ({} if "a second" in title else {"tickMinStep": 1})
    return {"field": field, "type": "quantitative", "title": title, "axis": axis, "scale": {"zero": True}}


def bar(start: float, stop: float, n: float) -> dict[str, Any]:
    return {"t": start, "t2": stop, "n": n}


def told_apart(names: Sequence[str], colours: Sequence[str]) -> dict[str, Any]:
    """Series by colour and by dashes, named in a legend above."""
    legend = {"orient": "top", "title": None, "symbolType": "stroke", "symbolSize": 400, "symbolStrokeWidth": 2}
    dashes: list[list[int]] = [[1, 0], [6, 3], [2, 2]]
    scale = {"domain": list(names), "range": list(colours[: len(names)])}
    return {
        "color": {"field": "how", "type": "nominal", "scale": scale, "legend": legend},
        "strokeDash": {
            "field": "how",
            "type": "nominal",
            "scale": {"domain": list(names), "range": dashes[: len(names)]},
            "legend": legend,
        },
    }


def config() -> dict[str, Any]:
    axis = {"labelColor": INK, "titleColor": INK, "gridColor": GRID, "domainColor": GRID, "tickColor": GRID}
    font = "system-ui, sans-serif"
    return {
        "font": font,
        "background": None,
        "view": {"stroke": None},
        "axis": axis | {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "labelFlush": False},
        "axisX": {"grid": False, "tickCount": 8},
        "axisY": {"minExtent": 40, "titlePadding": 10},  # so that charts below each other begin at one place
        "legend": {"labelColor": INK, "labelFontSize": 11},
        "text": {"fontSize": 10, "font": font},
    }
