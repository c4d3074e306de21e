"""Changes and damage are found, and what can be had from a damaged log is had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from gx.core.errors import LogError
from gx.core.event import Blob, NodeStopped, RunCreated
from gx.core.ids import digest
from gx.run.log import EventLog
from gx.run.log.file import HEAD_FILE, LOG_FILE, WAL_FILE
from gx.run.log.verify import salvage, verify

WRITER = """
import os, sys
from pathlib import Path
from gx.core.event import NodeStopped
from gx.run.log import EventLog
log = EventLog.open(Path(sys.argv[1]))
for i in range(20):
    log.append_sync([NodeStopped(epoch=epoch) for epoch in range(50)], source="t")
    if i == 9:
        assert log.file.checkpoint()
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """1,001 events, of which 500 are in the WAL."""
    subprocess.run([sys.executable, "-c", WRITER, str(tmp_path)])
    return tmp_path


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    with EventLog.open(tmp_path) as log:
        content = Blob(digest=digest(b"content"), content=b"content")
        log.append_sync([NodeStopped(epoch=i) for i in range(20)], [content], source="test")
        log.append_sync(
            [RunCreated(run="r", name="x", fingerprint="f", recipe=digest(b"r"), params=digest(b"p"))], source="test"
        )
    return tmp_path


def tamper(folder: Path, *statements: str) -> None:
    with duckdb.connect(str(folder / LOG_FILE)) as con:
        con.execute("DROP TRIGGER events_refuse_update ON events; DROP TRIGGER events_refuse_delete ON events")
        for statement in statements:
            con.execute(statement)


def problems(folder: Path) -> str:
    with EventLog.open(folder, read_only=True) as log:
        return " ".join(verify(log).problems)


def test_an_untouched_log_is_whole(closed: Path) -> None:
    with EventLog.open(closed) as log:
        report = verify(log)
        assert report.is_whole
        assert (report.events, report.last_hash, report.blobs, report.blob_bytes) == (22, log.last_hash.hex(), 1, 7)


@pytest.mark.parametrize(
    "change, found",
    [
        ("UPDATE events SET data = replace(data, '7', '8') WHERE seq = 8", "event 8 was changed"),
        ("UPDATE events SET ts = ts + 1 WHERE seq = 5", "event 5 was changed"),
        ("UPDATE events SET source = 'me' WHERE seq = 5", "event 5 was changed"),
        ("UPDATE events SET run = 'other' WHERE seq = 21", "columns that differ"),
        ("DELETE FROM events WHERE seq = 7", "event 7 is missing"),
        ("UPDATE blobs SET bytes = 'other'::BLOB", "not what their digest says"),
    ],
)
def test_tampering_is_found(closed: Path, change: str, found: str) -> None:
    tamper(closed, change)
    assert found in problems(closed)


def test_salvage_gets_what_stands_before_the_damage(killed: Path) -> None:
    wal = bytearray((killed / WAL_FILE).read_bytes())
    wal[len(wal) * 3 // 4] ^= 0x10
    (killed / WAL_FILE).write_bytes(wal)
    report = salvage(killed)
    assert 501 <= report.events < 1001
    assert report.events + report.lost == 1001
    assert report.problems == ()
    assert (killed / "salvage-1" / WAL_FILE).read_bytes() == bytes(wal)
    assert report.copies == str(killed / "salvage-1")
    with EventLog.open(killed) as log:
        log.append_sync([NodeStopped(epoch=1)], source="test")
        assert verify(log).is_whole


def test_salvage_goes_on_without_a_lost_wal(killed: Path) -> None:
    (killed / WAL_FILE).unlink()
    with pytest.raises(LogError):
        EventLog.open(killed)
    assert (report := salvage(killed)).lost == 500
    assert report.events == 501
    EventLog.open(killed).close()


def test_salvage_of_a_whole_log_loses_nothing(killed: Path) -> None:
    report = salvage(killed)
    assert (report.events, report.lost, report.is_whole) == (1001, 0, True)
    assert {path.name for path in (killed / "salvage-1").iterdir()} == {LOG_FILE, WAL_FILE, HEAD_FILE}


def test_salvage_keeps_a_damaged_main_file_as_it_is(closed: Path) -> None:
    content = b"\0" * 100 + (closed / LOG_FILE).read_bytes()[100:]
    (closed / LOG_FILE).write_bytes(content)
    with pytest.raises(LogError) as caught:
        salvage(closed)
    assert caught.value.code == "log.damaged"
    assert (closed / LOG_FILE).read_bytes() == content
