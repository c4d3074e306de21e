"""The page of a report: HTML that stands alone, with no script, no link and nothing to be fetched.

What comes from recipes, rows, models and errors is text: escaped, and without characters that a reader can't see. The
page's own policy forbids whatever would slip through.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gx import __version__
from gx.core.inert import inert
from gx.report import words
from gx.report.charts import charts_of
from gx.report.draw import DARK, LIGHT, drawn, palette
from gx.run.history.report.values import Report

STATES = {"finished": "✓", "running": "▶", "paused": "‖", "interrupted": "◼", "stopped": "◼", "cancelled": "✗"}
"""A sign beside each status, so that no colour has to tell it."""


def page_of(run: Report) -> str:
    """The page. :raises GxError: if the charts can't be drawn."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_inert,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": words.number,
        "amount": words.amount,
        "seconds": lambda value: "" if value is None else words.seconds(value),
        "duration": words.duration,
        "instant": words.instant,
        "times": words.times,
        "usd": lambda value: f"${value:,.4f}",
    }
    charts = [(chart, Markup(drawn(chart))) for chart in charts_of(run)]
    page = environment.get_template("page.html").render(
        run=run,
        charts=charts,
        style=Markup((Path(__file__).parent / "page.css").read_text()),
        light=Markup(palette(LIGHT)),
        dark=Markup(palette(DARK)),
        sign=STATES.get(run.status, "•"),
        version=__version__,
    )
    return page.rstrip("\n") + "\n"


def _inert(value: Any) -> Any:
    return inert(value) if type(value) is str else value
