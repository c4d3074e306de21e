"""Old runs go into archives, what somebody needs stays, and the chain can be followed through both."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from gx.core import event as e
from gx.core.errors import LogError, NotFound
from gx.core.ids import digest
from gx.core.projection import fold
from gx.core.view import View
from gx.run.history.story import story_of
from gx.run.log import EventLog
from gx.run.log import compact as compact_module
from gx.run.log import erase_archived as erase_archived_module
from gx.run.log.archive import archives_of, open_archives
from gx.run.log.compact import Compacted, compact
from gx.run.log.erase import erase
from gx.run.log.erase_archived import archived_run, erase_archived
from gx.run.log.making import quoted
from gx.run.log.verify import verify
from tests.run.test_verify import problems, tamper
from tests.verbs.writing import ONE, TWO, Writing, two_runs

LEFT = "left-ccc444"
LARGE = "large " * 10_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs that ended, one that did not, and a large answer that two of them share."""
    two_runs().write(tmp_path)
    more = Writing()
    more.bodies.append(e.NodeStarted(epoch=2, pid=8))
    more.begin(LEFT, is_detached=True)
    task = more.queue(LEFT, 0, "T-1")
    more.succeed(LEFT, task, LARGE, key="k-left")
    more.queue(LEFT, 1, "T-2")
    more.bodies.append(e.RunInterrupted(run=LEFT, reason="left"))
    more.write(tmp_path)
    return tmp_path


def archive(folder: Path, *runs: str, keeps_results: bool = True) -> Compacted:
    return compact(EventLog.open(folder), runs, keeps_results=keeps_results)


def events_of(log: EventLog, run: str | None = None) -> list[tuple[object, ...]]:
    return log.file.ask("SELECT * FROM events WHERE $1 IS NULL OR run = $1 ORDER BY seq", [run])


def whole(folder: Path) -> None:
    with EventLog.open(folder, read_only=True) as log:
        assert verify(log).problems == ()


def test_an_archived_run_is_in_the_archive_row_by_row_and_not_in_the_file(folder: Path) -> None:
    with EventLog.open(folder) as log:
        before, story, refs = events_of(log), story_of(log, ONE), log.file.ask("SELECT digest FROM contents")
    done = archive(folder, ONE)
    assert (done.archive, done.runs, done.events) == (f"0-{len(before) - 1}", 1, len(before))
    whole(folder)
    with EventLog.open(folder) as log:
        assert log.file.ask("SELECT run FROM runs ORDER BY run") == [(LEFT,), (TWO,)]
        assert log.file.ask("SELECT run, status, tasks, archive FROM archived") == [(ONE, "finished", 4, done.archive)]
        assert not log.has_run(ONE) and log.has_run(TWO)
        with open_archives(folder, archives_of(log)) as archived:
            assert [row[:-1] for row in archived.file.ask("SELECT * FROM events ORDER BY seq")] == before
            assert story_of(archived, ONE) == story
            kept = log.file.ask("SELECT digest FROM contents") + archived.file.ask("SELECT digest FROM contents")
            assert set(refs) <= set(kept)


def test_what_stays_is_as_it_was_and_goes_on(folder: Path) -> None:
    with EventLog.open(folder) as log:
        before, last = {run: events_of(log, run) for run in (TWO, LEFT)}, log.last_seq
        story = story_of(log, TWO)
    archive(folder, ONE)
    with EventLog.open(folder) as log:
        assert {run: events_of(log, run) for run in (TWO, LEFT)} == before
        assert story_of(log, TWO) == story
        assert log.last_seq == last + 2
        assert log.newest_run(LEFT) == LEFT
        view = View()
        for event in log.read():
            fold(view, event)
        assert (view.epoch, set(view.runs)) == (2, {TWO, LEFT})
        (event,) = log.append_sync([e.NodeStopped(epoch=2)], source="test")
        assert event.seq == last + 3
    whole(folder)


