"""A run through a real node and a collector that decodes what it gets: whole, without content, and in nobody's way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gx.core import event as e
from gx.core.errors import UsageError
from gx.core.ids import digest
from gx.core.view import RunStatus
from gx.otel import conventions as c
from gx.otel.collector import Collector, collector_of
from tests.node.served import ENDLESS, Served, ended, recipe
from tests.otel.receiver import Received, receiving, told

NOWHERE = "http://127.0.0.1:9"
"""The port of a service (discard) that no machine has."""


def sent(served: Served, run: str, count: int = 1) -> list[e.TelemetryEnded]:
    """How the sendings of a run ended, once so many did."""
    return served.until(lambda: len(found := served.bodies(run, e.TelemetryEnded)) >= count and found)


def by_name(spans: list[Span]) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    for span in spans:
        found.setdefault(span.name, []).append(span)
    return found


def test_a_run_is_one_trace_with_all_its_parts(served: Served, there: Received) -> None:
    run = served.submit(recipe("traced"), fresh=True, is_detached=True, otel=there.collector()).run
    assert ended(served, run).run.succeeded == 3
    (how,) = sent(served, run)
    found = by_name(there.spans())
    assert {name: len(spans) for name, spans in found.items()} == {
        "chat tiny.gguf": 3, "invoke_agent a": 3, "step s": 1, "invoke_workflow traced": 1,
    }  # fmt: skip
    assert (how.arrived, how.left, how.error, how.to) == (8, 0, "", there.url)
    assert len({span.trace_id for span in there.spans()}) == 1
    (root,), ids = found["invoke_workflow traced"], {span.span_id for span in there.spans()}
    assert root.parent_span_id == b"" and root.kind == Span.SpanKind.SPAN_KIND_INTERNAL
    for span in there.spans():
        assert span is root or span.parent_span_id in ids
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    call = found["chat tiny.gguf"][0]
    assert call.kind == Span.SpanKind.SPAN_KIND_CLIENT
    attributes = told(call)
    assert attributes["gen_ai.operation.name"] == "chat" and attributes["gen_ai.usage.output_tokens"] > 0
    assert attributes["gen_ai.request.temperature"] == 1.0


def test_the_conventions_version_and_the_run_are_named(served: Served, there: Received) -> None:
    run = served.submit(
        recipe("named"), fresh=True, is_detached=True, otel=there.collector(OTEL_SERVICE_NAME="mine")
    ).run
    sent(served, run)
    (resource,) = there.traces[0].resource_spans
    assert resource.schema_url == resource.scope_spans[0].schema_url == c.SCHEMA
    assert (resource.scope_spans[0].scope.name, resource.scope_spans[0].scope.version) == ("gx", "0.1.0")
    named = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert (named["service.name"], named["service.instance.id"]) == ("mine", run)


def test_metrics_are_those_of_the_whole_run(served: Served, there: Received) -> None:
    run = served.submit(recipe("measured"), fresh=True, is_detached=True, otel=there.collector()).run
    sent(served, run)
    found = there.last_metrics()
    (duration,) = found[c.OPERATION_DURATION].histogram.data_points
    assert duration.count == 3 and tuple(duration.explicit_bounds) == c.DURATION_BOUNDS
    assert sum(duration.bucket_counts) == 3 and duration.start_time_unix_nano < duration.time_unix_nano
    usage = found[c.TOKEN_USAGE].histogram.data_points
    kinds = {pair.value.string_value for point in usage for pair in point.attributes if pair.key == c.TOKEN_TYPE}
    assert kinds == {"input", "output"}
    state = served.state(run)
    assert sum(point.sum for point in usage) == state.tokens_in + state.tokens_out
    (over,) = found["gx.tasks.ended"].sum.data_points
    assert (over.as_int, found["gx.tasks.running"].gauge.data_points[0].as_int) == (3, 0)


def test_no_content_and_no_id_of_a_row_is_sent(served: Served, there: Received) -> None:
    mark, place = "PRIVATEMARK", served.folder.parent
    rows = [{"id": f"{mark}-id-{n}", "text": f"{mark} text {n}"} for n in range(3)]
    (place / "marked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = recipe("marked").replace("You answer.", f"You {mark}.").replace('"{{', f'"{mark} {{{{')
    run = served.submit(text, inputs="marked.jsonl", fresh=True, is_detached=True, otel=there.collector()).run
    assert ended(served, run).run.succeeded == 3
    sent(served, run)
    answers = [
        bytes(v) for v in served.node.log.blobs([t.output or "" for t in served.state(run).tasks.values()]).values()
    ]
    assert len(there.spans()) == 8 and len(answers) > 0
    for body in there.bodies:
        assert mark.encode() not in body
        assert str(place).encode() not in body
        assert all(json.loads(answer).encode() not in body for answer in answers if len(answer) > 8)


def test_what_leaves_is_an_event_before_it_does(served: Served, there: Received) -> None:
    run = served.submit(recipe("leaves"), fresh=True, is_detached=True, otel=there.collector()).run
    sent(served, run)
    leaves = served.bodies(run, e.TelemetryLeaves)
    assert [(one.bytes, one.digest) for one in leaves] == [(len(body), digest(body)) for body in there.bodies]
    assert {one.sort for one in leaves} == {"traces", "metrics"} and {one.to for one in leaves} == {there.url}
    spans = {name for one in leaves if one.sort == "traces" for name in one.fields}
    assert spans == {name for span in there.spans() for name in told(span)} - {c.ERROR}


def test_a_secret_of_a_collector_is_sent_there_and_written_nowhere(served: Served, there: Received) -> None:
    keyed = there.collector(OTEL_EXPORTER_OTLP_HEADERS="api-key=hunter2s3cret", OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
    run = served.submit(recipe("keyed"), fresh=True, is_detached=True, otel=keyed).run
    sent(served, run)
    assert all(headers["api-key"] == "hunter2s3cret" for headers in there.headers)
    assert len(there.spans()) == 8
    assert "otel" not in served.client.ask("GET", f"/v1/runs/{run}/asked")["submission"]
    for file in served.folder.iterdir():
        assert not file.is_file() or b"hunter2s3cret" not in file.read_bytes(), file


def test_a_run_that_nobody_asked_to_trace_sends_nothing(served: Served, there: Received) -> None:
    run = served.submit(recipe("untraced"), is_detached=True).run
    ended(served, run)
    served.until(lambda: served.inside(lambda: served.node.telemetry.n_runs) == 0)  # as that of others is told by now
    assert not there.bodies and not served.bodies(run, e.TelemetryLeaves)


def test_a_dead_collector_fails_no_run_and_is_told_once(served: Served) -> None:
    nowhere = collector_of({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE})
    for flush_s in (0.5, 5.0, 20.0):  # the longer ones for a machine on which nothing is tried within the shorter
        served.node.telemetry.flush_s = flush_s
        run = served.submit(recipe("dead"), fresh=True, is_detached=True, otel=nowhere).run
        assert ended(served, run).run.status is RunStatus.finished
        (how,) = sent(served, run)
        assert (how.arrived, how.left, how.to) == (0, 8, NOWHERE)
        if served.bodies(run, e.TelemetryLeaves) and how.error:
            break
    assert "nobody answered" in how.error


def test_a_slow_collector_holds_up_no_run(served: Served, there: Received) -> None:
    served.node.telemetry.flush_s = 0.5
    there.hangs.clear()
    run = served.submit(recipe("slow"), fresh=True, is_detached=True, otel=there.collector()).run
    assert ended(served, run).run.succeeded == 3, "while the collector has not answered yet"
    (how,) = sent(served, run)
    assert how.left == 8


@pytest.mark.parametrize("status", [401, 404])
def test_a_collector_that_refuses_is_not_asked_again_and_what_is_left_is_counted(
    served: Served, there: Received, status: int
) -> None:
    there.statuses = [status] * 10
    run = served.submit(recipe(f"refused{status}"), fresh=True, is_detached=True, otel=there.collector()).run
    (how,) = sent(served, run)
    assert (how.arrived, how.left) == (0, 8)
    assert f"traces: answered with status {status}" in how.error
    assert len([one for one in served.bodies(run, e.TelemetryLeaves) if one.sort == "traces"]) == 1


def test_a_collector_of_traces_alone_gets_all_of_them(served: Served, there: Received) -> None:
    metrics = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": NOWHERE + "/v1/metrics"}
    only = there.collector(OTEL_METRICS_EXPORTER="none", **metrics)
    run = served.submit(recipe("traces-alone"), fresh=True, is_detached=True, otel=only).run
    (how,) = sent(served, run)
    assert (how.arrived, how.left, how.error) == (8, 0, "") and not there.metrics


def test_what_a_busy_collector_did_not_take_arrives_once(served: Served, there: Received) -> None:
    there.statuses = [503, 429]
    run = served.submit(recipe("busy"), fresh=True, is_detached=True, otel=there.collector()).run
    (how,) = sent(served, run)
    assert (how.arrived, how.left, how.error) == (8, 0, "")
    assert len(there.spans()) == len({span.span_id for span in there.spans()}) == 8


def test_spans_that_a_collector_rejects_are_counted(served: Served, there: Received) -> None:
    there.rejects = 2
    run = served.submit(recipe("rejects"), fresh=True, is_detached=True, otel=there.collector()).run
    (how,) = sent(served, run)
    assert how.left > 0 and "were rejected" in how.error and how.arrived + how.left == 8


def test_a_resumed_run_goes_on_in_its_trace_and_sends_nothing_twice(served: Served, there: Received) -> None:
    text = recipe("resumed", tokens=ENDLESS)
    run = served.submit(text, is_detached=True, otel=there.collector()).run
    served.until(lambda: served.state(run).leased)
    served.tell(run, "stop", reason="enough")
    sent(served, run)
    first = {span.span_id for span in there.spans()}
    assert first
    assert served.submit(text, is_detached=True, otel=there.collector()).run == run
    served.until(lambda: served.state(run).leased)
    served.tell(run, "cancel", reason="enough")
    sent(served, run, 2)
    spans = there.spans()
    assert len(spans) > len(first) and len({span.span_id for span in spans}) == len(spans)
    assert len({span.trace_id for span in spans}) == 1
    assert len([span for span in spans if not span.parent_span_id]) == 2


def test_a_finished_run_can_be_sent_later_with_the_same_ids(served: Served, there: Received) -> None:
    run = served.submit(recipe("later"), fresh=True, is_detached=True, otel=there.collector()).run
    sent(served, run)
    with receiving() as other:
        how = send(served, run, other.collector())
        assert (how.arrived, how.left, how.error) == (8, 0, "")
        assert sorted(map(exact, other.spans())) == sorted(map(exact, there.spans()))
        assert other.last_metrics()[c.TOKEN_USAGE] == there.last_metrics()[c.TOKEN_USAGE]


def test_a_node_knows_what_arrived_before_it(served: Served, there: Received) -> None:
    run = served.submit(recipe("known"), fresh=True, is_detached=True, otel=there.collector()).run
    (how,) = sent(served, run)
    arrived = served.node.telemetry._arrived
    assert arrived(run, there.collector()) == how.upto
    elsewhere = collector_of({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE})
    assert elsewhere is not None and arrived(run, elsewhere) == -1


def test_what_cannot_be_told_is_refused_before_the_run_begins(served: Served) -> None:
    bad = collector_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "gopher://x"})
    with pytest.raises(UsageError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        served.submit(recipe("refused"), otel=bad)


def send(served: Served, run: str, collector: Collector) -> e.TelemetryEnded:
    found: Any = served.client.ask("POST", f"/v1/runs/{run}/otel", collector, kind=e.TelemetryEnded, timeout_s=60)
    return found


def exact(span: Span) -> bytes:
    return span.SerializeToString(deterministic=True)


def test_what_is_sent_after_a_runs_end_belongs_to_none_of_its_seconds(served: Served, there: Received) -> None:
    run = served.submit(recipe("seconds"), fresh=True, is_detached=True, otel=there.collector()).run
    sent(served, run)
    assert send(served, run, there.collector()).left == 0
    sql = f"SELECT seconds, epoch(ended - started) AS lasted FROM runs WHERE run = '{run}'"
    (row,) = served.client.ask("POST", "/v1/query", {"sql": sql})["rows"]
    assert row["seconds"] == pytest.approx(row["lasted"])
