"""What `gx verify`, `backup`, `repair` and `gc` print and leave behind, and what they refuse."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from gx.cli import diff, export, gc, health, history
from gx.core import event as e
from gx.core.errors import GxError, LogError, NotFound, UsageError
from gx.node.collect import Ended, carry_out, choose, plan
from gx.node.footprint import footprint, part_of
from gx.run.log import EventLog
from tests.run.test_verify import tamper
from tests.verbs.writing import ONE, TWO, Writing, two_runs

VERBS = (health, gc, history, export, diff)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    two_runs().write(tmp_path / ".gx")
    return tmp_path / ".gx"


def call(*args: str, place: Path) -> Result:
    app = typer.Typer()
    for verbs in VERBS:
        verbs.register(app)
    result = CliRunner().invoke(app, [*args, "--workspace", str(place)])
    if isinstance(result.exception, GxError):
        raise result.exception
    return result


def rows(*args: str, place: Path, status: int = 0) -> list[dict[str, Any]]:
    result = call(*args, *(() if args[0] in ("export", "diff") else ("--json",)), place=place)
    assert result.exit_code == status, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def damage_head(place: Path) -> None:
    (place / "log.head").write_text('{"seq":8,"hash":"00"}')


def test_verify_exits_with_what_it_found(place: Path) -> None:
    (row,) = rows("verify", place=place)
    assert (row["is_whole"], row["archived"], row["problems"]) == (True, 0, [])
    tamper(place, "UPDATE events SET worker = 'other' WHERE type = 'task.succeeded'")
    result = call("verify", "--plain", place=place)
    assert result.exit_code == 1
    assert "problem: " in result.stderr and "events have columns that differ from their body" in result.stderr


def test_a_backup_is_verified_and_can_be_used_in_place_of_the_workspace(place: Path, tmp_path: Path) -> None:
    (row,) = rows("backup", str(tmp_path / "copy"), place=place)
    assert row["path"] == str(tmp_path / "copy") and row["events"] == row["seq"] + 1
    (other,) = rows("verify", "--at", str(tmp_path / "copy"), place=place)
    assert (other["is_whole"], other["last_hash"]) == (True, row["hash"])
    assert rows("runs", place=tmp_path / "copy") == rows("runs", place=place)
    with pytest.raises(UsageError, match="is there already"):
        call("backup", str(tmp_path / "copy"), place=place)
    with pytest.raises(UsageError, match="expected the folder of a backup"):
        call("verify", "--at", str(tmp_path / "nothing"), place=place)


def test_repair_asks_before_it_changes_anything(place: Path) -> None:
    damage_head(place)
    with pytest.raises(LogError) as caught:
        call("verify", place=place)
    assert "gx repair" in caught.value.hint
    (row,) = rows("repair", "--dry-run", place=place, status=1)
    assert (row["is_whole"], row["copies"], row["lost"]) == (False, None, 0)
    with pytest.raises(UsageError, match="no terminal to ask on"):
        call("repair", place=place)
    assert (place / "log.head").read_text() == '{"seq":8,"hash":"00"}'
    result = call("repair", "--yes", "--plain", place=place)
    assert result.exit_code == 0
    assert "wrong: log.head names another event 8" in result.stderr
    (copies,) = place.glob("damaged-*")
    assert (copies / "log.head").read_text() == '{"seq":8,"hash":"00"}'
    assert rows("verify", place=place)[0]["is_whole"]
    assert rows("repair", place=place)[0]["found"] == []


def test_what_repair_cannot_mend_is_told_with_what_to_do(place: Path) -> None:
    tamper(place, "UPDATE events SET ts = ts + 1 WHERE seq = 5")
    result = call("repair", "--yes", place=place)
    assert result.exit_code == 1
    assert "event 5 was changed" in result.stderr and "go on from a backup" in result.stderr
    assert not list(place.glob("damaged-*"))


def test_where_there_is_no_workspace_nothing_is_repaired_or_made(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no workspace"):
        call("repair", "--yes", place=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_gc_needs_a_yes_and_tries_nothing_without(place: Path) -> None:
    before = rows("runs", place=place)
    result = call("gc", "--keep-days", "1", "--dry-run", place=place)
    assert result.exit_code == 0 and f"would be archived: 2 runs: {ONE}, {TWO}" in result.stderr
    with pytest.raises(UsageError, match="no terminal to ask on"):
        call("gc", "--keep-days", "1", place=place)
    assert rows("runs", place=place) == before


def test_archived_runs_are_listed_shown_exported_compared_and_asked(place: Path) -> None:
    verbs: list[Callable[[], Any]] = [
        lambda: rows("show", ONE, place=place),
        lambda: rows("export", ONE, place=place),
        lambda: rows("export", ONE, "--to", "cloudevents", place=place),
        lambda: rows("diff", ONE, TWO, place=place),
    ]
    before, listed = [verb() for verb in verbs], rows("runs", place=place)
    with pytest.raises(NotFound, match="nothing of this log was archived"):
        call("sql", "--archived", "select 1", place=place)
    parts = rows("gc", "--keep-days", "1", "--yes", place=place)
    assert {part["part"] for part in parts} >= {"log", "archives", "total"}
    (archive,) = [path.name for path in (place / "archive").iterdir()]
    found = rows("runs", place=place)
    assert sorted(row["run"] for row in found) == [ONE, TWO]
    assert all({**row, "archive": None} in listed for row in found)
    assert {row["archive"] for row in found} == {archive}
    assert [verb() for verb in verbs] == before
    assert rows("sql", "--archived", "select run from runs order by run", place=place) == [{"run": ONE}, {"run": TWO}]
    assert rows("verify", place=place)[0]["archives"] == [archive]
    with pytest.raises(NotFound):
        call("show", "nothing", place=place)


def test_a_kept_and_an_archived_run_are_compared(place: Path) -> None:
    new = Writing()
    new.begin("new-eee666")
    task = new.queue("new-eee666", 0, "T-1")
    new.succeed("new-eee666", task, {"category": "bug", "score": 2})
    new.write(place)
    before = rows("diff", ONE, "new-eee666", place=place)
    rows("gc", "--keep-days", "1", "--yes", place=place)
    with EventLog.open(place) as log:
        assert log.has_run("new-eee666") and not log.has_run(ONE)
    assert rows("diff", ONE, "new-eee666", place=place) == before


def test_gc_removes_leftovers_and_old_copies_and_nothing_of_the_users(place: Path) -> None:
    old = ("damaged-20200101-000000", "salvage-1", "repair.new", "archive/0-3.new")
    for name in (*old, "mine", "damaged-20990101-000000"):
        (place / name).mkdir(parents=True)
        (place / name / "file").write_bytes(b"x" * 1000)
    new = ("log.duckdb.new", "log.duckdb.new.wal", "log.duckdb.tmp")
    mine = ("log.duckdb.bak", "log.duckdb.gz", "log.duckdb.new.mine", "node.log.1")
    for name in (*new, *mine, "node.log", "memory.db"):
        (place / name).write_bytes(b"y" * 10)
    for name in (*old, *mine, "node.log", "memory.db", "mine"):
        os.utime(place / name, (1, 1))
    result = call("gc", "--keep-days", "1", "--yes", place=place)
    assert result.exit_code == 0, result.output
    kept = {*mine, "mine", "memory.db", "log.duckdb", "damaged-20990101-000000"}
    assert {path.name for path in place.iterdir()} >= kept
    assert [name for name in (*old, *new, "node.log") if (place / name).exists()] == []


def test_an_archive_that_a_killed_gc_left_behind_is_made_again(place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(place, copy)
    rows("gc", "--keep-days", "1", "--yes", place=copy)
    shutil.copytree(copy / "archive", place / "archive")
    (archive,) = [path.name for path in (place / "archive").iterdir()]
    result = call("gc", "--keep-days", "36500", "--dry-run", place=place)
    assert f"would be removed: archive/{archive}" in result.stderr
    rows("gc", "--keep-days", "1", "--yes", place=place)
    (row,) = rows("verify", place=place)
    assert (row["is_whole"], row["archives"]) == (True, [archive])


def test_a_plan_that_another_one_came_before_removes_nothing_of_the_logs(place: Path, tmp_path: Path) -> None:
    """A kill left an archive; one who was asked about it says yes after another has made the same one anew."""
    copy = tmp_path / "copy"
    shutil.copytree(place, copy)
    rows("gc", "--keep-days", "1", "--yes", place=copy)
    shutil.copytree(copy / "archive", place / "archive")
    with EventLog.open(place) as log:
        thought_about = plan(log, keep_s=86400, quota_bytes=None, now=time.time())
    assert thought_about.files and thought_about.runs
    rows("gc", "--keep-days", "1", "--yes", place=place)
    with EventLog.open(place) as log:
        assert carry_out(log, thought_about, keeps_results=True) is None
    (row,) = rows("verify", place=place)
    assert (row["is_whole"], len(row["archives"])) == (True, 1)


def test_an_archive_of_a_log_that_went_on_further_is_left_alone(place: Path, tmp_path: Path) -> None:
    """A workspace whose log was put back to an older one: what came later is in that archive only."""
    copy = tmp_path / "copy"
    shutil.copytree(place, copy)
    Writing().write(copy)
    rows("gc", "--keep-days", "1", "--yes", place=copy)
    shutil.copytree(copy / "archive", place / "archive")
    rows("gc", "--keep-days", "1", "--yes", place=place)
    assert len(list((place / "archive").iterdir())) == 2
    assert rows("verify", place=place)[0]["is_whole"]


def test_a_quota_that_cannot_be_met_is_told(place: Path) -> None:
    result = call("gc", "--keep-days", "36500", "--quota", "1kB", "--yes", place=place)
    assert "archived 2 runs" in result.stderr
    assert "the quota is exceeded by " in result.stderr
    for text in ("5XB", "-1", "GB"):
        with pytest.raises(UsageError, match="expected a size"):
            call("gc", "--quota", text, place=place)
    assert [gc.bytes_of(text) for text in ("7", "5GB", "1.5 MiB", "2k")] == [7, 5 * 10**9, 3 << 19, 2000]


def test_the_oldest_runs_go_first_and_no_more_than_needed() -> None:
    runs = [Ended("c", 30.0, 100), Ended("a", 10.0, 100), Ended("b", 20.0, 100)]
    assert [run.run for run in choose(runs, before=15.0, excess_bytes=0)] == ["a"]
    assert [run.run for run in choose(runs, before=0.0, excess_bytes=150)] == ["a", "b"]
    assert [run.run for run in choose(runs, before=25.0, excess_bytes=-50)] == ["a", "b"]


def test_parts_of_a_folder_are_told_the_biggest_first(place: Path) -> None:
    (place / "mine").write_bytes(b"x" * 10**7)
    parts = footprint(place)
    assert [part.part for part in parts][:2] == ["other", "log"]
    assert parts[0].bytes >= 10**7
    assert part_of("log.duckdb.wal") == "log" and part_of("log.duckdb.tmp") == "leftovers"


def test_an_unfinished_run_stays_whatever_its_age(place: Path) -> None:
    left = Writing()
    left.begin("left-fff777")
    left.bodies.append(e.RunInterrupted(run="left-fff777", reason="left"))
    left.write(place)
    result = call("gc", "--keep-days", "1", "--yes", place=place)
    assert "1 unfinished runs stay" in result.stderr
    with EventLog.open(place) as log:
        assert log.newest_run("left-fff777") == "left-fff777"