@pytest.mark.parametrize("keeps", [True, False])
def test_results_of_archived_runs_answer_equal_work_if_they_are_to_stay(folder: Path, keeps: bool) -> None:
    with EventLog.open(folder) as log:
        found = log.find_results(["k", "k-left"], before_seq=log.last_seq)
        assert set(found) == {"k", "k-left"}
    done = archive(folder, ONE, TWO, keeps_results=keeps)
    with EventLog.open(folder) as log:
        again = log.find_results(["k", "k-left"], before_seq=log.last_seq)
        assert again == (found if keeps else {"k-left": found["k-left"]})
        assert len(log.blobs([output for _, output, *_ in again.values()])) == len(again)
    assert done.results == 1 + keeps
    whole(folder)


def test_archives_follow_each_other(folder: Path) -> None:
    archive(folder, ONE)
    three = Writing()
    three.begin("new-ddd555")
    three.bodies.append(e.RunFinished(run="new-ddd555", succeeded=0, failed=0))
    three.write(folder)
    done = archive(folder, TWO, "new-ddd555")
    whole(folder)
    with EventLog.open(folder) as log:
        first, second = archives_of(log)
        assert second.first == first.last + 1 and second.name == done.archive
        assert log.file.ask("SELECT run, archive FROM archived ORDER BY run") == [
            ("new-ddd555", second.name), (ONE, first.name), (TWO, second.name),
        ]  # fmt: skip
        with open_archives(folder, [first, second]) as archived:
            assert [seq for (seq,) in archived.file.ask("SELECT seq FROM events ORDER BY seq")] == list(
                range(second.last + 1)
            )
            assert story_of(archived, TWO)["recipe"] == story_of(log, LEFT)["recipe"]
            assert archived.blobs([digest(f'"{LARGE}"'.encode())]) == {}
        task = log.file.ask("SELECT task FROM tasks WHERE run = ? AND index = 0", [LEFT])[0][0]
        assert story_of(log, task)["output"] == LARGE
        log.append_sync([e.RunCancelled(run=LEFT, reason="given up")], source="test")
    archive(folder, LEFT, keeps_results=False)
    whole(folder)
    with EventLog.open(folder) as log, open_archives(folder, archives_of(log)) as archived:
        assert story_of(archived, task)["output"] == LARGE
        assert log.blobs([digest(f'"{LARGE}"'.encode())]) == {}
        assert log.file.ask("SELECT max(epoch) FROM (SELECT (data->>'$.epoch')::INT AS epoch FROM events)")[0][0] == 2


def rewrite(folder: Path, name: str, table: str, change: str) -> None:
    """Write a file of the archive anew, with other rows."""
    path = folder / "archive" / name / f"{table}.parquet"
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE t AS SELECT * FROM read_parquet({quoted(path)})")
        con.execute(change)
        con.execute(f"COPY (SELECT * FROM t ORDER BY seq) TO {quoted(path)} (FORMAT parquet)")


@pytest.mark.parametrize(
    "table, change, found",
    [
        ("events", "UPDATE t SET data = replace(data, 'here', 'there') WHERE seq = 1", "event 1 was changed"),
        ("events", "DELETE FROM t WHERE seq = 3", "event 3 is missing: after 2 comes 4"),
        ("events", "DELETE FROM t WHERE seq > 30", "event 31 is missing"),
        ("events", "UPDATE t SET ms = 7 WHERE seq = 8", "have columns that differ from their body"),
        ("contents", "DELETE FROM t", "blobs that events refer to are missing and were not erased"),
        ("contents", "UPDATE t SET bytes = 'x'::BLOB", "are not what their digest says"),
    ],
)
def test_a_changed_archive_is_found(folder: Path, table: str, change: str, found: str) -> None:
    name = archive(folder, ONE, keeps_results=False).archive
    rewrite(folder, name, table, change)
    assert found in problems(folder)


