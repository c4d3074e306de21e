"""Changes and damage are found, and what can be had from a damaged log is had."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from gx.core.errors import LogError
from gx.core.event import Blob, ContentErased, NodeStopped, RunCreated, TaskSucceeded
from gx.core.ids import digest
from gx.run.log import EventLog
from gx.run.log import verify as verify_module
from gx.run.log.head import HEAD_FILE
from gx.run.log.making import LOG_FILE, WAL_FILE, attach
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


LARGE = b"".join(b"%08d" % i for i in range(5000))
RECIPE, PARAMS = digest(b"recipe"), digest(LARGE)


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A log of 22 events; the last refers to two blobs, one of which is large."""
    blobs = [Blob(digest=digest(content), content=content) for content in (b"recipe", LARGE)]
    with EventLog.open(tmp_path) as log:
        log.append_sync([NodeStopped(epoch=i) for i in range(20)], source="test")
        created = RunCreated(run="r", name="x", fingerprint="f", recipe=blobs[0].digest, params=blobs[1].digest)
        log.append_sync([created], blobs, source="test")
        log.append_sync(
            [TaskSucceeded(run="r", task="t", attempt=1, key="k", output=blobs[0].digest, ms=2.5, tok_in=3, tok_out=4)],
            source="test",
        )
    return tmp_path


def tamper(folder: Path, *statements: str) -> None:
    with contextlib.closing(attach(folder / LOG_FILE)) as con:
        for table in ("events", "contents", "parts"):
            con.execute(f"DROP TRIGGER {table}_refuse_update ON {table}; DROP TRIGGER {table}_refuse_delete ON {table}")
        for statement in statements:
            con.execute(statement)


def problems(folder: Path) -> str:
    with EventLog.open(folder, read_only=True) as log:
        return " ".join(verify(log).problems)


def test_an_untouched_log_is_whole(closed: Path) -> None:
    with EventLog.open(closed) as log:
        report = verify(log)
        assert report.is_whole
        assert (report.events, report.last_hash) == (23, log.last_hash.hex())
        assert (report.blobs, report.blob_bytes) == (2, 6 + len(LARGE))


@pytest.mark.parametrize(
    "change, found",
    [
        ("UPDATE events SET data = replace(data, '7', '8') WHERE seq = 8", "event 8 was changed"),
        ("UPDATE events SET ts = ts + 1 WHERE seq = 5", "event 5 was changed"),
        ("UPDATE events SET source = 'me' WHERE seq = 5", "event 5 was changed"),
        ("DELETE FROM events WHERE seq = 7", "event 7 is missing"),
        ("UPDATE events SET data = '{}' WHERE seq = 8", "1 events can't be read, the first is 8"),
        ("UPDATE events SET id = uuid() WHERE seq = 5", "event 5 was changed"),
        *(
            (
                f"UPDATE events SET {change} WHERE seq = {seq}",
                f"1 events have columns that differ from their body, the first is {seq}",
            )
            for seq, change in (
                (21, "run = 'other'"),
                (5, "type = 'node.started'"),
                (22, "task = NULL"),
                (22, "key = 'other'"),
                (22, "worker = 'other'"),
                (22, "attempt = 2"),
                (22, "ms = NULL"),
                (22, "ms = 2.25"),
                (22, "tok_in = 0"),
                (22, "tok_out = NULL"),
                (5, "tok_in = 0"),
            )
        ),
        (
            "UPDATE contents SET bytes = 'other'::BLOB WHERE size = 6",
            f"1 blobs are not what their digest says, one is {RECIPE}",
        ),
        ("UPDATE contents SET size = 7 WHERE size = 6", "1 blobs are not what their digest says"),
        (
            "UPDATE parts SET bytes = repeat('x', 4096)::BLOB WHERE part = 1",
            f"1 blobs are not what their digest says, one is {PARAMS}",
        ),
        (
            "DELETE FROM contents WHERE size = 6",
            "1 blobs that events refer to are missing and were not erased, one is of event 22",
        ),
        ("DELETE FROM parts WHERE part = 0", f"1 blobs lack parts, one is {PARAMS}"),
        ("DELETE FROM parts WHERE part = 9", "1 blobs lack parts"),
        ("DELETE FROM parts WHERE part = 3", "1 blobs lack parts"),
        ("DELETE FROM parts", "1 blobs lack parts"),
        ("UPDATE contents SET size = size + 1 WHERE bytes IS NULL", "1 blobs lack parts"),
        ("DELETE FROM contents WHERE bytes IS NULL", f"parts of 1 blobs belong to none, one is {PARAMS}"),
    ],
)
def test_tampering_is_found(closed: Path, change: str, found: str) -> None:
    tamper(closed, change)
    assert found in problems(closed)


def test_a_missing_blob_is_counted_once_however_many_events_refer_to_it(
    closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module, "REFS_AT_ONCE", 0)
    monkeypatch.setattr(verify_module, "PAGE", 2)
    tamper(closed, f"DELETE FROM contents WHERE digest = '{RECIPE}'")
    assert problems(closed) == "1 blobs that events refer to are missing and were not erased, one is of event 21"


def test_what_was_erased_is_not_missing(closed: Path) -> None:
    tamper(closed, "DELETE FROM contents", "DELETE FROM parts")
    assert "2 blobs that events refer to are missing" in problems(closed)
    with EventLog.open(closed) as log:
        log.append_sync([ContentErased(blobs=(RECIPE, PARAMS), subject="r", run="r")], source="test")
        assert verify(log).problems == ()
        assert verify(log).erased == 2


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
