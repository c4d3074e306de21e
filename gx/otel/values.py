"""Spans and metrics as values, and the ids of spans.

Ids are digests of what a span is about, so that whoever tells of it, a node, its successor or an export years later,
tells of the same span of the same trace.
"""

from __future__ import annotations

from gx.core.ids import digest_of
from gx.core.message import Value

Attributes = dict[str, str | int | float | bool | tuple[str, ...]]


class Span(Value, frozen=True, kw_only=True):
    """Something that took time. `trace` is 32 hex digits, `span` and `parent` 16; instants are µs since 1970.

    `error` is its class of error, "" if it is none. `seq` is the event that ended it.
    """

    trace: str
    span: str
    parent: str = ""
    name: str
    is_client: bool = False
    start: int
    end: int
    attributes: Attributes = {}
    error: str = ""
    seq: int = -1


class Spread(Value, frozen=True, kw_only=True):
    """One series of a histogram: `buckets` has one count more than the metric has bounds."""

    attributes: Attributes
    count: int
    total: float
    least: float
    most: float
    buckets: tuple[int, ...]


class Figure(Value, frozen=True, kw_only=True):
    """One series of a metric that is a number."""

    attributes: Attributes
    value: float


class Metric(Value, frozen=True, kw_only=True):
    """A metric, over the run so far. One with `spreads` is a histogram; one with `figures` a gauge, or, if it
    `only_grows`, a sum.
    """

    name: str
    unit: str
    description: str
    bounds: tuple[float, ...] = ()
    spreads: tuple[Spread, ...] = ()
    figures: tuple[Figure, ...] = ()
    only_grows: bool = False


def trace_id(run: str, started_at: float) -> str:
    """The trace of a run, 32 hex digits: two runs of one name, in two workspaces, began at two instants."""
    return digest_of("trace", run, started_at)


def span_id(trace: str, *about: str | int) -> str:
    """The span of that trace about that: 16 hex digits."""
    return digest_of(trace, *about)[:16]
