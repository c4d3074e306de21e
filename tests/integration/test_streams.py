"""`gx run` in a pipe: rows that come one by one, readers that go away or take nothing, streams closed or full."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from gx.output import ExitCode
from tests import nodes
from tests.integration.project import GX, Done, Project, texts


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
    assert running.process.wait(180) == ExitCode.interrupted  # stdin is still open
    assert "answered from the log when the same rows come again" in running.end().err


def test_a_named_run_of_streamed_rows_goes_on_after_a_kill(project: Project) -> None:
    command = ("run", "recipe.yaml", "-i", "-", "--name", "mail")
    running = project.start(*command)
    running.feed(*texts(2))
    before = [running.record(), running.record()]
    running.process.kill()
    running.process.wait()
    done = project.run(*command, stdin=b"".join(json.dumps(row).encode() + b"\n" for row in texts(3)))
    assert (done.status, done.ids) == (ExitCode.ok, ["row-00", "row-01", "row-02"])
    outputs = {r["id"]: r["output"] for r in done.records}
    assert all(outputs[r["id"]] == r["output"] for r in before)
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
    assert running.process.wait(180) == ExitCode.closed_pipe
    assert running.process.stderr is not None
    told = running.process.stderr.read().decode()
    assert "Traceback" not in told and "Exception" not in told
    done = slow.resume(told)
    assert (done.status, len(done.records)) == (ExitCode.ok, 20)
    assert first in done.records
    slow.assert_nothing_was_computed_twice()


def test_a_reader_that_takes_nothing_does_not_keep_ctrl_c_waiting(held: Project) -> None:
    held.add(*({"id": f"{n}", "text": "Say it.", "more": "x" * 20_000} for n in range(20)))  # more than a pipe holds
    stuck = held.start("run", "recipe.yaml", "-i", "rows.jsonl", "--with-input", GX_DRAIN_S="600")
    stuck.record()
    assert nodes.until(lambda: any(run.progress.done == 34 and run.progress.running for run in held.live().values()))
    stuck.process.send_signal(signal.SIGINT)
    assert nodes.until(lambda: held.states == ["draining"]), "the first one lets end what runs"
    stuck.process.send_signal(signal.SIGINT)
    assert stuck.process.wait(180) == ExitCode.interrupted
    assert held.ask("SELECT count(*) FROM events WHERE type = 'run.interrupted'") == [(1,)]
    assert not held.ask("SELECT 1 FROM tasks WHERE step = 'held' AND status = 'succeeded'"), "what ran was waited for"


def test_results_that_cannot_be_written_are_kept(project: Project) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [*GX, "run", "recipe.yaml", "-i", "rows.jsonl"],
            cwd=project.folder,
            env=project.env,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=180,
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
