"""Which charts a report has: those that its run has figures for, in the order of the page. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gx.report import overtime
from gx.report.grammar import Chart
from gx.report.spreads import spread
from gx.run.history.report.values import Report


def charts_of(run: Report) -> list[Chart]:
    """The charts for which the run has figures, in the order of the page."""
    return list(_charts(run))


def _charts(run: Report) -> Iterator[Chart]:
    if any(m.succeeded or m.failed or m.others for m in run.moments):
        yield overtime.progress(run)
        yield overtime.answers(run)
    if any(m.tok_in or m.tok_out for m in run.moments):
        yield overtime.speed(run)
    if run.latency is not None:
        yield spread("latency", "How long answers took", run.latency)
    if run.tokens_in is not None:
        yield spread("tokens-in", "Tokens of a prompt", run.tokens_in)
    if run.tokens_out is not None:
        yield spread("tokens-out", "Tokens of an answer", run.tokens_out)
    if run.workers:
        yield overtime.workers(run)
    if any(one.end_s is not None for one in run.containers):
        yield overtime.containers(run)
