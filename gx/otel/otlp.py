"""Spans and metrics as the bytes of OTLP 1.x: the one file that knows OpenTelemetry's packages.

It uses the protocol's own messages (opentelemetry-proto) and no SDK: that draws ids at random, reads the clock and this
process's environment, and sends from threads of its own, where here ids and instants are the log's, and what is sent is
an event before it leaves. https://opentelemetry.io/docs/specs/otlp/
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as m
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2 as t

from gx import __version__
from gx.core.bodies.telemetry import Sort
from gx.otel import conventions as c
from gx.otel.values import Attributes, Figure, Metric, Span

_NS = 1000
"""Nanoseconds in a microsecond."""


def traces(spans: Iterable[Span], resource: Attributes) -> bytes:
    """A request that brings these spans."""
    scope = t.ScopeSpans(scope=_scope(), spans=map(_span, spans), schema_url=c.SCHEMA)
    whole = t.ResourceSpans(resource=_resource(resource), scope_spans=[scope], schema_url=c.SCHEMA)
    return bytes(ExportTraceServiceRequest(resource_spans=[whole]).SerializeToString(deterministic=True))


def metrics(metrics: Iterable[Metric], resource: Attributes, *, start: int, at: int) -> bytes:
    """A request that brings these metrics, over the time from `start` to `at`, in µs since 1970."""
    made = [_metric(metric, start * _NS, at * _NS) for metric in metrics if metric.spreads or metric.figures]
    scope = m.ScopeMetrics(scope=_scope(), metrics=made, schema_url=c.SCHEMA)
    whole = m.ResourceMetrics(resource=_resource(resource), scope_metrics=[scope], schema_url=c.SCHEMA)
    return bytes(ExportMetricsServiceRequest(resource_metrics=[whole]).SerializeToString(deterministic=True))


def rejected(sort: Sort, answer: bytes) -> int:
    """How many of them a collector that took the request says that it would not keep."""
    try:
        if sort == "traces":
            return int(ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans)
        return int(ExportMetricsServiceResponse.FromString(answer).partial_success.rejected_data_points)
    except DecodeError:  # an answer in words, as some proxies give it
        return 0


def _span(span: Span) -> t.Span:
    errors: Attributes = {c.ERROR: span.error} if span.error else {}
    status = t.Status.StatusCode.STATUS_CODE_ERROR if span.error else t.Status.StatusCode.STATUS_CODE_UNSET
    kind = t.Span.SpanKind.SPAN_KIND_CLIENT if span.is_client else t.Span.SpanKind.SPAN_KIND_INTERNAL
    return t.Span(
        trace_id=bytes.fromhex(span.trace),
        span_id=bytes.fromhex(span.span),
        parent_span_id=bytes.fromhex(span.parent),
        name=span.name,
        kind=kind,
        start_time_unix_nano=span.start * _NS,
        end_time_unix_nano=span.end * _NS,
        attributes=_pairs(span.attributes | errors),
        status=t.Status(code=status),
    )


def _metric(metric: Metric, start: int, at: int) -> m.Metric:
    made = m.Metric(name=metric.name, unit=metric.unit, description=metric.description)
    whole_run = m.AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    if metric.bounds:
        made.histogram.aggregation_temporality = whole_run
        for spread in metric.spreads:
            made.histogram.data_points.append(
                m.HistogramDataPoint(
                    attributes=_pairs(spread.attributes),
                    count=spread.count,
                    sum=spread.total,
                    min=spread.least,
                    max=spread.most,
                    explicit_bounds=metric.bounds,
                    bucket_counts=spread.buckets,
                    start_time_unix_nano=start,
                    time_unix_nano=at,
                )
            )
        return made
    points = [_point(figure, start, at) for figure in metric.figures]
    if metric.only_grows:
        made.sum.CopyFrom(m.Sum(data_points=points, aggregation_temporality=whole_run, is_monotonic=True))
    else:
        made.gauge.CopyFrom(m.Gauge(data_points=points))
    return made


def _point(figure: Figure, start: int, at: int) -> m.NumberDataPoint:
    point = m.NumberDataPoint(attributes=_pairs(figure.attributes), start_time_unix_nano=start, time_unix_nano=at)
    if isinstance(figure.value, int):
        point.as_int = figure.value
    else:
        point.as_double = figure.value
    return point


def _scope() -> InstrumentationScope:
    return InstrumentationScope(name="gx", version=__version__)


def _resource(attributes: Attributes) -> Resource:
    return Resource(attributes=_pairs(attributes))


def _pairs(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in attributes.items()]


def _value(value: str | int | float | bool | tuple[str, ...]) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, tuple):
        return AnyValue(array_value=ArrayValue(values=map(_value, value)))
    return AnyValue(string_value=value)
