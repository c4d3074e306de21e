"""Charts as SVG: the only file that knows vl-convert, which draws Vega-Lite without a browser, a network or scripts.

An SVG for the page takes its colours from the page; `alone` gives one that any program can show.
"""

from __future__ import annotations

import re
from html import escape

from gx.core.errors import GxError
from gx.core.extras import installing
from gx.report.grammar import Chart

GRAMMAR = "6.4"
"""The version of Vega-Lite that charts are written for; vl-convert has several inside."""
LIGHT = {"ink": "#1f2933", "grid": "#d5dbe1", "good": "#0b6e99", "bad": "#b3450b", "other": "#6b7280"}
DARK = {"ink": "#dce3ea", "grid": "#3a444f", "good": "#5bb8e0", "bad": "#f0a067", "other": "#9aa5b1"}
"""Blue and orange can be told apart with any kind of colour vision (Okabe and Ito, https://jfly.uni-koeln.de/color/)."""
_ROLES = re.compile(r' (?:role|aria-[a-z]+|pointer-events|class|xmlns:xlink|version)="[^"]*"')
_LONG = re.compile(r"-?\d+\.\d{2,}(?:e-?\d+)?")
_PLACES = re.compile(r' (?:d|x|x2|y|y2|transform)="[^"]*"')


def drawn(chart: Chart) -> str:
    """The chart as an SVG that is one image with a description. :raises GxError: if vl-convert isn't installed."""
    try:
        import vl_convert
    except ImportError:
        raise GxError(
            "drawing needs vl-convert, which is not installed",
            code="report.extra",
            hint=f"{installing('report')}; `gx report --json` needs nothing more",
        ) from None
    svg = _ROLES.sub("", vl_convert.vegalite_to_svg(chart.spec, vl_version=GRAMMAR))
    svg = _PLACES.sub(lambda found: _LONG.sub(lambda one: f"{float(one[0]):.1f}", found[0]), svg)
    label = escape(f"{chart.title}. {chart.sentence}", quote=True)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def alone(svg: str) -> str:
    """The SVG with colours of its own, on white: not every program that shows SVG knows CSS."""
    for name, colour in LIGHT.items():
        svg = svg.replace(f"var(--{name})", colour)
    head, body = svg.split(">", 1)
    return f'{head}><rect width="100%" height="100%" fill="#ffffff"/>{body}\n'


def palette(colours: dict[str, str]) -> str:
    """The colours as CSS properties."""
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())
