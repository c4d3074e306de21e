"""What goes wrong around `gx run`, by the real command: each ends in a clear message and an exit code of its own.

Nothing that was acknowledged is lost or computed again, whatever it was that failed.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gx.output import ExitCode
from gx.run.log import EventLog
from gx.run.verify import verify

GX = (sys.executable, "-P", "-m", "gx.cli.main")
RECIPE = """\
version: 1
name: test
models: {m: ./model.gguf}
agents:
  a: {model: m, persona: You answer., sampling: {temperature: 1, max_tokens: 6}}
steps:
  - {id: s, for_each: inputs, agent: a, prompt: "{{ item.text }}"}
"""
SLOW = RECIPE.replace("max_tokens: 6", "max_tokens: 200")
ENDLESS = RECIPE.replace("max_tokens: 6", "max_tokens: 30000")


class Done:
    """A command that ended: its status, its records, its notes."""

    def __init__(self, status: int, out: bytes, err: bytes) -> None:
        self.status, self.err = status, err.decode("utf-8", "replace")
        self.records: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
        assert "Traceback" not in self.err, self.err
        assert "Fatal Python error" not in self.err, self.err

    @property
    def ids(self) -> list[str]:
        return sorted(record["id"] for record in self.records)


class Running:
    """A command that was started; its stdout is read line by line."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._out = b""

    def record(self) -> dict[str, Any]:
        """The next record, once it is there."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self._out += line
        found: dict[str, Any] = json.loads(line)
        return found

    def feed(self, *rows: dict[str, str]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(json.dumps(row) + "\n" for row in rows).encode())
        self.process.stdin.flush()

    def end(self, timeout_s: float = 60) -> Done:
        out, err = self.process.communicate(timeout=timeout_s)
        return Done(self.process.returncode, self._out + out, err)


class Project:
    """A folder with a recipe, rows and a workspace of its own, where gx is run as from a shell."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace = folder, folder / "ws"
        homes = {name: str(folder / "home") for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
        self.env = os.environ | homes | {"GX_WORKSPACE": str(self.workspace), "GX_THREADS": "1"}

    def write(self, recipe: str, model: Path, rows: int = 20) -> Project:
        (self.folder / "recipe.yaml").write_text(recipe)
        (self.folder / "model.gguf").symlink_to(model)
        self.add(*texts(rows))
        return self

    def add(self, *rows: dict[str, str]) -> None:
        with (self.folder / "rows.jsonl").open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))

    def start(self, *args: str, preexec: Callable[[], object] | None = None, **env: str) -> Running:
        command = [*GX, *(args or ("run", "recipe.yaml", "-i", "rows.jsonl"))]
        return Running(
            subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.env | env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=preexec,
            )
        )

    def run(self, *args: str, stdin: bytes = b"", **env: str) -> Done:
        running = self.start(*args, **env)
        out, err = running.process.communicate(stdin, timeout=60)
        return Done(running.process.returncode, out, err)

    def resume(self, told: str) -> Done:
        """Type the command that gx printed."""
        (line,) = [line for line in told.splitlines() if "go on with: " in line]
        words = shlex.split(line.partition("go on with: ")[2])
        return self.run(*words[words.index("gx") + 1 :])

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with EventLog.open(self.workspace, read_only=True) as log:
            return log.file.ask(sql)

    def assert_nothing_was_computed_twice(self) -> None:
        """No key and no task was answered by the model more than once, and the log is whole."""
        succeeded = "FROM events WHERE type = 'task.succeeded' AND data->>'$.cached' IS NULL"
        assert not self.ask(f"SELECT key {succeeded} GROUP BY key HAVING count(*) > 1")
        assert not self.ask(f"SELECT task {succeeded} GROUP BY task HAVING count(*) > 1")
        with EventLog.open(self.workspace, read_only=True) as log:
            assert verify(log).is_whole


def texts(count: int) -> list[dict[str, str]]:
    return [{"id": f"row-{n:02}", "text": f"Say {n}."} for n in range(count)]


@pytest.fixture
def project(tmp_path: Path, tiny: Path) -> Project:
    return Project(tmp_path).write(RECIPE, tiny)


@pytest.fixture
def slow(tmp_path: Path, tiny: Path) -> Project:
    """Each row takes a good part of a second."""
    return Project(tmp_path).write(SLOW, tiny)


