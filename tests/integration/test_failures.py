"""What goes wrong around `gx run`, by the real command: each ends in a clear message and an exit code of its own.

Nothing that was acknowledged is lost or computed again, whatever it was that failed.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import time
from typing import Any

import pytest

from gx.node.workspace import Workspace
from gx.output import ExitCode
from tests import nodes
from tests.integration.project import RECIPE, Project, texts

# ── the recipe and the input ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_bad_recipe_exits_2_and_points_at_the_place(project: Project) -> None:
    (project.folder / "recipe.yaml").write_text(RECIPE.replace("agent: a,", "agent: b,"))
    done = project.run()
    assert done.status == ExitCode.usage
    first, snippet, caret, *_ = done.err.splitlines()
    line, col = map(int, first.split(":")[1:3])
    assert first.startswith("recipe.yaml:7:") and "expected one of the agents, got `b`" in first
    assert snippet.strip() == RECIPE.splitlines()[line - 1].replace("agent: a,", "agent: b,").strip()
    assert caret.index("^") == snippet.index("agent: b") + len("agent: ") == col + 1
    assert not project.workspace.exists() or not project.ask("SELECT * FROM runs")


def test_a_recipe_that_is_no_text_exits_2_and_points_at_the_byte(project: Project) -> None:
    (project.folder / "recipe.yaml").write_bytes(b"version: 1\nname: \xff\n")
    done = project.run()
    assert (done.status, done.err.splitlines()[0]) == (2, "recipe.yaml:2:7: error: expected UTF-8, got the byte 0xff")


def test_an_empty_input_exits_0_without_records(project: Project) -> None:
    (project.folder / "rows.jsonl").write_text("")
    done = project.run()
    assert (done.status, done.records) == (ExitCode.ok, [])
    piped = project.run("run", "recipe.yaml", "-i", "-")
    assert (piped.status, piped.records) == (ExitCode.ok, [])


def test_a_bad_row_fails_alone_and_the_run_exits_3(project: Project) -> None:
    with (project.folder / "rows.jsonl").open("a") as rows:
        rows.write('{"id": "bad", "text"\n')
    done = project.run()
    assert done.status == ExitCode.some_failed
    (failed,) = [record for record in done.records if record["status"] == "failed"]
    assert (failed["index"], failed["error"]["code"]) == (20, "row")
    assert "line 21: malformed JSON" in failed["error"]["message"]
    assert len(done.records) == 21


def test_names_that_are_not_utf8_are_no_matter(project: Project) -> None:
    recipe, rows = os.fsdecode(b"caf\xe9.yaml"), os.fsdecode(b"r\xe9.jsonl")
    shutil.copy(project.folder / "recipe.yaml", project.folder / recipe)
    shutil.copy(project.folder / "rows.jsonl", project.folder / rows)
    done = project.run("run", recipe, "-i", rows)
    assert (done.status, len(done.records)) == (ExitCode.ok, 20)


def test_a_socket_is_no_input_and_exits_2(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(project.folder)  # a socket has no long path
        listening.bind("rows.sock")
        done = project.run("run", "recipe.yaml", "-i", "rows.sock")
    assert done.status == ExitCode.usage
    assert "rows.sock: expected a file that can be read, got: " in done.err


def test_a_model_that_is_not_there_exits_1_and_says_how_to_fetch_it(project: Project) -> None:
    (project.folder / "recipe.yaml").write_text(RECIPE.replace("./model.gguf", "hf:nobody/nothing/none.gguf"))
    done = project.run(GX_OFFLINE="1")
    assert done.status == ExitCode.error
    assert "the model `hf:nobody/nothing/none.gguf` is not on this machine" in done.err
    assert "gx models pull hf:nobody/nothing/none.gguf" in done.err


# ── signals and limits ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_prints_the_command_that_resumes(slow: Project, number: int) -> None:
    running = slow.start()
    first = running.record()
    running.process.send_signal(number)
    done = running.end()
    assert done.status == ExitCode.interrupted
    assert 1 <= len(done.records) < 20 and done.records[0] == first
    assert not slow.ask("SELECT * FROM events WHERE type = 'attempt.lost'")
    assert len(slow.ask("SELECT * FROM events WHERE type = 'run.interrupted'")) == 1
    rest = slow.resume(done.err)
    assert (rest.status, len(rest.records)) == (ExitCode.ok, 20)
    assert all(record in rest.records for record in done.records)
    slow.assert_nothing_was_computed_twice()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("sign", ["ws/gx.lock", "ws/log.duckdb"])
def test_a_signal_while_it_starts_ends_it_as_quietly(project: Project, number: int, sign: str) -> None:
    running = project.start()
    while not (project.folder / sign).exists():
        time.sleep(0.005)
    running.process.send_signal(number)
    assert running.end().status == ExitCode.interrupted
    done = project.run()
    assert (done.status, len(done.records)) == (ExitCode.ok, 20)


def test_sigterm_ends_a_command_whose_shell_ignores_ctrl_c(project: Project) -> None:
    running = project.start(preexec=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    while not (project.folder / "ws/gx.lock").exists():
        time.sleep(0.005)
    running.process.send_signal(signal.SIGTERM)
    assert running.end().status == ExitCode.interrupted


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_the_caller_had_ignored_stays_ignored(slow: Project, number: int) -> None:
    running = slow.start(preexec=lambda: signal.signal(number, signal.SIG_IGN))
    running.process.send_signal(number)  # while it starts
    running.record()
    running.process.send_signal(number)
    done = running.end()
    assert (done.status, len(done.records)) == (ExitCode.ok, 20), done.err


def test_a_second_ctrl_c_stops_now(endless: Project) -> None:
    running = endless.start()
    assert nodes.until(lambda: endless.states == ["running"] and endless.is_running)
    running.process.send_signal(signal.SIGINT)
    assert nodes.until(lambda: endless.states == ["draining"])  # and that takes long
    assert running.process.poll() is None
    running.process.send_signal(signal.SIGINT)
    done = running.end()
    assert done.status == ExitCode.interrupted
    assert done.records == []
    assert len(endless.ask("SELECT * FROM events WHERE type = 'attempt.lost'")) >= 1
    assert endless.ask("SELECT status FROM runs") == [("interrupted",)]
    assert "go on with: " in done.err


def test_a_budget_exits_4_and_more_of_it_goes_on(project: Project) -> None:
    done = project.run("run", "recipe.yaml", "-i", "rows.jsonl", "--budget", "100")
    assert done.status == ExitCode.budget
    assert 1 <= len(done.records) < 20
    assert "100 tokens are spent" in done.err and "--budget" in done.err
    again = project.run("run", "recipe.yaml", "-i", "rows.jsonl", "--budget", "100000")
    assert (again.status, len(again.records)) == (ExitCode.ok, 20)
    assert len(project.ask("SELECT * FROM runs")) == 1
    project.assert_nothing_was_computed_twice()


def test_a_deadline_exits_5_and_a_later_one_goes_on(slow: Project) -> None:
    done = slow.run("run", "recipe.yaml", "-i", "rows.jsonl", "--deadline", "1s")
    assert done.status == ExitCode.deadline
    assert len(done.records) < 20
    assert "the deadline passed" in done.err and "--deadline 1h" in done.err
    again = slow.run("run", "recipe.yaml", "-i", "rows.jsonl", "--deadline", "1h")
    assert (again.status, len(again.records)) == (ExitCode.ok, 20)
    assert len(slow.ask("SELECT * FROM runs")) == 1
    slow.assert_nothing_was_computed_twice()


# ── the workspace and its log ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", ["rows.jsonl/ws", "/dev/null/ws", "/proc/self/ws"])
def test_a_workspace_that_cannot_be_made_is_refused_before_anything_runs(project: Project, place: str) -> None:
    done = project.run(GX_WORKSPACE=place)
    assert (done.status, done.records) == (ExitCode.error, [])
    assert "can't be made" in done.err and "--workspace DIR" in done.err


def test_a_workspace_that_cannot_be_written_is_refused(project: Project) -> None:
    (project.workspace / "gx.lock").mkdir(parents=True)
    done = project.run()
    assert (done.status, done.records) == (ExitCode.error, [])
    assert "gx.lock can't be opened" in done.err and "--workspace DIR" in done.err


def test_a_workspace_that_another_program_holds_is_refused_by_name_and_free_again_after_it(project: Project) -> None:
    with Workspace(project.workspace).exclusive():
        done = project.run("sql", "SELECT 1")
        assert done.status == ExitCode.error
        assert f"in use by process {os.getpid()}" in done.err
    assert project.run().status == ExitCode.ok


def test_a_flipped_byte_of_the_log_is_told_and_costs_nothing(project: Project) -> None:
    before = project.run()
    project.rest()
    aside = project.folder / "aside"
    shutil.copytree(project.workspace, aside)
    path = project.workspace / "log.duckdb"
    whole = path.read_bytes()
    told: list[str] = []
    for at in (5, 4096 + 8, 12288 + 8, len(whole) // 3, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        done = project.run()
        assert done.status in (ExitCode.ok, ExitCode.error), done.err
        if done.status == ExitCode.error:
            assert "log.duckdb" in done.err and "hint: " in done.err, done.err
            told.append(done.err)
            assert path.read_bytes()[at] != whole[at]  # nothing was repaired, or begun anew, behind one's back
        project.rest()
        shutil.rmtree(project.workspace)
        shutil.copytree(aside, project.workspace)
    assert len(told) >= 3
    assert any("gx repair" in err for err in told)
    after = project.run()
    assert all(record["cached"] for record in after.records)
    assert {r["id"]: r["output"] for r in after.records} == {r["id"]: r["output"] for r in before.records}


def _killed_in_the_middle(project: Project, records: int) -> list[dict[str, Any]]:
    """A run whose client and node were killed after some records, with its WAL beside it; what it had printed."""
    running = project.start()
    printed = [running.record() for _ in range(records)]
    running.process.kill()
    running.process.wait()
    project.kill_node()
    project.rest()
    assert (project.workspace / "log.duckdb.wal").stat().st_size > 0
    return printed


def test_a_truncated_wal_is_told_and_nothing_acknowledged_is_lost_by_that(slow: Project) -> None:
    printed = _killed_in_the_middle(slow, 5)
    wal = slow.workspace / "log.duckdb.wal"
    whole = wal.read_bytes()
    wal.write_bytes(whole[: len(whole) // 2])
    done = slow.run()
    assert (done.status, done.records) == (ExitCode.error, [])
    assert "later ones were acknowledged" in done.err and "gx repair" in done.err
    wal.write_bytes(whole)
    again = slow.run()
    assert (again.status, len(again.records)) == (ExitCode.ok, 20)
    assert all(record in again.records for record in printed)
    slow.assert_nothing_was_computed_twice()


def test_what_a_truncated_wal_still_holds_can_be_had_by_a_repair(slow: Project) -> None:
    _killed_in_the_middle(slow, 5)
    wal = slow.workspace / "log.duckdb.wal"
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size // 2])
    assert slow.run("repair", "--yes").status in (ExitCode.ok, ExitCode.error)
    done = slow.run()
    assert (done.status, len(done.records)) == (ExitCode.ok, 20)
    slow.assert_nothing_was_computed_twice()


def test_a_flipped_byte_of_the_wal_is_told(slow: Project) -> None:
    printed = _killed_in_the_middle(slow, 5)
    wal = slow.workspace / "log.duckdb.wal"
    whole = wal.read_bytes()
    at = len(whole) // 2
    wal.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
    done = slow.run()
    assert (done.status, done.records) == (ExitCode.error, [])
    assert "error: " in done.err and "gx repair" in done.err
    wal.write_bytes(whole)
    again = slow.run()
    assert (again.status, len(again.records)) == (ExitCode.ok, 20)
    assert all(record in again.records for record in printed)
    slow.assert_nothing_was_computed_twice()


def test_a_disk_that_fills_stops_the_run_and_room_lets_it_go_on(project: Project) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))

    command = ("run", "recipe.yaml", "-i", "-", "--name", "full")
    running = project.start(*command, preexec=limit)
    running.feed(*texts(5))
    printed = [running.record() for _ in range(5)]
    running.feed({"id": "fat", "text": "Say it.", "more": os.urandom(2_000_000).hex()})
    done = running.end()
    assert done.status == ExitCode.error
    assert "the disk is full" in done.err and "make room" in done.err
    project.rest()  # it has the limit of the command that started it
    again = project.run(*command, stdin=b"".join(json.dumps(row).encode() + b"\n" for row in texts(6)))
    assert (again.status, len(again.records)) == (ExitCode.ok, 6)
    assert all(record in again.records for record in printed)
    project.assert_nothing_was_computed_twice()
