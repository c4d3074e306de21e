"""The verbs for what runs now: each is a client of the workspace's one node, a process of its own."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from gx.cli import history, live, run, steer
from gx.core.errors import GxError
from gx.output import exit_code_of
from tests import nodes
from tests.integration.project import ENDLESS, RECIPE, Done, Project

BRIEF = RECIPE.replace("max_tokens: 6", "max_tokens: 40")
STAYS = {"GX_NODE_LINGER_S": "60"}
"""So that one node serves a whole test, however slow the machine is; it ends with the test."""
APP = typer.Typer()
for verbs in (run, live, steer, history):
    verbs.register(APP)


def make(folder: Path, model: Path) -> Project:
    made = Project(folder)
    made.env |= STAYS
    made.write(BRIEF, model, rows=4)
    (folder / "endless.yaml").write_text(ENDLESS.replace("name: test", "name: endless"))
    return made


def enter(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Have this process stand in the project, as a shell does."""
    monkeypatch.chdir(project.folder)
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)
    return project


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, long: Path) -> Iterator[Project]:
    """A project whose node many tests ask."""
    made = make(tmp_path_factory.mktemp("live"), long)
    yield made
    made.close()


@pytest.fixture
def project(place: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """It has no live run when a test begins."""
    yield enter(place, monkeypatch)
    for name in place.live():
        gx("cancel", name)
    assert nodes.until(lambda: not place.live())


@pytest.fixture
def alone(tmp_path: Path, long: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project of the test's own, with no node yet."""
    made = enter(make(tmp_path, long), monkeypatch)
    yield made
    made.close()


class Said(Done):
    """A verb that ended, with its stdout as it is."""

    def __init__(self, status: int, out: str, err: str) -> None:
        super().__init__(status, out.encode() if out.startswith("{") else b"", err.encode())
        self.out = out


def gx(*words: str) -> Said:
    """What a verb says, which is a client as in a process of its own, without what it costs to start one."""
    result = CliRunner().invoke(APP, words)
    if isinstance(error := result.exception, GxError):
        return Said(exit_code_of(error), result.stdout, f"{result.stderr}error: {error.message}\n")
    if error is not None and not isinstance(error, SystemExit):
        raise error
    return Said(result.exit_code, result.stdout, result.stderr)


def detach(*words: str, recipe: str = "endless.yaml") -> str:
    """The id of a run that goes on by itself; nothing else is on stdout."""
    done = gx("run", recipe, "-i", "rows.jsonl", "--detach", "--fresh", *words)
    assert done.status == 0, done.err
    (name,) = done.out.split()
    assert f"run {name} goes on by itself" in done.err
    return name


def runs() -> dict[str, dict[str, Any]]:
    """The live runs, as `gx ps` has them."""
    done = gx("ps", "--json")
    assert done.status == 0, done.err
    return {row["run"]: row for row in done.records if row["kind"] == "run"}


def soon(run: str, **told: Any) -> dict[str, Any]:
    """The run as `gx ps` has it, as soon as it stands so."""
    found = nodes.until(lambda: (row := runs().get(run)) is not None and told.items() <= row.items() and row)
    assert found, runs()
    return found


def going(run: str) -> dict[str, Any]:
    """The run as `gx ps` has it, as soon as something of it runs."""
    found = nodes.until(lambda: (row := runs().get(run)) is not None and row["running"] > 0 and row)
    assert found, runs()
    return found


def happened(project: Project, run: str, kind: str) -> list[dict[str, Any]]:
    """What those events of the run say."""
    rows = project.ask_live(f"SELECT data FROM events WHERE run = '{run}' AND type = '{kind}' ORDER BY seq")
    return [json.loads(row["data"]) if isinstance(row["data"], str) else row["data"] for row in rows]


def test_where_no_node_is_up_nothing_runs_and_none_is_started(alone: Project) -> None:
    for words in (("ps",), ("node", "status"), ("node", "stop")):
        done = gx(*words)
        assert (done.status, done.out) == (0, "")
        assert "no node is up" in done.err
    for words in (("wait", "r"), ("pause", "r"), ("resume", "r"), ("cancel", "r")):
        done = gx(*words)
        assert (done.status, done.out) == (1, ""), words
        assert "there is no run" in done.err
    assert alone.node is None
    assert not alone.workspace.exists()


def test_a_detached_run_goes_on_without_its_command_and_is_waited_for(project: Project) -> None:
    command = project.start("run", "recipe.yaml", "-i", "rows.jsonl", "--detach", "--priority", "2.5").process
    out, err = command.communicate(timeout=180)
    assert command.returncode == 0, err
    (name,) = out.decode().split()
    done = gx("wait", name)
    assert (done.status, done.out) == (0, ""), done.err
    assert f"run {name}: 4 succeeded" in done.err
    assert gx("wait", name[:-2]).status == 0, "it is over by now, and known by the start of its name"
    (created,) = happened(project, name, "run.created")
    assert (created["priority"], created["is_detached"]) == (2.5, True)
    assert f"process {command.pid}" in created["by"]
    assert runs() == {}


def test_ps_tells_of_live_runs_and_of_the_bench(project: Project) -> None:
    name = detach("--priority", "3")
    row = going(name)
    assert (row["status"], row["is_detached"], row["clients"], row["priority"]) == ("running", True, 0, 3.0)
    assert (row["total"], row["done"], row["backlog"] + row["running"]) == (4, 0, 4)
    benches = [row for row in gx("ps", "--json").records if row["kind"] == "bench"]
    assert [(row["worker"], row["slots"]) for row in benches] == [("edge", 2)]
    done = gx("ps", "--plain")
    assert done.status == 0
    assert name in done.out
    assert "bench edge: " in done.out
    assert f"node: process {project.node}" in done.out


def test_a_run_is_paused_resumed_and_cancelled(project: Project) -> None:
    name = detach()
    going(name)
    assert f"paused {name}" in gx("pause", name).err
    soon(name, status="paused")
    assert f"{name} goes on" in gx("resume", name).err
    soon(name, status="running")
    sql = f"SELECT min(task) AS task FROM events WHERE run = '{name}' AND task IS NOT NULL"
    task = project.ask_live(sql)[0]["task"]
    assert f"cancelled {task}" in gx("cancel", name, "--task", task).err
    soon(name, done=1)
    assert f"cancelled {name}" in gx("cancel", name, "--reason", "wrong model").err
    done = gx("wait", name)
    assert done.status == 1
    assert "cancelled" in done.err
    (cancelled,) = happened(project, name, "run.cancelled")
    assert cancelled["reason"] == "wrong model"
    for kind in ("run.paused", "run.continued", "task.cancelled", "run.cancelled"):
        (event,) = happened(project, name, kind)
        assert "process" in event["by"], kind
    assert gx("cancel", name).status == 1


def test_a_live_run_is_changed_and_what_runs_is_taken_back(project: Project) -> None:
    name = detach()
    going(name)
    done = gx("change", name, "--concurrency", "1", "--deadline", "2h", "--priority", "0.5")
    assert f"{name}: concurrency 1, priority 0.5, deadline 7200" in done.err
    soon(name, concurrency=1, priority=0.5)
    (changed,) = happened(project, name, "run.changed")
    assert "process" in changed["by"] and changed["deadline_at"] > 0
    assert "what was running waits again" in gx("requeue", name).err
    assert nodes.until(lambda: happened(project, name, "attempt.lost"))
    nothing = gx("change", name)
    assert nothing.status == 2 and "nothing to change" in nothing.err
    assert gx("change", name, "--deadline", "soon").status == 2


def test_an_interrupted_run_is_resumed_without_a_terminal(project: Project) -> None:
    running = project.start("run", "endless.yaml", "-i", "rows.jsonl", "--fresh")
    (name,) = nodes.until(lambda: list(runs()))
    row = going(name)
    assert (row["clients"], row["is_detached"]) == (1, False)
    running.process.send_signal(signal.SIGINT)
    soon(name, status="draining")
    running.process.send_signal(signal.SIGINT)
    assert running.end().status == 130
    assert gx("wait", name).status == 130, "it is over, and was interrupted"
    assert f"{name} goes on" in gx("resume", name).err
    row = going(name)
    assert (row["clients"], row["is_detached"]) == (0, True)


def test_a_detached_run_outlives_its_node(alone: Project) -> None:
    name = detach()
    going(name)
    first = alone.kill_node()
    assert nodes.are_gone({first})
    assert "no node is up" in gx("ps").err
    assert f"{name} goes on" in gx("resume", name).err
    going(name)
    assert alone.node not in (None, first)


def test_a_node_is_started_to_stay_and_stopped(alone: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GX_NODE_LINGER_S", "0.1")
    assert "is up, and stays" in gx("node", "start").err
    node = nodes.until(lambda: alone.node)
    (row,) = gx("node", "status", "--json").records
    assert (row["pid"], row["stays"], row["runs"], row["workspace"]) == (node, True, 0, str(alone.workspace))
    done = alone.run("run", "recipe.yaml", "-i", "rows.jsonl")
    assert (done.status, len(done.records)) == (0, 4)
    assert alone.node == node
    assert "the node ended" in gx("node", "stop").err
    assert nodes.until(lambda: alone.node is None)