@pytest.fixture
def endless(tmp_path: Path, long: Path) -> Project:
    """Each row takes many seconds."""
    return Project(tmp_path).write(ENDLESS, long, rows=3)


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


def test_a_model_that_is_not_there_exits_1_and_says_how_to_fetch_it(project: Project) -> None:
    (project.folder / "recipe.yaml").write_text(RECIPE.replace("./model.gguf", "hf:nobody/nothing/none.gguf"))
    done = project.run(GX_OFFLINE="1")
    assert done.status == ExitCode.error
    assert "the model `hf:nobody/nothing/none.gguf` is not on this machine" in done.err
    assert "gx models pull hf:nobody/nothing/none.gguf" in done.err


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_row_is_answered_before_the_pipe_is_closed(project: Project) -> None:
    running = project.start("run", "recipe.yaml", "-i", "-")
    for row in texts(3):
        running.feed(row)
        assert running.record()["id"] == row["id"]
    assert running.end().status == ExitCode.ok


def test_ctrl_c_ends_a_run_whose_pipe_stays_open(project: Project) -> None:
    running = project.start("run", "recipe.yaml", "-i", "-")
    running.feed(*texts(1))
    running.record()
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(15) == ExitCode.interrupted  # stdin is still open
    assert "go on with: " in running.end().err


def test_a_named_run_of_streamed_rows_goes_on_after_a_kill(project: Project) -> None:
    command = ("run", "recipe.yaml", "-i", "-", "--name", "mail")
    running = project.start(*command)
    running.feed(*texts(2))
    before = [running.record(), running.record()]
    running.process.kill()
    running.process.wait()
    done = project.run(*command, stdin=b"".join(json.dumps(row).encode() + b"\n" for row in texts(3)))
    assert (done.status, done.ids) == (ExitCode.ok, ["row-00", "row-01", "row-02"])
    assert [r["output"] for r in done.records if r["id"] != "row-02"] == [r["output"] for r in before]
    assert len(project.ask("SELECT * FROM runs")) == 1
    project.assert_nothing_was_computed_twice()


def test_streamed_rows_without_a_name_are_a_new_run_that_reuses_results(project: Project) -> None:
    rows = (project.folder / "rows.jsonl").read_bytes()
    first, second = (project.run("run", "recipe.yaml", "-i", "-", stdin=rows) for _ in range(2))
    assert not any(record["cached"] for record in first.records)
    assert len(second.records) == 20 and all(record["cached"] for record in second.records)
    assert len(project.ask("SELECT * FROM runs")) == 2


def test_a_trial_of_some_rows_is_reused_by_the_full_run(project: Project) -> None:
    trial = project.run("run", "recipe.yaml", "-i", "rows.jsonl", "--limit", "4")
    assert (trial.status, len(trial.records)) == (ExitCode.ok, 4)
    full = project.run()
    assert sorted(r["id"] for r in full.records if r["cached"]) == trial.ids
    assert len(full.records) == 20
    project.assert_nothing_was_computed_twice()


def test_a_reader_that_goes_away_leaves_a_run_that_can_be_resumed(slow: Project) -> None:
    running = slow.start()
    first = running.record()
    assert running.process.stdout is not None
    running.process.stdout.close()
    assert running.process.wait(30) == ExitCode.interrupted
    assert running.process.stderr is not None
    told = running.process.stderr.read().decode()
    assert "Traceback" not in told and "Exception" not in told
    done = slow.resume(told)
    assert (done.status, len(done.records)) == (ExitCode.ok, 20)
    assert first in done.records
    slow.assert_nothing_was_computed_twice()


def test_a_reader_that_takes_nothing_does_not_keep_ctrl_c_waiting(slow: Project) -> None:
    slow.add(*({"id": f"{n}", "text": "Say it.", "more": "x" * 20_000} for n in range(20)))  # more than a pipe holds
    stuck = slow.start("run", "recipe.yaml", "-i", "rows.jsonl", "--with-input")
    for _ in range(20):
        stuck.record()
    time.sleep(1)
    for _ in range(2):
        stuck.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    assert stuck.process.wait(10) == ExitCode.interrupted