def test_a_missing_or_unreadable_archive_is_told(folder: Path) -> None:
    name = archive(folder, ONE).archive
    (folder / "archive" / name / "events.parquet").write_bytes(b"PAR1 and so on")
    assert f"archive {name}: " in problems(folder)
    shutil.rmtree(folder / "archive" / name)
    last = name.partition("-")[2]
    assert problems(folder) == f"archive/{name} is missing: events 0 to {last} could not be checked"
    with EventLog.open(folder) as log:
        with pytest.raises(LogError, match=f"archive {name} is not there"):
            compact(log, [TWO])
        assert log.has_run(TWO)


def test_a_carried_event_that_differs_from_the_archive_is_found(folder: Path) -> None:
    archive(folder, ONE)
    tamper(folder, "UPDATE events SET source = 'me' WHERE seq = (SELECT min(seq) FROM events WHERE run IS NOT NULL)")
    assert "1 events differ from what the archive has of them" in problems(folder)


def test_a_file_that_follows_no_archive_is_found(folder: Path) -> None:
    archive(folder, ONE)
    tamper(folder, "UPDATE events SET type = 'node.stopped' WHERE type = 'log.archived'")
    assert "are neither in the file nor in an archive" in problems(folder)


def test_what_was_erased_before_stays_erased(folder: Path) -> None:
    erase(EventLog.open(folder), ONE)
    archive(folder, ONE)
    whole(folder)
    with EventLog.open(folder) as log:
        assert log.file.ask("SELECT count(*) FROM events WHERE type = 'content.erased'") == [(1,)]


def bytes_of(folder: Path) -> bytes:
    """All that stands in the folder, read as DuckDB reads it, since Parquet is compressed."""
    with EventLog.open(folder, read_only=True) as log, open_archives(folder, archives_of(log)) as archived:
        return b"".join(text for source in (log, archived) for (text,) in source.file.ask("SELECT bytes FROM blobs"))


@pytest.mark.parametrize("keeps", [True, False])
def test_the_content_of_an_archived_run_can_be_erased(folder: Path, keeps: bool) -> None:
    secret = Writing()
    secret.begin("own-ggg888")
    task = secret.queue("own-ggg888", 0, "T-1", {"text": "the secret"})
    secret.succeed("own-ggg888", task, "a secret answer", key="k-own")
    secret.bodies.append(e.RunFinished(run="own-ggg888", succeeded=1, failed=0))
    secret.write(folder)
    archive(folder, ONE, "own-ggg888", keeps_results=keeps)
    assert b"secret" in bytes_of(folder)
    report = erase_archived(EventLog.open(folder), "own-ggg888")
    assert b"secret" not in bytes_of(folder) and b"row T-3" in bytes_of(folder)
    assert (report.blobs, len(report.kept)) == (2, 2)
    whole(folder)
    with EventLog.open(folder) as log:
        assert log.find_results(["k-own"], before_seq=log.last_seq) == {}
        assert archived_run(log, "own-") == "own-ggg888"
        for start in ("nothing", LEFT):
            with pytest.raises(NotFound):
                archived_run(log, start)
        assert erase_archived(log, "own-ggg888").blobs == 0


@pytest.mark.parametrize("order", ["kept, archived", "archived, kept, archived"])
def test_content_that_an_erased_run_shared_goes_with_the_archived_one(folder: Path, order: str) -> None:
    """LARGE is an answer of the run that stays, and of the one in the archive."""
    own = Writing()
    own.begin("own-ggg888")
    own.succeed("own-ggg888", own.queue("own-ggg888", 0, "T-9"), LARGE, key="k-own")
    own.bodies.append(e.RunFinished(run="own-ggg888", succeeded=1, failed=0))
    own.write(folder)
    archive(folder, "own-ggg888", keeps_results=False)
    for whose in order.split(", "):
        assert LARGE.encode()[:1000] in bytes_of(folder)
        with EventLog.open(folder) as log:
            _ = erase(log, LEFT) if whose == "kept" else erase_archived(log, "own-ggg888")
        whole(folder)
    assert LARGE.encode()[:1000] not in bytes_of(folder)


