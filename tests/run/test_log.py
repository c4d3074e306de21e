"""What the log promises: acknowledged is durable, `seq` is dense, nothing changes unseen, and damage is said."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from gx.core.errors import LogError
from gx.core.event import (
    Blob,
    Body,
    Event,
    LogOpened,
    NodeStarted,
    NodeStopped,
    RunChanged,
    RunCreated,
    RunFinished,
    RunResumed,
)
from gx.core.event import TaskSucceeded as Succeeded
from gx.core.ids import digest
from gx.run.log import EventLog, schema
from gx.run.log import writer as writer_module
from gx.run.log.head import HEAD_FILE, read_head
from gx.run.log.making import LOG_FILE, WAL_FILE, attach


def stopped(n: int, start: int = 0) -> list[Body]:
    return [NodeStopped(epoch=epoch) for epoch in range(start, start + n)]


def blob(text: str) -> Blob:
    return Blob(digest=digest(text.encode()), content=text.encode())


def run(run: str, fingerprint: str = "f") -> RunCreated:
    return RunCreated(run=run, name="x", fingerprint=fingerprint, recipe=digest(b"r"), params=digest(b"p"))


def links_hold(log: EventLog) -> bool:
    before = schema.GENESIS
    rows = log.file.ask("SELECT seq, id::VARCHAR, ts, source, data, hash FROM events ORDER BY seq")
    for place, (seq, name, ts, source, data, found) in enumerate(rows):
        if seq != place or found != schema.link(before, seq, name, ts, source, data):
            return False
        before = found
    return before == log.last_hash


def child(code: str, folder: Path, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER + code, str(folder)], stdout=subprocess.PIPE, text=True, **options
    )


WRITER = """
import os, resource, sys
from pathlib import Path
from gx.core.errors import LogError
from gx.core.event import Blob, NodeStopped
from gx.core.ids import digest
from gx.run.log import EventLog
folder = Path(sys.argv[1])
def stopped(n, start=0): return [NodeStopped(epoch=epoch) for epoch in range(start, start + n)]
def blob(content): return Blob(digest=digest(content), content=content)
"""

LEAVE_A_WAL = """
log = EventLog.open(folder)
for i in range(20):
    log.append_sync(stopped(50), [blob(b"%d" % i * 20)], source="t")
    if i == 9:
        assert log.file.checkpoint()
os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    child(LEAVE_A_WAL, folder).wait()
    assert (folder / WAL_FILE).stat().st_size > 10_000
    return folder


@pytest.fixture
def killed(left_behind: Path, tmp_path: Path) -> Path:
    """A log of 1,001 events whose owner was killed: half of them in the file, half in its WAL."""
    return Path(shutil.copytree(left_behind, tmp_path, dirs_exist_ok=True))


def flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 0x10
    path.write_bytes(content)


def fingerprints(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


# ── appending ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_appended_is_read_back_after_reopening(tmp_path: Path) -> None:
    with EventLog.open(tmp_path, gx="1.2.3") as log:
        first = log.append_sync([NodeStarted(epoch=1, pid=2), run("r")], [blob("one")], source="test")
    with EventLog.open(tmp_path) as log:
        events = list(log.read())
        assert [event.seq for event in events] == [0, 1, 2]
        assert events[0].body == LogOpened(format=1, gx="1.2.3")
        assert events[1:] == first
        assert log.blobs([digest(b"one"), digest(b"two")]) == {digest(b"one"): b"one"}
        assert links_hold(log)


def test_concurrent_callers_share_commits_and_get_their_own_events(tmp_path: Path) -> None:
    async def produce(log: EventLog, name: int) -> list[Event]:
        made = []
        for i in range(5):
            made += await log.append([NodeStopped(epoch=name * 1000 + i)], source="test")
        return made

    async def produce_all(log: EventLog) -> list[list[Event]]:
        return await asyncio.gather(*(produce(log, name) for name in range(50)))

    with EventLog.open(tmp_path) as log:
        made = asyncio.run(produce_all(log))
        for name, events in enumerate(made):
            assert [event.body.epoch for event in events] == [name * 1000 + i for i in range(5)]
            assert [event.seq for event in events] == sorted(event.seq for event in events)
        assert sorted(event.seq for events in made for event in events) == list(range(1, 251))
        assert links_hold(log)


def test_a_full_backlog_lets_callers_wait_and_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "BACKLOG_EVENTS", 3)

    async def produce(log: EventLog) -> None:
        await asyncio.gather(*(log.append(stopped(2), source="test") for _ in range(40)))

    with EventLog.open(tmp_path) as log:
        asyncio.run(produce(log))
        assert log.last_seq == 80


