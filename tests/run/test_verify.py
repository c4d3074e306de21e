"""Whatever was changed in a log, or is missing from it, is found."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from gx.core.event import Blob, ContentErased, NodeStopped, RunCreated, TaskSucceeded
from gx.core.ids import digest
from gx.run.log import EventLog
from gx.run.log import verify as verify_module
from gx.run.log.head import HEAD_FILE
from gx.run.log.making import LOG_FILE, attach
from gx.run.log.verify import verify

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


def test_a_head_that_is_missing_or_names_another_event_is_told(closed: Path) -> None:
    with EventLog.open(closed) as log:
        good = (closed / HEAD_FILE).read_bytes()
        (closed / HEAD_FILE).write_bytes(b"{")
        assert verify(log).problems == (
            "log.head is missing or can't be read, so that a lost end would not be noticed",
        )
        (closed / HEAD_FILE).write_text('{"seq": 7, "hash": "00"}')
        assert verify(log).problems == ("event 7 is not the one that log.head names",)
        (closed / HEAD_FILE).write_text('{"seq": 30, "hash": "00"}')
        report = verify(log)
        assert report.problems == ("8 events after 22 were acknowledged and are not there",)
        assert (report.lost, report.is_whole) == (8, False)
        (closed / HEAD_FILE).write_bytes(good)
        assert verify(log).is_whole


def test_what_was_asked_for_is_a_blob_like_others(closed: Path) -> None:
    with EventLog.open(closed) as log:
        created = RunCreated(run="s", name="x", fingerprint="f", recipe=RECIPE, params=PARAMS, asked="0" * 32)
        log.append_sync([created], source="test")
    assert problems(closed) == "1 blobs that events refer to are missing and were not erased, one is of event 23"
