"""Large blobs stand in parts, and nobody who asks for one can tell."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from gx.core.errors import LogError
from gx.core.event import Blob, ContentErased, NodeStopped, RunCreated, TaskQueued, TaskSucceeded
from gx.core.ids import digest
from gx.run.log import EventLog, reading
from gx.run.log.erase import erase
from gx.run.log.making import LOG_FILE, attach
from gx.run.log.query import run_sql
from gx.run.log.schema import PART_BYTES, WHOLE_BYTES
from gx.run.log.verify import verify

SIZES = (0, 1, PART_BYTES, WHOLE_BYTES - 1, WHOLE_BYTES, WHOLE_BYTES + 1, 5 * PART_BYTES, 5 * PART_BYTES + 1, 300_000)


def blob(size: int, seed: int = 0) -> Blob:
    """Bytes that no text encoding takes; each of its parts is another one."""
    content = random.Random(f"{seed} {size}").randbytes(size)
    return Blob(digest=digest(content), content=content)


def text(letters: str, size: int) -> Blob:
    content = ("é" + letters * size)[:size].encode()
    return Blob(digest=digest(content), content=content)


BLOBS = [blob(size) for size in SIZES]
CONTENT = {blob.digest: blob.content for blob in BLOBS}


@pytest.fixture(params=["in the WAL", "in the file"])
def log(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[EventLog]:
    with EventLog.open(tmp_path) as log:
        log.append_sync([NodeStopped(epoch=1)], BLOBS, source="test")
        if request.param == "in the file":
            assert log.file.checkpoint()
        yield log


def test_blobs_of_every_size_are_read_back_whole(log: EventLog) -> None:
    assert log.blobs(CONTENT.keys()) == CONTENT
    for name, content in CONTENT.items():
        assert log.blobs([name, digest(b"nobody's")]) == {name: content}


def test_no_row_of_a_blob_is_large(log: EventLog) -> None:
    assert log.file.ask("SELECT max(octet_length(bytes)) FROM contents") == [(WHOLE_BYTES,)]
    assert log.file.ask("SELECT max(octet_length(bytes)) FROM parts") == [(PART_BYTES,)]
    assert log.file.ask("SELECT count(DISTINCT digest) FROM parts") == [(sum(size > WHOLE_BYTES for size in SIZES),)]


def test_a_person_sees_each_blob_whole(log: EventLog) -> None:
    rows = run_sql(log, "SELECT digest, bytes, size, seq FROM blobs").rows
    assert sorted(rows) == sorted((blob.digest, blob.content, len(blob.content), 1) for blob in BLOBS)
    assert verify(log).problems == ()
    assert (verify(log).blobs, verify(log).blob_bytes) == (len(SIZES), sum(SIZES))


def test_a_large_result_is_one_text(log: EventLog) -> None:
    output = text("x", 3 * WHOLE_BYTES)
    queued = TaskQueued(run="r", task="t", step="s", path="0", index=0, id="0")
    done = TaskSucceeded(run="r", task="t", attempt=1, key="k", output=output.digest)
    log.append_sync([queued, done], [output], source="test")
    assert run_sql(log, "SELECT output FROM results").rows == [(output.content.decode(),)]
    assert log.find_results(["k"], before_seq=log.last_seq) == {"k": ("t", output.digest, "stop", None)}


def test_many_large_blobs_are_read_a_few_at_a_time(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "JOINED_BYTES", 50_000)
    assert log.blobs(CONTENT.keys()) == CONTENT
    sizes = [(1, str(size), size) for size in (30_000, 20_000, 1, 60_000, 49_999)]
    groups = [[int(size) for _, size in group] for group in reading.large_blobs_in_turn(sizes)]
    assert sorted(size for group in groups for size in group) == [1, 20_000, 30_000, 49_999, 60_000]
    assert all(sum(group) <= 50_000 or len(group) == 1 for group in groups)


def test_a_large_blob_that_is_there_is_not_written_again(log: EventLog) -> None:
    before = log.file.ask("SELECT count(*) FROM parts")
    log.append_sync([NodeStopped(epoch=2)], BLOBS, source="test")
    assert log.file.ask("SELECT count(*) FROM parts") == before


def test_a_large_blob_that_stands_twice_is_read_once(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gx.run.log.writer.REMEMBERED_BLOBS", 0)
    for epoch in (2, 3):
        log.append_sync([NodeStopped(epoch=epoch)], BLOBS, source="test")
    assert log.file.ask("SELECT count(*) FROM blobs") > [(len(BLOBS),)]
    assert log.blobs(CONTENT.keys()) == CONTENT
    assert verify(log).problems == ()


def test_a_blob_that_lacks_a_part_is_not_given(tmp_path: Path) -> None:
    with EventLog.open(tmp_path) as log:
        log.append_sync([], BLOBS, source="test")
    con = attach(tmp_path / LOG_FILE)
    con.execute("DROP TRIGGER parts_refuse_delete ON parts; DELETE FROM parts WHERE part = 2")
    con.close()
    with EventLog.open(tmp_path) as log, pytest.raises(LogError) as caught:
        log.blobs(CONTENT.keys())
    assert caught.value.code == "log.damaged"


def test_erasing_takes_every_part_and_leaves_the_others(tmp_path: Path) -> None:
    secret, kept = text("the-secret ", 60_000), blob(60_000)
    with EventLog.open(tmp_path) as log:
        for run, content in (("a", secret), ("b", kept)):
            created = RunCreated(run=run, name="x", fingerprint="f", recipe=content.digest, params=content.digest)
            log.append_sync([created], [content], source="test")
        report = erase(log, "a")
    assert (report.blobs, report.size_bytes) == (1, len(secret.content))
    with EventLog.open(tmp_path) as log:
        assert log.blobs([secret.digest, kept.digest]) == {kept.digest: kept.content}
        assert log.file.ask("SELECT count(*) FROM parts WHERE digest = ?", [secret.digest]) == [(0,)]
        assert isinstance(list(log.read())[-1].body, ContentErased)
        assert verify(log).problems == ()
        log.append_sync([NodeStopped(epoch=1)], [secret], source="test")
        assert log.blobs([secret.digest]) == {secret.digest: secret.content}


@pytest.mark.parametrize("table", ["contents", "parts"])
def test_blobs_refuse_update_and_delete(tmp_path: Path, table: str) -> None:
    with EventLog.open(tmp_path) as log:
        log.append_sync([], BLOBS, source="test")
    con = attach(tmp_path / LOG_FILE)
    for change in (f"UPDATE {table} SET bytes = 'x'::BLOB", f"DELETE FROM {table}", f"TRUNCATE {table}"):
        with pytest.raises(duckdb.Error, match="append-only"):
            con.execute(change)
    con.close()


def test_a_commit_without_memory_is_tried_once_more(tmp_path: Path) -> None:
    def append(log: EventLog, seed: int) -> int:
        blobs = [blob(1_000_000, seed * 100 + i) for i in range(24)]
        return log.append_sync([NodeStopped(epoch=seed)], blobs, source="test")[-1].seq

    with EventLog.open(tmp_path) as log:
        append(log, 1)
        with log.file.cursor() as cursor:
            cursor.execute("SET memory_limit = '6MB'")
        assert append(log, 2) == 2  # it was opened again, so the limit is the old one
        assert log.file.ask("SELECT current_setting('memory_limit')") == [("953.6 MiB",)]
        assert log.file.ask("SELECT count(*), count(DISTINCT digest) FROM blobs") == [(48, 48)]
        assert verify(log).problems == ()