def test_time_never_goes_back(tmp_path: Path) -> None:
    times = iter([100.0, 200.0, 150.0, 201.0])
    with EventLog.open(tmp_path, now=lambda: next(times)) as log:
        stamps = [log.append_sync(stopped(1), source="test")[0].ts for _ in range(3)]
    assert stamps == [200_000_000, 200_000_000, 201_000_000]


def test_a_blob_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    for _ in range(2):
        with EventLog.open(tmp_path) as log:
            for _ in range(2):
                log.append_sync(stopped(1), [blob("same"), blob("same")], source="test")
            assert log.file.ask("SELECT count(*) FROM blobs") == [(1,)]


def test_reading_starts_after_a_seq_and_keeps_to_a_run(tmp_path: Path) -> None:
    with EventLog.open(tmp_path) as log:
        log.append_sync([run("a"), run("b"), *stopped(3), run("a")], source="test")
        assert [event.seq for event in log.read(after=4, batch=1)] == [5, 6]
        assert [event.seq for event in log.read(run="a", batch=2)] == [1, 6]
        assert list(log.read(run="nobody")) == []
        assert list(log.read(after=99)) == []


def test_events_refuse_update_and_delete(tmp_path: Path) -> None:
    EventLog.open(tmp_path).close()
    with contextlib.closing(attach(tmp_path / LOG_FILE)) as con:
        for change in ("UPDATE events SET source = 'x'", "DELETE FROM events", "TRUNCATE events"):
            with pytest.raises(duckdb.Error, match="append-only"):
                con.execute(change)


def test_a_closed_or_read_only_log_refuses_to_append(tmp_path: Path) -> None:
    log = EventLog.open(tmp_path)
    log.close()
    log.close()
    for closed in (log, EventLog.open(tmp_path, read_only=True)):
        with pytest.raises(LogError) as caught:
            closed.append_sync(stopped(1), source="test")
        assert caught.value.code == "log.closed"
        closed.close()


