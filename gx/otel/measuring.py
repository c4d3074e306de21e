"""A run's metrics: how long calls of the model took and what they used, what waits and runs, what it cost.

All are over the whole run so far: whoever folds the same events has the same figures, so what is sent twice, or by a
node's successor, counts once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from gx.core import event as e
from gx.core.projection import fold
from gx.core.renting import RENTING
from gx.core.view import View
from gx.otel import conventions as c
from gx.otel.tracing import Tracer
from gx.otel.values import Attributes, Figure, Metric, Span, Spread

_TOKEN_TYPES = {c.TOKENS_IN: "input", c.TOKENS_OUT: "output"}
_TOLD = (c.OPERATION, c.PROVIDER, c.MODEL)
_FOLDED = (e.RunCreated, *RENTING)


class _Series:
    """A histogram's counts with one set of attributes."""

    def __init__(self, attributes: Attributes, bounds: tuple[float, ...]) -> None:
        self._attributes, self._bounds = attributes, bounds
        self._total, self._least, self._most = 0.0, float("inf"), 0.0
        self._buckets = [0] * (len(bounds) + 1)

    def add(self, value: float) -> None:
        """A bucket holds what is at most its bound."""
        self._buckets[bisect_left(self._bounds, value)] += 1
        self._total += value
        self._least, self._most = min(self._least, value), max(self._most, value)

    def spread(self) -> Spread:
        return Spread(
            attributes=self._attributes,
            count=sum(self._buckets),
            total=self._total,
            least=self._least,
            most=self._most,
            buckets=tuple(self._buckets),
        )


class Measures:
    """Folds the events of one run, each after `tracer` took it. `began` and `now` are its first and its last one's."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer, self._run, self._view = tracer, "", View()
        self._tokens: dict[tuple[object, ...], _Series] = {}
        self._seconds: dict[tuple[object, ...], _Series] = {}
        self._superseded = 0
        self.began = self.now = 0

    def take(self, event: e.Event, spans: Iterable[Span]) -> None:
        """Count an event and the spans that it ended."""
        body = event.body
        if isinstance(body, e.RunCreated):
            self._run, self.began = body.run, event.ts
        if isinstance(body, _FOLDED):
            fold(self._view, event)
        if isinstance(body, e.AttemptSuperseded):
            self._superseded += body.tok_in + body.tok_out
        self.now = max(self.now, event.ts)
        for span in spans:
            if span.is_client:
                self._count(span)

    def metrics(self) -> list[Metric]:
        """All of them, as of the last event."""
        running = sum(task.leased is not None for task in self._tracer.tasks.values())
        ended = tuple(Figure(attributes={"gx.status": s}, value=n) for s, n in sorted(self._tracer.ended.items()))
        rent = self._view.runs[self._run].rent if self._run in self._view.runs else None
        return [
            Metric(
                name=c.OPERATION_DURATION,
                unit="s",
                description="GenAI operation duration.",
                bounds=c.DURATION_BOUNDS,
                spreads=tuple(series.spread() for series in self._seconds.values()),
            ),
            Metric(
                name=c.TOKEN_USAGE,
                unit="{token}",
                description="Number of input and output tokens used.",
                bounds=c.TOKEN_BOUNDS,
                spreads=tuple(series.spread() for series in self._tokens.values()),
            ),
            _figure("gx.tasks.queued", "{task}", "Tasks that wait.", len(self._tracer.tasks) - running),
            _figure("gx.tasks.running", "{task}", "Tasks that a worker has.", running),
            Metric(
                name="gx.tasks.ended", unit="{task}", description="Tasks that ended.", figures=ended, only_grows=True
            ),
            Metric(
                name="gx.tokens.superseded",
                unit="{token}",
                description="Tokens of attempts that came too late.",
                figures=(Figure(attributes={}, value=self._superseded),),
                only_grows=True,
            ),
            _figure("gx.cost", "{USD}", "Dollars spent, as far as is known.", rent.paid_usd if rent else 0.0),
        ]

    def _count(self, span: Span) -> None:
        told: Attributes = {name: span.attributes[name] for name in _TOLD}
        _add(self._seconds, told | ({c.ERROR: span.error} if span.error else {}), c.DURATION_BOUNDS, _seconds(span))
        for name, kind in _TOKEN_TYPES.items():
            if isinstance(used := span.attributes.get(name), int):
                _add(self._tokens, told | {c.TOKEN_TYPE: kind}, c.TOKEN_BOUNDS, used)


def _add(known: dict[tuple[object, ...], _Series], told: Attributes, bounds: tuple[float, ...], value: float) -> None:
    key = tuple(told.items())
    if key not in known:
        known[key] = _Series(told, bounds)
    known[key].add(value)


def _seconds(span: Span) -> float:
    return (span.end - span.start) / 1e6


def _figure(name: str, unit: str, description: str, value: float) -> Metric:
    return Metric(name=name, unit=unit, description=description, figures=(Figure(attributes={}, value=value),))
