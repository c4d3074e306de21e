"""A backup is the log as it was at one event, whole, though somebody writes meanwhile; runs go on from it."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import anyio
import pytest

from gx.core import event as e
from gx.core.errors import LogError, UsageError
from gx.core.ids import digest
from gx.run.log import EventLog
from gx.run.log import backup as backup_module
from gx.run.log.backup import Backup, back_up
from gx.run.log.head import read_head
from gx.run.log.making import LOG_FILE
from gx.run.log.verify import verify
from tests import nodes
from tests.desk import open_desk
from tests.fakes import ScriptedWorker, echo
from tests.run.test_left_behind import RECIPE, ROWS, only
from tests.run.test_verify import tamper
from tests.verbs.writing import two_runs

LARGE = b"".join(b"%08d" % i for i in range(5000))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    two_runs().write(tmp_path / ".gx")
    with EventLog.open(tmp_path / ".gx") as log:
        log.append_sync([], [e.Blob(digest=digest(LARGE), content=LARGE)], source="test")
    return tmp_path / ".gx"


def test_a_backup_is_the_log_row_by_row(folder: Path, tmp_path: Path) -> None:
    with EventLog.open(folder) as log:
        done = back_up(log, tmp_path / "copy")
        with EventLog.open(tmp_path / "copy", read_only=True) as copy:
            for table in ("events", "contents", "parts"):
                sql = f"SELECT * FROM {table} ORDER BY ALL"
                assert copy.file.ask(sql) == log.file.ask(sql)
            assert copy.blobs([digest(LARGE)]) == {digest(LARGE): LARGE}
            assert verify(copy) == verify(log)
        assert (done.seq, done.hash) == (log.last_seq, log.last_hash.hex())
        head = read_head(tmp_path / "copy")
        assert head is not None and (head.seq, head.hash) == (done.seq, done.hash)


def test_what_is_written_meanwhile_is_not_in_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_module, "PAGES", {"events": 7, "contents": 3, "parts": 2})
    monkeypatch.setattr(backup_module, "CHECKPOINT_PAGES", 2)
    is_over = threading.Event()
    with EventLog.open(folder) as log:
        seq = log.last_seq
        written = 0

        def write() -> None:
            nonlocal written
            while not is_over.is_set():
                blob = e.Blob(digest=digest(b"%d" % written), content=b"%d" % written)
                body = e.RunCreated(
                    run=f"r{written}", name="x", fingerprint="f", recipe=blob.digest, params=blob.digest
                )
                log.append_sync([body], [blob], source="test")
                written += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            backups = list[Backup]()
            for n in range(3):
                backups.append(back_up(log, tmp_path / f"copy-{n}"))
                assert nodes.until(lambda: log.last_seq > backups[-1].seq), "it is written meanwhile"
        finally:
            is_over.set()
            writer.join()
        assert written and seq <= backups[0].seq < backups[1].seq < backups[2].seq <= log.last_seq
        assert verify(log).is_whole


def test_a_backup_overwrites_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "mine").write_text("x")
    (tmp_path / "file").write_text("x")
    with EventLog.open(folder) as log:
        for name in ("copy", "file"):
            with pytest.raises(UsageError, match="is there already"):
                back_up(log, tmp_path / name)
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["a\0b", "n" * 300, ".gx/copy", ".gx/log.duckdb.new", "other/../.gx/copy"])
def test_a_place_that_can_hold_no_backup_is_refused_and_left_as_it_was(folder: Path, tmp_path: Path, name: str) -> None:
    before = sorted(folder.rglob("*"))
    with EventLog.open(folder) as log, pytest.raises(UsageError):
        back_up(log, tmp_path / name)
    assert sorted(folder.rglob("*")) == before


def test_what_stands_beside_the_target_stays_and_nothing_is_left_there(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.part").mkdir()
    (tmp_path / "copy.part" / "mine").write_text("x")
    with EventLog.open(folder) as log:
        back_up(log, tmp_path / "copy")
        back_up(log, tmp_path / ("n" * 250))  # as long as a name may be, and no longer while it is made
    shutil.rmtree(tmp_path / ("n" * 250))
    assert (tmp_path / "copy.part" / "mine").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".gx", "copy", "copy.part"]


def test_a_damaged_log_gives_no_backup(folder: Path, tmp_path: Path) -> None:
    tamper(folder, "UPDATE events SET data = replace(data, 'here', 'over there') WHERE seq = 1")
    with EventLog.open(folder) as log, pytest.raises(LogError, match="event 1 was changed"):
        back_up(log, tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".gx"]


def test_a_workspace_in_a_folder_that_cannot_be_written_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with EventLog.open(folder) as log, pytest.raises(LogError):
        back_up(log, tmp_path / "file" / "copy")


@pytest.mark.anyio
async def test_an_unfinished_run_goes_on_from_a_backup(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (tmp_path / "ws").mkdir()
    async with open_desk(tmp_path / "ws", ScriptedWorker(only("one"))) as desk:
        await desk.begin(RECIPE, ROWS, run="first")
        with anyio.fail_after(60):
            while not (desk.worker.running and desk.bodies(e.TaskSucceeded)):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        await anyio.to_thread.run_sync(back_up, desk.log, copy)
    async with open_desk(copy, ScriptedWorker(echo)) as desk:
        with anyio.fail_after(60):
            _, records = await desk.run(RECIPE, ROWS, run="first")
        assert [record["id"] for record in records] == ["a", "b"]
        assert [turn.messages[-1].content for turn in desk.worker.submitted] == ["two"]
        assert verify(desk.log).is_whole
    assert (copy / LOG_FILE).exists()