def test_closing_writes_what_waits(tmp_path: Path) -> None:
    async def append_and_leave(log: EventLog) -> None:
        waiting = [asyncio.ensure_future(log.append(stopped(100), source="test")) for _ in range(20)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        log.close()
        await asyncio.gather(*waiting)

    log = EventLog.open(tmp_path)
    asyncio.run(append_and_leave(log))
    assert read_head(tmp_path).seq == 2000


# ── results and runs ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_newest_result_of_a_key_is_found_unless_its_output_is_gone(tmp_path: Path) -> None:
    def succeeded(task: str, key: str, output: str) -> Succeeded:
        return Succeeded(run="r", task=task, attempt=1, key=key, output=digest(output.encode()))

    with EventLog.open(tmp_path) as log:
        log.append_sync([succeeded("t1", "k1", "old"), succeeded("t2", "k1", "new")], [blob("old")], source="test")
        log.append_sync([succeeded("t3", "k2", "gone")], source="test")
        assert log.find_results(["k1", "k2", "k3"], before_seq=9) == {"k1": ("t1", digest(b"old"), "stop", None)}
        log.append_sync(stopped(1), [blob("new")], source="test")
        assert log.find_results(["k1"], before_seq=9) == {"k1": ("t2", digest(b"new"), "stop", None)}
        assert log.find_results(["k1"], before_seq=1) == {"k1": ("t1", digest(b"old"), "stop", None)}
        assert log.find_results([], before_seq=9) == {}


def test_the_newest_unfinished_run_of_a_fingerprint_is_found(tmp_path: Path) -> None:
    with EventLog.open(tmp_path) as log:
        assert log.newest_run("f") is None
        log.append_sync([run("a"), run("b"), run("c", "other")], source="test")
        assert (log.newest_run("f"), log.has_run("b"), log.has_run("d")) == ("b", True, False)
        log.append_sync([RunFinished(run="b", succeeded=1, failed=0)], source="test")
        assert log.newest_run("f") == "a"
        log.append_sync([RunResumed(run="b")], source="test")
        assert log.newest_run("f") == "a"


def test_a_run_is_detached_from_its_beginning_or_since_somebody_said_so(tmp_path: Path) -> None:
    with EventLog.open(tmp_path) as log:
        log.append_sync([run("a"), run("b"), run("c")], source="test")
        log.append_sync([RunChanged(run="b", is_detached=True), RunChanged(run="c", priority=2.0)], source="test")
        assert [(name, is_detached) for name, _, is_detached in log.live_runs()] == [
            ("a", False),
            ("b", True),
            ("c", False),
        ]
        log.append_sync([RunFinished(run="a", succeeded=1, failed=0), RunChanged(run="a", priority=2.0)], source="test")
        assert [name for name, *_ in log.live_runs()] == ["b", "c"]


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    code = """
log = EventLog.open(folder)
while True:
    events = log.append_sync(stopped(7), [blob(os.urandom(2000)) for _ in range(50)], source="t")
    print(events[-1].seq, flush=True)
"""
    acknowledged = 0
    for kill in range(5):
        writer = child(code, tmp_path)
        assert writer.stdout is not None
        for _ in range(10 + 13 * kill):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        writer.wait()
        with EventLog.open(tmp_path, read_only=True) as log:
            assert log.last_seq >= acknowledged
            assert links_hold(log)
    assert acknowledged > 5 * 10 * 7


def test_a_full_disk_fails_the_batch_and_the_next_one_works_when_there_is_room(tmp_path: Path) -> None:
    code = """
log = EventLog.open(folder)
def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
def attempt(size):
    try:
        return log.append_sync(stopped(10), [blob(os.urandom(size))], source="t")[-1].seq
    except LogError as error:
        return error.code
print(attempt(100_000))
limit((folder / "log.duckdb.wal").stat().st_size + 50_000)
print(attempt(1_000_000), attempt(1_000_000), attempt(1000), sum(1 for _ in log.read()))
limit(resource.RLIM_INFINITY)
print(attempt(4_000_000))
limit((folder / "log.duckdb").stat().st_size + 100_000)
print(log.file.checkpoint())
limit(resource.RLIM_INFINITY)
print(attempt(1000), attempt(1000), log.last_seq)
log.close()
"""
    writer = child(code, tmp_path)
    out, _ = writer.communicate()
    assert out.split("\n")[:5] == ["10", "log.full log.full 20 21", "30", "False", "40 50 50"]
    assert writer.returncode == 0
    with EventLog.open(tmp_path) as log:
        assert log.last_seq == 50
        assert links_hold(log)


# ── damage ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def refused(folder: Path, *, read_only: bool = False) -> LogError:
    """The error of opening; the files are as they were."""
    before = fingerprints(folder)
    with pytest.raises(LogError) as caught:
        EventLog.open(folder, read_only=read_only)
    assert fingerprints(folder) == before
    assert caught.value.hint
    return caught.value


def test_a_killed_owners_log_opens_whole(killed: Path) -> None:
    with EventLog.open(killed) as log:
        assert log.last_seq == 1000
        assert links_hold(log)


@pytest.mark.parametrize("at", [0.2, 0.6, 0.95])
def test_a_flipped_byte_in_the_wal_is_noticed(killed: Path, at: float) -> None:
    flip(killed / WAL_FILE, at)
    assert refused(killed).code in ("log.damaged", "log.truncated")


@pytest.mark.parametrize("at", [0.0, 0.003, 0.01])
def test_a_flipped_byte_in_the_file_is_noticed(killed: Path, at: float) -> None:
    flip(killed / LOG_FILE, at)
    assert refused(killed).code == "log.damaged"


def test_a_truncated_wal_is_noticed(killed: Path) -> None:
    os.truncate(killed / WAL_FILE, (killed / WAL_FILE).stat().st_size * 7 // 10)
    error = refused(killed)
    assert error.code == "log.truncated"
    assert "were acknowledged" in error.message


def test_a_deleted_wal_is_noticed_and_can_be_put_back(killed: Path) -> None:
    wal = (killed / WAL_FILE).read_bytes()
    (killed / WAL_FILE).unlink()
    assert refused(killed).code == "log.truncated"
    assert refused(killed, read_only=True).code == "log.truncated"
    (killed / WAL_FILE).write_bytes(wal)
    with EventLog.open(killed) as log:
        assert log.last_seq == 1000


def test_a_deleted_file_is_noticed(killed: Path) -> None:
    (killed / LOG_FILE).unlink()
    assert refused(killed).code == "log.truncated"


def test_another_event_than_the_heads_is_noticed(tmp_path: Path) -> None:
    with EventLog.open(tmp_path) as log:
        log.append_sync(stopped(3), source="test")
    head = tmp_path / HEAD_FILE
    head.write_bytes(
        re.sub(rb'"hash":"(.)', lambda m: b'"hash":"' + (b"0" if m[1] != b"0" else b"1"), head.read_bytes())
    )
    assert refused(tmp_path).code == "log.damaged"


def test_a_lagging_or_missing_head_is_no_error(tmp_path: Path) -> None:
    with EventLog.open(tmp_path) as log:
        old = (tmp_path / HEAD_FILE).read_bytes()
        log.append_sync(stopped(3), source="test")
    (tmp_path / HEAD_FILE).write_bytes(old)
    EventLog.open(tmp_path).close()
    (tmp_path / HEAD_FILE).unlink()
    EventLog.open(tmp_path).close()
    assert read_head(tmp_path).seq == 3


def test_no_log_to_read_is_said(tmp_path: Path) -> None:
    assert refused(tmp_path, read_only=True).code == "log.missing"


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / LOG_FILE)) as con:
        con.execute("CREATE TABLE mine(x INTEGER)")
    assert refused(tmp_path).code == "log.format"
    (tmp_path / LOG_FILE).write_text("no database")
    assert refused(tmp_path).code == "log.damaged"


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("making", "file"):
        monkeypatch.setattr(f"gx.run.log.{module}.FORMAT", 2)
    EventLog.open(tmp_path, gx="9.9").close()
    monkeypatch.undo()
    error = refused(tmp_path)
    assert error.code == "log.newer"
    assert "9.9" in error.message


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    code = """
for read_only in (False, True):
    try:
        EventLog.open(folder, read_only=read_only)
    except LogError as error:
        print(error.code)
"""
    with EventLog.open(tmp_path):
        out, _ = child(code, tmp_path).communicate()
    assert out.split() == ["log.locked", "log.locked"]