def test_results_that_cannot_be_written_are_kept(project: Project) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [*GX, "run", "recipe.yaml", "-i", "rows.jsonl"],
            cwd=project.folder,
            env=project.env,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    told = Done(process.returncode, b"", process.stderr)
    assert told.status == ExitCode.error
    assert "stdout can't be written: No space left on device" in told.err
    assert len(project.resume(told.err).records) == 20
    project.assert_nothing_was_computed_twice()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_stream_that_the_caller_closed_is_no_file_of_the_log(project: Project, number: int) -> None:
    running = project.start(preexec=lambda: os.close(number))
    assert running.end().status == ExitCode.ok
    assert len(project.ask("SELECT * FROM results WHERE status = 'succeeded'")) == 20
    project.assert_nothing_was_computed_twice()


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


def test_a_second_ctrl_c_stops_now(endless: Project) -> None:
    running = endless.start()
    while not endless_has_begun(running):
        time.sleep(0.05)
    running.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert running.process.poll() is None  # it drains, and that takes long
    running.process.send_signal(signal.SIGINT)
    done = running.end(timeout_s=6)
    assert done.status == ExitCode.interrupted
    assert done.records == []
    assert len(endless.ask("SELECT * FROM events WHERE type = 'attempt.lost'")) >= 1
    assert endless.ask("SELECT status FROM runs") == [("interrupted",)]
    assert "go on with: " in done.err


def endless_has_begun(running: Running) -> bool:
    """Whether the bench of the process is computing, as far as can be seen from outside."""
    listed = subprocess.run(["ps", "-A", "-o", "ppid=,time=,command="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    mine = [row for row in rows if int(row[0]) == running.process.pid and "edge.bench" in row[2]]
    return any(int(row[1].rpartition(":")[2]) >= 2 for row in mine)


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
    done = slow.run("run", "recipe.yaml", "-i", "rows.jsonl", "--deadline", "2s")
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


def test_a_second_writer_is_told_who_holds_the_workspace_and_the_first_goes_on(slow: Project) -> None:
    slow.add(*texts(60)[20:])
    first = slow.start()
    first.record()
    second = slow.run()
    assert (second.status, second.records) == (ExitCode.error, [])
    assert f"in use by process {first.process.pid}" in second.err
    done = first.end()
    assert (done.status, len(done.records)) == (ExitCode.ok, 60)
    slow.assert_nothing_was_computed_twice()


def test_a_flipped_byte_of_the_log_is_told_and_costs_nothing(project: Project) -> None:
    before = project.run()
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
        shutil.rmtree(project.workspace)
        shutil.copytree(aside, project.workspace)
    assert len(told) >= 3
    assert any("--salvage" in err for err in told)
    after = project.run()
    assert all(record["cached"] for record in after.records)
    assert [r["output"] for r in after.records] == [r["output"] for r in before.records]


def _killed_in_the_middle(project: Project, records: int) -> list[dict[str, Any]]:
    """A run killed after some records, with its WAL beside it; what it had printed."""
    running = project.start()
    printed = [running.record() for _ in range(records)]
    running.process.kill()
    running.process.wait()
    assert (project.workspace / "log.duckdb.wal").stat().st_size > 0
    return printed


def test_a_truncated_wal_is_told_and_nothing_acknowledged_is_lost_by_that(slow: Project) -> None:
    printed = _killed_in_the_middle(slow, 5)
    wal = slow.workspace / "log.duckdb.wal"
    whole = wal.read_bytes()
    wal.write_bytes(whole[: len(whole) // 2])
    done = slow.run()
    assert (done.status, done.records) == (ExitCode.error, [])
    assert "later ones were acknowledged" in done.err and "gx log --salvage" in done.err
    wal.write_bytes(whole)
    again = slow.run()
    assert (again.status, len(again.records)) == (ExitCode.ok, 20)
    assert all(record in again.records for record in printed)
    slow.assert_nothing_was_computed_twice()


def test_what_a_truncated_wal_still_holds_can_be_salvaged(slow: Project) -> None:
    _killed_in_the_middle(slow, 5)
    wal = slow.workspace / "log.duckdb.wal"
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size // 2])
    assert slow.run("log", "--salvage").status in (ExitCode.ok, ExitCode.error)
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
    assert "error: " in done.err and "gx log --salvage" in done.err
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
    again = project.run(*command, stdin=b"".join(json.dumps(row).encode() + b"\n" for row in texts(6)))
    assert (again.status, len(again.records)) == (ExitCode.ok, 6)
    assert all(record in again.records for record in printed)
    project.assert_nothing_was_computed_twice()
