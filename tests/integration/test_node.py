"""Many terminals on one workspace: the node serves them all, outlives them, and is replaced where it dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gx.core.errors import WorkspaceError
from gx.node.call import Client
from gx.node.start import ensure
from gx.node.workspace import Workspace
from gx.output import ExitCode
from tests import nodes
from tests.integration.project import GX, HELD, RECIPE, SLOW, Done, Project, texts

COMPUTED = "SELECT count(*) FROM events WHERE type = 'task.succeeded' AND data->>'$.cached' IS NULL"
ROWS = 14
ALL = [row["id"] for row in texts(ROWS)]
GRACE_S = 10.0
"""`gx.node.liveruns.REATTACH_S`: how long a run waits for a client that vanished."""


@pytest.fixture
def slow(folder: Project, tiny: Path) -> Project:
    """Each row takes a tenth of a second or so."""
    return folder.keep().write(SLOW, tiny, rows=ROWS)


@pytest.fixture
def other(held: Project) -> Project:
    """Beside the recipe there is another one, over rows of its own: `other.yaml`. Runs of both live until let go."""
    (held.folder / "other.yaml").write_text(HELD.replace("name: test", "name: other"))
    (held.folder / "others.jsonl").write_text("".join(json.dumps({"text": f"Tell {n}."}) + "\n" for n in range(ROWS)))
    return held


OTHER = ("run", "other.yaml", "-i", "others.jsonl")
STREAM = ("run", "recipe.yaml", "-i", "-")
"""A run that lives as long as its input is open."""


# ── one node, many clients ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_node_outlives_its_client_and_leaves_when_nobody_came(project: Project) -> None:
    assert project.run(GX_NODE_LINGER_S="60").status == ExitCode.ok
    node = project.node
    assert node is not None and nodes.benches_of(node)
    bench = {process.pid for process in nodes.benches_of(node)}
    again = project.run("run", "recipe.yaml", "-i", "rows.jsonl", "--fresh")
    assert (again.status, len(again.records)) == (ExitCode.ok, 20)
    assert not any(record["cached"] for record in again.records)
    assert project.node == node and {process.pid for process in nodes.benches_of(node)} == bench  # the model stayed
    nodes.kill(node, signal.SIGTERM)
    project.rest()
    assert nodes.are_gone(bench)
    assert len(project.run(GX_NODE_LINGER_S=str(nodes.LINGER_S)).records) == 20
    assert nodes.until(lambda: not nodes.nodes_of(project.workspace)), "it lingers for a moment only"
    assert project.ask("SELECT count(*) FROM events WHERE type = 'node.started'") == [(2,)]
    assert not (project.workspace / "gx.sock").exists()
    assert project.ask("SELECT type FROM events ORDER BY seq DESC LIMIT 1") == [("node.stopped",)]


def test_clients_that_start_at_once_share_one_node_and_one_run_of_a_recipe(other: Project) -> None:
    clients = [other.start(), other.start(*OTHER), other.start()]
    for running in clients:
        running.record()
    assert len(nodes.nodes_of(other.workspace)) == 1
    both = "SELECT count(DISTINCT run) AS n FROM events WHERE type = 'task.succeeded'"
    assert other.ask_live(both) == [{"n": 2}]
    assert sorted(run.clients for run in other.live().values()) == [1, 2]
    other.let_go(2)
    ends = [running.end() for running in clients]
    assert [(done.status, len(done.records), len(set(done.ids))) for done in ends] == [(ExitCode.ok, ROWS, ROWS)] * 3
    assert {r["id"]: r["output"] for r in ends[0].records} == {r["id"]: r["output"] for r in ends[2].records}
    assert other.ask(COMPUTED) == [(2 * ROWS,)]
    assert other.ask("SELECT count(*) FROM runs") == [(2,)]
    assert other.ask("SELECT count(*) FROM events WHERE type = 'node.started'") == [(1,)]
    other.assert_nothing_was_computed_twice()


def test_ctrl_c_leaves_a_shared_run_to_the_other_client(held: Project) -> None:
    first = held.start()
    first.record()
    second = held.start()
    second.record()
    first.process.send_signal(signal.SIGINT)
    assert first.end().status == ExitCode.interrupted
    assert nodes.until(lambda: [run.clients for run in held.live().values()] == [1])
    held.let_go()
    done = second.end()
    assert (done.status, len(done.ids)) == (ExitCode.ok, ROWS)
    held.assert_nothing_was_computed_twice()


def test_the_log_is_read_while_a_run_is_live(project: Project) -> None:
    follow = project.start("log", "--follow", "--type", "task.succeeded")
    running = project.start(*STREAM)  # it lives until its input ends
    running.feed(*texts(ROWS))
    running.record()
    sql = "SELECT status, count(*) FILTER (type = 'x') AS none FROM runs, events GROUP BY status"
    assert project.run("sql", sql, "--json").records == [{"status": "running", "none": 0}]
    story = project.run("show", project.ask_live("SELECT run FROM runs")[0]["run"], "--json")
    assert story.records[0]["status"] == "running"
    assert project.run("log", "--verify", "--json").records[0]["is_whole"]
    refused = project.run("sql", "DELETE FROM events")
    assert refused.status != ExitCode.ok and "Traceback" not in refused.err
    assert project.live(), "it was over before it was asked about"
    done = running.end()
    followed = [follow.record() for _ in range(ROWS)]
    follow.process.kill()
    assert sorted(line["seq"] for line in followed) == [line["seq"] for line in followed]
    assert {line["task"] for line in followed} == {task for (task,) in project.ask("SELECT task FROM tasks")}
    assert done.status == ExitCode.ok


def test_errors_of_a_run_come_through_the_node_with_their_exit_codes(project: Project) -> None:
    running = project.start(*STREAM)
    running.feed(*texts(1))
    running.record()
    (project.folder / "bad.yaml").write_text(RECIPE.replace("agent: a,", "agent: b,"))
    bad = project.run("run", "bad.yaml", "-i", "rows.jsonl")
    assert bad.status == ExitCode.usage and bad.err.startswith("bad.yaml:7:")
    (project.folder / "away.yaml").write_text(RECIPE.replace("./model.gguf", "./away.gguf"))
    assert project.run("run", "away.yaml", "-i", "rows.jsonl").status == ExitCode.error
    assert project.run("run", "recipe.yaml", "-i", "none.jsonl").status == ExitCode.usage
    assert running.end().status == ExitCode.ok


# ── pipes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_run_is_the_input_of_another(project: Project) -> None:
    (project.folder / "second.yaml").write_text(
        RECIPE.replace("name: test", "name: second").replace("item.text", "item.output")
    )
    first = subprocess.Popen(
        [*GX, "run", "recipe.yaml", "-i", "rows.jsonl"], cwd=project.folder, env=project.env,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    second = subprocess.run(
        [*GX, "run", "second.yaml", "-i", "-"], cwd=project.folder, env=project.env,
        stdin=first.stdout, capture_output=True, timeout=180, check=False,
    )  # fmt: skip
    done = Done(second.returncode, second.stdout, second.stderr)
    assert first.stdout is not None
    first.stdout.close()
    _, err = first.communicate(timeout=180)
    assert first.returncode == ExitCode.ok, err
    assert (done.status, len(done.ids)) == (ExitCode.ok, 20)
    assert project.ask("SELECT name, status FROM runs ORDER BY name") == [("second", "finished"), ("test", "finished")]


def test_a_reader_that_has_enough_ends_its_own_run_only(slow: Project) -> None:
    (slow.folder / "other.yaml").write_text(RECIPE.replace("name: test", "name: other"))
    slow.add(*({"id": f"{n}", "text": "Say it.", "more": "x" * 20_000} for n in range(200)))  # more than a pipe holds
    beside = slow.start("run", "other.yaml", "-i", "-")
    beside.feed(*texts(1))
    beside.record()
    command = f"{' '.join(GX)} run recipe.yaml -i rows.jsonl --with-input | head -1"
    first = subprocess.run(["sh", "-c", command], cwd=slow.folder, env=slow.env, capture_output=True, timeout=180)
    assert len(first.stdout.splitlines()) == 1
    assert b"Traceback" not in first.stderr and b"Exception" not in first.stderr
    beside.feed(*texts(ROWS)[1:])
    done = beside.end()
    assert (done.status, len(done.ids)) == (ExitCode.ok, ROWS)
    assert dict(slow.ask("SELECT name, status FROM runs")) == {"other": "finished", "test": "interrupted"}
    slow.assert_nothing_was_computed_twice()


# ── whoever dies ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_of_rows_survives_a_kill_of_the_node(project: Project) -> None:
    running = project.start("run", "recipe.yaml", "-i", "-")
    running.feed(*texts(6)[:3])
    printed = [running.record() for _ in range(3)]
    killed = project.kill_node()
    running.feed(*texts(6)[3:5])
    printed += [running.record() for _ in range(2)]
    assert project.node not in (None, killed)
    running.feed(*texts(6)[5:])
    done = running.end()
    assert (done.status, done.ids) == (ExitCode.ok, [row["id"] for row in texts(6)])
    assert project.ask("SELECT status FROM runs") == [("finished",)]
    assert project.ask("SELECT count(*) FROM events WHERE type = 'node.started'") == [(2,)]
    project.assert_nothing_was_computed_twice()


def test_when_the_node_dies_every_client_goes_on_and_prints_each_row_once(other: Project) -> None:
    running = [other.start(), other.start(), other.start(*OTHER)]
    for one in running:
        one.record()
    benches = {bench.pid for bench in nodes.benches_of(other.node or 0)}
    other.kill_node()
    assert benches and nodes.are_gone(benches)
    other.let_go(2)
    for done in [one.end() for one in running]:
        assert (done.status, len(done.records), len(set(done.ids))) == (ExitCode.ok, ROWS, ROWS), done.err
        assert "the node died; the next one goes on" in done.err
    epochs = other.ask("SELECT (data->>'$.epoch')::INT FROM events WHERE type = 'node.started' ORDER BY seq")
    assert epochs == [(1,), (2,)]
    other.assert_nothing_was_computed_twice()


def test_a_client_that_is_killed_may_come_back_for_its_run(held: Project) -> None:
    first = held.start()
    printed = [first.record() for _ in range(3)]
    began = time.monotonic()
    first.process.kill()
    first.process.wait()
    second = held.start()
    second.record()
    is_back_in_time = time.monotonic() - began < GRACE_S
    held.let_go()
    done = second.end()
    assert (done.status, len(done.ids)) == (ExitCode.ok, ROWS)
    assert all(record in done.records for record in printed)
    assert held.ask("SELECT count(*) FROM runs") == [(1,)]
    if is_back_in_time:  # else a slow machine has shown the same of a run that was interrupted
        assert not held.ask("SELECT * FROM events WHERE type IN ('run.interrupted', 'attempt.lost')")
    held.assert_nothing_was_computed_twice()


def test_a_run_whose_client_was_killed_and_stays_away_is_interrupted(slow: Project) -> None:
    slow.add(*texts(400)[ROWS:])  # more than can be done in the time
    first = slow.start()
    first.record()
    began = time.monotonic()
    first.process.kill()
    assert nodes.until(lambda: slow.states == ["unattended"] and not slow.is_running)
    ((before,),) = (row.values() for row in slow.ask_live(COMPUTED))
    rows = nodes.until(lambda: slow.ask_live("SELECT 1 FROM runs WHERE status = 'interrupted'"), GRACE_S + 60)
    assert rows and time.monotonic() - began >= GRACE_S
    told = "SELECT data->>'$.reason' AS reason FROM events WHERE type = 'run.interrupted'"
    assert slow.ask_live(told) == [{"reason": "its client went away"}]
    ((computed,),) = (row.values() for row in slow.ask_live(COMPUTED))
    assert computed == before, "it got new grants with nobody there"
    assert not slow.ask_live("SELECT * FROM events WHERE type = 'attempt.lost'")  # what was running came to its end


def test_a_node_that_is_told_to_end_drains_its_runs(slow: Project) -> None:
    running = slow.start()
    running.record()
    nodes.kill(slow.node or 0, signal.SIGTERM)
    done = running.end()
    assert done.status == ExitCode.interrupted and 1 <= len(done.records) < ROWS
    assert "go on with: " in done.err
    slow.rest()
    assert not slow.ask("SELECT * FROM events WHERE type = 'attempt.lost'")
    assert slow.resume(done.err).ids == ALL
    slow.assert_nothing_was_computed_twice()


def test_a_run_that_is_asked_of_a_node_that_leaves_is_the_next_ones(endless: Project) -> None:
    for name in ("here", "detached"):
        (endless.folder / f"{name}.yaml").write_text(RECIPE.replace("name: test", f"name: {name}"))
    first = endless.start()
    assert nodes.until(lambda: endless.states == ["running"] and endless.is_running)
    node = endless.node or 0
    nodes.kill(node, signal.SIGTERM)
    assert nodes.until(lambda: endless.states == ["draining"])
    first.process.kill()
    asked = (("run", "here.yaml", "-i", "rows.jsonl"), ("run", "detached.yaml", "-i", "rows.jsonl", "--detach"))
    waiting = [endless.start(*words) for words in asked]
    for one in waiting:
        assert one.process.stderr is not None
        assert b"the node is leaving" in one.process.stderr.readline()
    nodes.kill(node, signal.SIGTERM)  # at once
    attached = waiting[0].end()
    assert (attached.status, len(attached.ids)) == (ExitCode.ok, 3)
    assert "leaving" not in attached.err
    out, err = waiting[1].process.communicate(timeout=180)
    assert waiting[1].process.returncode == ExitCode.ok and b"Traceback" not in err
    assert nodes.until(lambda: not endless.live() and endless.node is not None)
    ended = endless.ask("SELECT name, run, status FROM runs WHERE name <> 'test' ORDER BY name")
    assert [(name, status) for name, _, status in ended] == [("detached", "finished"), ("here", "finished")]
    assert out.decode().strip() == ended[0][1]


def test_a_run_that_is_resumed_as_its_node_leaves_goes_on_at_the_next_one(endless: Project) -> None:
    began, _ = endless.start("run", "recipe.yaml", "-i", "rows.jsonl", "--detach").process.communicate(timeout=180)
    run = began.decode().strip()
    assert nodes.until(lambda: endless.states == ["running"] and endless.is_running)
    node = endless.node or 0
    nodes.kill(node, signal.SIGTERM)
    assert nodes.until(lambda: endless.states == ["draining"])
    resuming = endless.start("resume", run)
    assert resuming.process.stderr is not None
    assert b"the node is leaving" in resuming.process.stderr.readline()
    Client(endless.workspace).ask("POST", f"/v1/runs/{run}/stop", {})  # what runs would never end
    done = resuming.end()
    assert (done.status, f"{run} goes on" in done.err) == (ExitCode.ok, True)
    assert list(endless.live()) == [run] and endless.node != node
    assert endless.run("cancel", run).status == ExitCode.ok
    ends = "SELECT type FROM events WHERE type IN ('run.interrupted', 'run.resumed', 'run.cancelled') ORDER BY seq"
    assert endless.ask(ends) == [("run.interrupted",), ("run.resumed",), ("run.cancelled",)]


# ── where it is ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def pair(tmp_path: Path, tiny: Path) -> Iterator[tuple[Project, Project]]:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (Project(tmp_path / name).write(RECIPE, tiny, rows=0) for name in ("one", "two"))
    yield one, two
    one.close()
    two.close()


def test_two_workspaces_do_not_touch(pair: tuple[Project, Project]) -> None:
    one, two = pair
    running = [one.start(*STREAM), two.start(*STREAM)]
    for client in running:
        client.feed(*texts(1))
        client.record()
    assert None not in (one.node, two.node) and one.node != two.node
    one.kill_node()
    for client in running:
        client.feed(*texts(ROWS)[1:])
    for done in [client.end() for client in running]:
        assert (done.status, len(done.ids)) == (ExitCode.ok, ROWS)
    starts = "SELECT count(*) FROM events WHERE type = 'node.started'"
    assert (one.ask(starts), two.ask(starts)) == ([(2,)], [(1,)])
    assert one.ask(COMPUTED) == two.ask(COMPUTED) == [(ROWS,)]


def test_a_workspace_on_a_path_too_long_for_a_socket_works(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = project.folder / ("d" * 90) / ("e" * 90) / "ws"
    deep.parent.mkdir(parents=True)
    project.workspace, project.env["GX_WORKSPACE"] = deep, str(deep)
    with tempfile.TemporaryDirectory(prefix="gx") as sockets:
        project.env["XDG_RUNTIME_DIR"] = sockets
        monkeypatch.setenv("XDG_RUNTIME_DIR", sockets)  # where this process looks for the node too
        running = project.start(*STREAM)
        running.feed(*texts(ROWS)[:5])
        running.record()
        (made,) = Path(sockets).rglob("*.sock")
        assert made.parent.stat().st_mode & 0o777 == 0o700 and made.stat().st_mode & 0o177 == 0
        assert project.run("sql", "SELECT status FROM runs", "--json").records == [{"status": "running"}]
        project.kill_node()
        running.feed(*texts(ROWS)[5:])
        done = running.end()
        assert (done.status, len(done.ids)) == (ExitCode.ok, ROWS)
        project.rest()
        assert not [*Path(sockets).rglob("*.sock")]
    project.assert_nothing_was_computed_twice()


def test_a_folder_that_another_program_keeps_locked_is_refused_by_name(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GX_NODE_LINGER_S", str(nodes.LINGER_S))
    with Workspace(project.workspace).exclusive():
        with pytest.raises(WorkspaceError) as refused:
            ensure(project.workspace, within_s=1.5)
        assert f"in use by process {os.getpid()}" in refused.value.message


def test_a_client_that_waits_for_a_program_which_has_the_folder_gets_it_then(project: Project) -> None:
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with Workspace(project.workspace).exclusive():
            held.set()
            free.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    running = project.start()
    time.sleep(1)
    assert running.process.poll() is None
    free.set()
    done = running.end()
    holder.join()
    assert (done.status, len(done.ids)) == (ExitCode.ok, 20)