def test_an_erasure_from_archives_that_was_killed_is_done_by_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(folder, ONE)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(erase_archived_module, "_remove", crash)
    with pytest.raises(KeyboardInterrupt):
        erase_archived(EventLog.open(folder), ONE)
    monkeypatch.undo()
    whole(folder)
    assert erase_archived(EventLog.open(folder), ONE).blobs > 0
    whole(folder)
    with EventLog.open(folder) as log:
        assert erase_archived(log, ONE).blobs == 0


def test_erasing_goes_on_after_archiving(folder: Path) -> None:
    archive(folder, ONE)
    erase(EventLog.open(folder), LEFT)
    whole(folder)


@pytest.mark.parametrize("moment", ["write_archive", "_carry", "_begin", "verify_archive", "move_into_place"])
def test_a_crash_before_the_rename_leaves_the_old_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Crash(BaseException):
        """Like a kill: nothing cleans up after it."""

    def crash(*_: object, **__: object) -> None:
        raise Crash

    with EventLog.open(folder) as log:
        before = events_of(log)
    monkeypatch.setattr(compact_module, moment, crash)
    with pytest.raises(Crash):
        archive(folder, ONE)
    monkeypatch.undo()
    with EventLog.open(folder) as log:
        assert events_of(log) == before
        log.append_sync([e.NodeStopped(epoch=2)], source="test")
    archive(folder, ONE)
    whole(folder)


def test_a_kill_before_the_head_was_written_leaves_a_log_that_opens(folder: Path) -> None:
    EventLog.open(folder).close()
    head = (folder / "log.head").read_bytes()
    archive(folder, ONE)
    (folder / "log.head").write_bytes(head)
    whole(folder)
    last = int(json.loads(head)["seq"])
    (folder / "log.head").write_text(json.dumps({"seq": last, "hash": "00"}))
    with pytest.raises(LogError, match=f"event {last} of"):
        EventLog.open(folder)


def test_an_archive_of_another_log_with_the_same_name_is_not_lost(folder: Path) -> None:
    with EventLog.open(folder, read_only=True) as log:
        name = f"0-{log.last_seq}"
    (folder / "archive" / name).mkdir(parents=True)
    (folder / "archive" / name / "theirs").write_text("x")
    assert archive(folder, ONE).archive == name
    assert (folder / "archive" / f"{name}.aside-1" / "theirs").read_text() == "x"
    whole(folder)


KILLED = """
import sys
from pathlib import Path
from gx.run.log import EventLog
from gx.run.log.compact import compact
log = EventLog.open(Path(sys.argv[1]))
print("now", flush=True)
compact(log, sys.argv[2:])
"""


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_log_whole(folder: Path, tmp_path_factory) -> None:
    began = time.monotonic()
    copy = tmp_path_factory.mktemp("measured") / "ws"
    shutil.copytree(folder, copy)
    log = EventLog.open(copy)
    began = time.monotonic()
    compact(log, [ONE])
    takes_s = time.monotonic() - began
    outcomes = set()
    for n in range(4):
        place = tmp_path_factory.mktemp("killed") / "ws"
        shutil.copytree(folder, place)
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(place), ONE], stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline() == b"now\n"
        time.sleep(takes_s * 1.5 * (n + random.random()) / 8)  # a moment of its life, not something to wait for
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with EventLog.open(place) as log:
            report = verify(log)
            assert report.is_whole, report
            is_new = not log.has_run(ONE)
            assert bool(report.archives) == is_new
            outcomes.add(is_new)
        if not is_new:
            archive(place, ONE)
            whole(place)
    assert outcomes