@pytest.mark.parametrize("read_only", [False, True])
def test_a_second_opening_in_this_process_is_refused_and_leaves_the_first_its_lock(
    tmp_path: Path, read_only: bool
) -> None:
    with EventLog.open(tmp_path) as log:
        with pytest.raises(LogError) as caught:
            EventLog.open(tmp_path, read_only=read_only)
        assert caught.value.code == "log.locked"
        assert "in this process" in caught.value.message
        code = "try: EventLog.open(folder)\nexcept LogError as error: print(error.code)"
        assert child(code, tmp_path).communicate()[0] == "log.locked\n"
        assert log.append_sync(stopped(1), source="test")[0].seq == 1


def test_a_log_without_the_tables_of_its_format_is_refused(tmp_path: Path) -> None:
    EventLog.open(tmp_path).close()
    with contextlib.closing(attach(tmp_path / LOG_FILE)) as con:
        con.execute("DROP TABLE contents")
    assert refused(tmp_path).code == "log.format"


def test_a_read_only_folder_is_said_and_can_be_read(tmp_path: Path) -> None:
    with EventLog.open(tmp_path) as log:
        log.append_sync(stopped(3), source="test")
    for path in (*tmp_path.iterdir(), tmp_path):
        path.chmod(0o555 if path.is_dir() else 0o444)
    is_root = os.geteuid() == 0
    if is_root:  # nothing is forbidden to root
        opened = [parent for parent in tmp_path.parents if parent.stat().st_uid == 0 and parent.stat().st_mode & 5 != 5]
        for parent in opened:
            parent.chmod(parent.stat().st_mode | 0o055)
        os.seteuid(65534)
    try:
        with pytest.raises(LogError) as caught:
            EventLog.open(tmp_path)
        assert caught.value.code == "log.read_only"
        with EventLog.open(tmp_path, read_only=True) as log:
            assert log.last_seq == 3
    finally:
        if is_root:
            os.seteuid(0)
        tmp_path.chmod(0o755)
