"""The verbs for what runs now, by the real command: each is a client of the workspace's one node."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import nodes
from tests.integration.project import ENDLESS, RECIPE, Project

BRIEF = RECIPE.replace("max_tokens: 6", "max_tokens: 40")
STAYS = {"GX_NODE_LINGER_S": "60"}
"""So that one node serves a whole test, however slow the machine is; it ends with the test."""


@pytest.fixture
def project(tmp_path: Path, long: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    made.env |= STAYS
    made.write(BRIEF, long, rows=4)
    (tmp_path / "endless.yaml").write_text(ENDLESS.replace("name: test", "name: endless"))
    yield made
    made.close()


def detach(project: Project, *words: str, recipe: str = "endless.yaml") -> str:
    """The id of a run that goes on by itself; nothing else is on stdout."""
    command = project.start("run", recipe, "-i", "rows.jsonl", "--detach", *words).process
    out, err = command.communicate(timeout=180)
    assert command.returncode == 0, err
    (run,) = out.decode().split()
    assert f"run {run} goes on by itself" in err.decode()
    return run


def runs(project: Project) -> dict[str, dict[str, Any]]:
    """The live runs, as `gx ps` has them."""
    done = project.run("ps", "--json")
    assert done.status == 0, done.err
    return {row["run"]: row for row in done.records if row["kind"] == "run"}


def soon(project: Project, run: str, **told: Any) -> dict[str, Any]:
    """The run as `gx ps` has it, as soon as it stands so."""
    found = nodes.until(lambda: (row := runs(project).get(run)) is not None and told.items() <= row.items() and row)
    assert found, runs(project)
    return found


def going(project: Project, run: str) -> dict[str, Any]:
    """The run as `gx ps` has it, as soon as something of it runs."""
    found = nodes.until(lambda: (row := runs(project).get(run)) is not None and row["running"] > 0 and row)
    assert found, runs(project)
    return found


def plain(project: Project, *words: str) -> tuple[int, str, str]:
    command = project.start(*words).process
    out, err = command.communicate(timeout=180)
    assert b"Traceback" not in err, err
    return command.returncode, out.decode(), err.decode()


def happened(project: Project, run: str, kind: str) -> list[dict[str, Any]]:
    """What those events of the run say."""
    rows = project.ask_live(f"SELECT data FROM events WHERE run = '{run}' AND type = '{kind}' ORDER BY seq")
    return [json.loads(row["data"]) if isinstance(row["data"], str) else row["data"] for row in rows]


def test_where_no_node_is_up_nothing_runs_and_none_is_started(project: Project) -> None:
    for words in (("ps",), ("node", "status"), ("node", "stop")):
        status, out, err = plain(project, *words)
        assert (status, out) == (0, "")
        assert "no node is up" in err
    for words in (("wait", "r"), ("pause", "r"), ("resume", "r"), ("cancel", "r")):
        status, out, err = plain(project, *words)
        assert (status, out) == (1, ""), words
        assert "there is no run" in err
    assert project.node is None
    assert not project.workspace.exists()


def test_a_detached_run_goes_on_without_its_command_and_is_waited_for(project: Project) -> None:
    run = detach(project, "--priority", "2.5", recipe="recipe.yaml")
    done = project.run("wait", run)
    assert done.status == 0, done.err
    assert done.records == []
    assert f"run {run}: 4 succeeded" in done.err
    assert project.run("wait", run[:-2]).status == 0, "it is over by now, and known by the start of its name"
    (created,) = happened(project, run, "run.created")
    assert (created["priority"], created["is_detached"]) == (2.5, True)
    assert "process" in created["by"]
    assert runs(project) == {}


def test_ps_tells_of_live_runs_and_of_the_bench(project: Project) -> None:
    run = detach(project, "--priority", "3")
    row = going(project, run)
    assert (row["status"], row["is_detached"], row["clients"], row["priority"]) == ("running", True, 0, 3.0)
    assert (row["total"], row["done"], row["backlog"] + row["running"]) == (4, 0, 4)
    benches = [row for row in project.run("ps", "--json").records if row["kind"] == "bench"]
    assert [(row["worker"], row["slots"]) for row in benches] == [("edge", 2)]
    status, out, _ = plain(project, "ps", "--plain")
    assert status == 0
    assert run in out
    assert "bench edge: " in out
    assert f"node: process {project.node}" in out


def test_a_run_is_paused_resumed_and_cancelled(project: Project) -> None:
    run = detach(project)
    going(project, run)
    assert f"paused {run}" in project.run("pause", run).err
    soon(project, run, status="paused")
    assert f"{run} goes on" in project.run("resume", run).err
    soon(project, run, status="running")
    task = project.ask_live(f"SELECT min(task) AS task FROM events WHERE run = '{run}' AND task IS NOT NULL")[0]["task"]
    assert f"cancelled {task}" in project.run("cancel", run, "--task", task).err
    soon(project, run, done=1)
    assert f"cancelled {run}" in project.run("cancel", run, "--reason", "wrong model").err
    done = project.run("wait", run)
    assert done.status == 1
    assert "cancelled" in done.err
    (cancelled,) = happened(project, run, "run.cancelled")
    assert cancelled["reason"] == "wrong model"
    for kind in ("run.paused", "run.continued", "task.cancelled", "run.cancelled"):
        (event,) = happened(project, run, kind)
        assert "process" in event["by"], kind
    assert project.run("cancel", run).status == 1


def test_a_live_run_is_changed_and_what_runs_is_taken_back(project: Project) -> None:
    run = detach(project)
    going(project, run)
    done = project.run("change", run, "--concurrency", "1", "--deadline", "2h", "--priority", "0.5")
    assert f"{run}: concurrency 1, priority 0.5, deadline 7200" in done.err
    soon(project, run, concurrency=1, priority=0.5)
    (changed,) = happened(project, run, "run.changed")
    assert "process" in changed["by"] and changed["deadline_at"] > 0
    assert "what was running waits again" in project.run("requeue", run).err
    nodes.until(lambda: happened(project, run, "attempt.lost"))
    nothing = project.run("change", run)
    assert nothing.status == 2 and "nothing to change" in nothing.err
    assert project.run("change", run, "--deadline", "soon").status == 2
    project.run("cancel", run)


def test_an_interrupted_run_is_resumed_without_a_terminal(project: Project) -> None:
    running = project.start("run", "endless.yaml", "-i", "rows.jsonl")
    (run,) = nodes.until(lambda: list(runs(project)))
    row = going(project, run)
    assert (row["clients"], row["is_detached"]) == (1, False)
    running.process.send_signal(signal.SIGINT)
    soon(project, run, status="draining")
    running.process.send_signal(signal.SIGINT)
    assert running.end().status == 130
    assert project.run("wait", run).status == 130, "it is over, and was interrupted"
    assert f"{run} goes on" in project.run("resume", run).err
    row = going(project, run)
    assert (row["clients"], row["is_detached"]) == (0, True)


def test_a_detached_run_outlives_its_node(project: Project) -> None:
    run = detach(project)
    going(project, run)
    first = project.kill_node()
    assert "no node is up" in project.run("ps").err
    assert f"{run} goes on" in project.run("resume", run).err
    going(project, run)
    assert project.node not in (None, first)


def test_a_node_is_started_to_stay_and_stopped(project: Project) -> None:
    project.env["GX_NODE_LINGER_S"] = "0.1"
    assert "is up, and stays" in project.run("node", "start").err
    node = nodes.until(lambda: project.node)
    (row,) = project.run("node", "status", "--json").records
    assert (row["pid"], row["stays"], row["runs"], row["workspace"]) == (node, True, 0, str(project.workspace))
    done = project.run("run", "recipe.yaml", "-i", "rows.jsonl")
    assert (done.status, len(done.records)) == (0, 4)
    assert project.node == node
    assert "the node ended" in project.run("node", "stop").err
    assert nodes.until(lambda: project.node is None)
