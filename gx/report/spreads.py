"""How values are spread, as a histogram with its percentiles. Pure."""

from __future__ import annotations

from gx.report.grammar import GOOD, INK, THIRD, Chart, bar, config, upward
from gx.report.words import amount, number, seconds
from gx.run.history.report.values import Bin, Spread

LEAST_BINS = 8
"""With fewer, there is room beside them: one bar as wide as the chart says nothing."""


def spread(name: str, title: str, found: Spread) -> Chart:
    """A histogram with the median and two percentiles. What lies beyond the last bound is one pale bar."""
    unit = "seconds" if found.unit == "s" else "tokens"
    width = (found.bins[0].stop or 1.0) - found.bins[0].start
    bars = [
        bar(one.start, one.start + width if one.stop is None else one.stop, one.count) | {"more": one.stop is None}
        for one in found.bins
    ]
    marks = [{"t": found.p50, "name": "median"}, {"t": found.p90, "name": "90 %"}, {"t": found.p99, "name": "99 %"}]
    room = max(0.0, LEAST_BINS - len(bars)) / 2 * width
    x = {
        "field": "t",
        "type": "quantitative",
        "title": unit,
        "scale": {"nice": False, "domain": [max(0.0, bars[0]["t"] - room), bars[-1]["t2"] + room]},
        "axis": {"tickMinStep": width, "tickCount": 6, "labelOverlap": True},
    }
    spec = {
        "width": THIRD,
        "height": 170,
        "layer": [
            {
                "data": {"values": bars},
                "mark": {"type": "bar", "color": GOOD, "stroke": GOOD, "binSpacing": 1},
                "encoding": {
                    "x": x | {"bin": "binned"},
                    "x2": {"field": "t2"},
                    "y": upward("n", "answers", ticks=min(4, max(one.count for one in found.bins))),
                    "fillOpacity": {"condition": {"test": "datum.more", "value": 0.25}, "value": 0.8},
                },
            },
            *(
                {
                    "data": {"values": [mark]},
                    "layer": [
                        {"mark": {"type": "rule", "color": INK, "strokeDash": [3, 2 + 2 * n]}},
                        {
                            "mark": {"type": "text", "align": "left", "dx": 4, "baseline": "top", "color": INK},
                            "encoding": {"y": {"value": -38 + 12 * n}, "text": {"field": "name"}},
                        },
                    ],
                    "encoding": {"x": x},
                }
                for n, mark in enumerate(marks)
            ),
        ],
        "config": config(),
    }
    show = seconds if found.unit == "s" else amount
    over = next((one for one in found.bins if one.stop is None), None)
    beyond = f" Beyond {show(over.start)} (the pale bar): {number(over.count)}." if over else ""
    return Chart(
        name=name,
        title=title,
        sentence=f"Half of {number(found.count)} answers: up to {show(found.p50)}; 90 %: up to {show(found.p90)}; "
        f"99 %: up to {show(found.p99)}; at most {show(found.most)}.{beyond}",
        spec=spec,
        columns=(unit, "answers"),
        table=[(_bounds(one, found.unit), number(one.count)) for one in found.bins],
    )


def _bounds(one: Bin, unit: str) -> str:
    if unit == "tokens" and one.stop is not None and one.stop - one.start == 1:
        return number(one.start)
    start = f"{one.start:,g}"
    return f"{start} or more" if one.stop is None else f"{start} to under {one.stop:,g}"
