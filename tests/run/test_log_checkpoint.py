"""A checkpoint gives memory back and leaves the log as usable as before."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from gx.core.event import Blob, NodeStopped
from gx.core.ids import digest
from gx.run.log import EventLog, writer
from gx.run.log.making import WAL_FILE

LIMIT = [("953.6 MiB",)]


def append(log: EventLog, megabytes: int) -> None:
    contents = [os.urandom(10_000) for _ in range(megabytes * 100)]
    blobs = [Blob(digest=digest(content), content=content) for content in contents]
    log.append_sync([NodeStopped(epoch=1)], blobs, source="test")


def held_bytes(log: EventLog) -> int:
    return int(log.file.ask("SELECT sum(memory_usage_bytes) FROM duckdb_memory()")[0][0])


def memory_limit(log: EventLog) -> list[tuple[str]]:
    return log.file.ask("SELECT current_setting('memory_limit')")


def test_a_checkpoint_lets_memory_go_and_restores_its_limit(tmp_path: Path) -> None:
    with EventLog.open(tmp_path) as log:
        append(log, 20)
        assert held_bytes(log) > 15 << 20
        assert log.file.checkpoint()
        assert held_bytes(log) < 5 << 20
        assert memory_limit(log) == LIMIT
        assert len(log.file.ask("SELECT bytes FROM blobs")) == 2000


def test_while_a_question_is_open_memory_is_not_taken_from_it(tmp_path: Path) -> None:
    with EventLog.open(tmp_path) as log:
        append(log, 20)
        with log.file.cursor() as asking:
            rows = asking.execute("SELECT bytes FROM blobs")
            assert len(rows.fetchmany(1)) == 1
            assert log.file.checkpoint()
            assert len(rows.fetchall()) == 1999
        assert memory_limit(log) == LIMIT


def test_memory_is_not_taken_from_a_commit(tmp_path: Path) -> None:
    with EventLog.open(tmp_path) as log:
        append(log, 1)
        with log.file.writing:
            done = threading.Thread(target=log.file.checkpoint)
            done.start()
            done.join(0.3)
            assert done.is_alive()
            assert memory_limit(log) == LIMIT
        done.join()
        assert memory_limit(log) == LIMIT


def test_a_large_wal_is_folded_into_the_file_beside_the_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_BYTES", 1 << 20)
    folded = threading.Event()
    with EventLog.open(tmp_path) as log:
        checkpoint = log.file.checkpoint

        def told() -> bool:
            is_done = checkpoint()
            folded.set()
            return is_done

        monkeypatch.setattr(log.file, "checkpoint", told)
        append(log, 3)
        assert folded.wait(60)
        assert not (tmp_path / WAL_FILE).exists() or (tmp_path / WAL_FILE).stat().st_size < 1 << 20
        assert log.file.ask("SELECT count(*) FROM blobs") == [(300,)]
