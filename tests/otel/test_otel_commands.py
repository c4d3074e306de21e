"""OpenTelemetry from the command line: switched on, replayed, and, left alone, never loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gx.output import ExitCode
from tests import nodes
from tests.integration.project import RECIPE, SLOW, Project, texts
from tests.otel.receiver import Received, told
from tests.test_import_hygiene import loaded
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf", context=512)


@pytest.fixture
def folder(tmp_path: Path, there: Received) -> Iterator[Project]:
    """A project whose environment names the collector."""
    made = Project(tmp_path)
    made.env |= named(there)
    yield made
    made.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[Project]:
    """A project of two rows, whose node stays for many tests."""
    made = Project(tmp_path_factory.mktemp("shared")).write(RECIPE, tiny, rows=2)
    made.env["GX_NODE_LINGER_S"] = "60"
    yield made
    made.close()


@pytest.fixture
def shared(place: Project, there: Received) -> Project:
    """The environment of that project names the collector."""
    place.env |= named(there)
    return place


def named(there: Received) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": there.url, "OTEL_EXPORTER_OTLP_HEADERS": "api-key=hunter2"}


def names(there: Received) -> list[str]:
    return sorted(span.name for span in there.spans())


def run(shared: Project, name: str, *words: str, **env: str) -> str:
    """The id of a run by that name, which computes its rows and ends well."""
    (shared.folder / "recipe.yaml").write_text(RECIPE.replace("name: test", f"name: {name}"))
    done = shared.run("run", "recipe.yaml", "-i", "rows.jsonl", "--fresh", *words, **env)
    assert (done.status, len(done.records)) == (ExitCode.ok, 2), done.err
    return next(line.split()[1] for line in done.err.splitlines() if line.startswith("run "))


def test_nothing_of_it_is_loaded_or_sent_unless_it_is_switched_on(shared: Project, there: Received) -> None:
    modules = loaded("import gx.node.serve, gx.node.local, gx.cli.run, gx.cli.running, gx.cli.export")
    assert "gx.node.telemetry" in modules
    assert not [name for name in modules if name.startswith(("opentelemetry", "google.protobuf"))]
    run(shared, "plain")
    assert not there.bodies


@pytest.mark.parametrize("how", ["flag", "variable", "file"])
def test_a_flag_a_variable_or_a_file_switches_it_on(shared: Project, there: Received, how: str) -> None:
    file = shared.folder / "gx.toml"
    if how == "file":
        file.write_text("otel = true\n")
    run(shared, how, *(["--otel"] if how == "flag" else []), **({"GX_OTEL": "1"} if how == "variable" else {}))
    file.unlink(missing_ok=True)
    assert nodes.until(lambda: f"invoke_workflow {how}" in names(there))
    assert names(there) == ["chat model.gguf"] * 2 + ["invoke_agent a"] * 2 + [f"invoke_workflow {how}", "step s"]
    assert {headers["api-key"] for headers in there.headers} == {"hunter2"}


def test_a_flag_switches_it_off(shared: Project, there: Received) -> None:
    run(shared, "off", "--no-otel", GX_OTEL="1")
    assert not there.bodies


def test_a_log_is_replayed_to_a_collector_with_the_same_ids(shared: Project, there: Received) -> None:
    name = run(shared, "replayed", "--otel")
    assert nodes.until(lambda: len(there.spans()) == 6)
    first = {span.SerializeToString(deterministic=True) for span in there.spans()}
    there.traces.clear()
    done = shared.run("export", name, "--to", "otlp")
    assert done.status == ExitCode.ok and f"6 spans of {name}" in done.err, done.err
    assert {span.SerializeToString(deterministic=True) for span in there.spans()} == first


def test_a_replay_that_does_not_arrive_is_an_error_with_what_to_do(shared: Project, there: Received) -> None:
    name = run(shared, "refused")
    there.statuses = [401, 401]
    done = shared.run("export", name, "--to", "otlp")
    assert done.status == ExitCode.error
    assert f"not all of {name}" in done.err and "traces: answered with status 401" in done.err
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in done.err
    assert shared.run("export", name, "--to", "otlp", "-o", "x").status == ExitCode.usage


def test_a_node_that_is_killed_has_a_successor_that_goes_on_in_the_same_trace(
    folder: Project, tiny: Path, there: Received
) -> None:
    running = folder.write(SLOW, tiny).start("run", "recipe.yaml", "-i", "-", "--otel")  # it can't end before the kill
    running.feed(*texts(10))
    assert nodes.until(lambda: len(there.spans()) > 2), "some were sent before"
    node = nodes.node_of(folder.workspace)
    assert node is not None
    nodes.kill(node)
    running.feed(*texts(20)[10:])
    done = running.end(timeout_s=100)
    assert done.status == ExitCode.ok and len(done.records) == 20, done.err
    assert nodes.until(lambda: "invoke_workflow test" in names(there))
    spans = there.spans()
    assert len({span.trace_id for span in spans}) == 1
    assert len([span for span in spans if not span.parent_span_id]) == 1
    told_of: dict[bytes, set[bytes]] = {}
    for span in spans:
        told_of.setdefault(span.span_id, set()).add(span.SerializeToString(deterministic=True))
    assert all(len(versions) == 1 for versions in told_of.values()), "what is sent again is the same"
    tasks = {told(span)["gx.task"] for span in spans if span.name == "invoke_agent a"}
    assert len(tasks) == 20
    parents = {span.parent_span_id for span in spans} - {b""}
    assert parents <= told_of.keys(), "no span is missing"


def test_a_collector_that_is_not_there_is_told_of_at_the_end_and_costs_no_row(folder: Project, tiny: Path) -> None:
    folder.write(SLOW, tiny, rows=30)
    words = ("run", "recipe.yaml", "-i", "rows.jsonl", "--otel")
    done = folder.run(*words, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert done.status == ExitCode.ok and len(done.records) == 30
    (note,) = [line for line in done.err.splitlines() if "OpenTelemetry" in line]
    assert "http://127.0.0.1:9" in note and "gx export test-" in note and note.endswith("--to otlp")


def test_the_audit_lists_what_was_sent(shared: Project, there: Received) -> None:
    name = run(shared, "audited", "--otel")
    assert nodes.until(lambda: there.metrics and len(there.spans()) == 6)
    done = shared.run("audit", "egress", name, "--json")
    assert {json.dumps(row["to"]) for row in done.records} == {json.dumps(there.url)}
    assert {row["sort"] for row in done.records} == {"traces", "metrics"}
    assert "of metrics and" in done.err and "of traces" in done.err
