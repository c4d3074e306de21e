"""What was erased is gone from the disk, what others need stays, and the chain of the events still holds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gx.core.errors import LogError, NotFound
from gx.core.event import (
    AttemptFailed,
    Blob,
    Body,
    ContentErased,
    InputRow,
    InputsRead,
    PromptPart,
    RunCreated,
    TaskPrepared,
    TaskQueued,
    TaskSucceeded,
)
from gx.core.ids import digest
from gx.run.log import EventLog
from gx.run.log import erase as erase_module
from gx.run.log.erase import erase
from gx.run.log.verify import verify

SECRET = "the-secret-of-"


def blob(text: str) -> Blob:
    return Blob(digest=digest(text.encode()), content=text.encode())


def ref(text: str) -> str:
    return digest(text.encode())


def task(run: str, name: str, row: str, *, key: str, answer: str) -> tuple[list[Body], list[Blob]]:
    """A task on the row `row`, with a persona that all tasks share."""
    prompt = f"what of {row}?"
    bodies: list[Body] = [
        TaskQueued(run=run, task=name, step="s", path=name, index=0, id=name, item=ref(row)),
        TaskPrepared(
            run=run,
            task=name,
            attempt=1,
            key=key,
            model="m",
            prompt=(
                PromptPart(role="system", content=ref("persona")),
                PromptPart(role="user", content=ref(prompt)),
            ),
        ),
        AttemptFailed(
            run=run, task=name, attempt=1, worker="edge", code="x", message="m", detail=ref(f"detail of {row}")
        ),
        TaskSucceeded(run=run, task=name, attempt=1, key=key, output=ref(answer)),
    ]
    return bodies, [blob(text) for text in (row, "persona", prompt, f"detail of {row}", answer)]


def run_of(name: str, rows: list[str]) -> tuple[list[Body], list[Blob]]:
    read = tuple(InputRow(index=i, id=str(i), item=ref(row)) for i, row in enumerate(rows))
    bodies: list[Body] = [
        RunCreated(run=name, name=name, fingerprint="f", recipe=ref("recipe"), params=ref(f"params of {name}")),
        InputsRead(run=name, rows=read),
    ]
    return bodies, [blob("recipe"), blob(f"params of {name}")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run r1 has t1 and t2 on two secrets; run r2 has t3 on the first secret, equal in all, and t4."""
    one, two = SECRET + "one", SECRET + "two"
    parts = [
        run_of("r1", [one, two]),
        task("r1", "t1", one, key="k1", answer=SECRET + "answer"),
        task("r1", "t2", two, key="k2", answer="shared answer"),
        run_of("r2", [one, "row"]),
        task("r2", "t3", one, key="k1", answer=SECRET + "answer"),
        task("r2", "t4", "row", key="k4", answer="shared answer"),
    ]
    folder = tmp_path_factory.mktemp("log")
    with EventLog.open(folder) as log:
        for i, (bodies, blobs) in enumerate(parts):
            log.append_sync(bodies, blobs, source="test")
            if i == 3:
                assert log.file.checkpoint()
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path, dirs_exist_ok=True))


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file())


def rows_of(folder: Path) -> list[tuple[object, ...]]:
    with EventLog.open(folder, read_only=True) as log:
        assert verify(log).is_whole
        return log.file.ask("SELECT * FROM events ORDER BY seq")


def test_the_bytes_of_an_erased_task_are_gone_and_the_chain_holds(folder: Path) -> None:
    before = rows_of(folder)
    assert (SECRET + "one").encode() in bytes_of(folder)
    report = erase(EventLog.open(folder), "t1")
    content = bytes_of(folder)
    for text in (SECRET + "one", f"what of {SECRET}one", f"detail of {SECRET}one", SECRET + "answer"):
        assert text.encode() not in content
    assert (SECRET + "two").encode() in content
    after = rows_of(folder)
    assert after[:-1] == before
    assert (report.seq, report.blobs) == (len(before), 4)
    assert report.kept == {ref("persona"): "t2"}


def test_erasing_is_an_event_that_names_the_blobs(folder: Path) -> None:
    report = erase(EventLog.open(folder), "t1")
    with EventLog.open(folder) as log:
        body = next(log.read(after=report.seq - 1)).body
        assert isinstance(body, ContentErased)
        assert (body.subject, body.task, body.run, len(body.blobs)) == ("t1", "t1", "r1", 4)
        assert log.blobs(body.blobs) == {}
        assert log.append_sync([], [blob("new")], source="test") == []
        assert log.find_results(["k1", "k4"], before_seq=log.last_seq) == {
            "k4": ("t4", ref("shared answer"), "stop", None)
        }


def test_content_that_another_task_needs_is_kept(folder: Path) -> None:
    report = erase(EventLog.open(folder), "t2")
    assert report.kept == {ref("persona"): "t1", ref("shared answer"): "t4"}
    content = bytes_of(folder)
    assert b"shared answer" in content
    assert (SECRET + "two").encode() not in content


def test_the_bytes_of_an_erased_run_are_gone(folder: Path) -> None:
    report = erase(EventLog.open(folder), "r1")
    content = bytes_of(folder)
    assert SECRET.encode() not in content
    assert b"params of r1" not in content
    assert b"params of r2" in content
    assert set(report.kept) == {ref("persona"), ref("recipe"), ref("shared answer")}


def test_erasing_twice_changes_nothing_more(folder: Path) -> None:
    erase(EventLog.open(folder), "r1")
    before = rows_of(folder)
    with EventLog.open(folder) as log:
        assert erase(log, "r1").blobs == 0
    assert rows_of(folder) == before


def test_an_erased_blob_can_come_back(folder: Path) -> None:
    erase(EventLog.open(folder), "t1")
    with EventLog.open(folder) as log:
        log.append_sync(*task("r3", "t9", SECRET + "one", key="k1", answer=SECRET + "answer"), source="test")
        assert log.find_results(["k1"], before_seq=log.last_seq)["k1"][0] == "t9"


def test_nothing_is_erased_for_an_unknown_subject(folder: Path) -> None:
    with EventLog.open(folder) as log, pytest.raises(NotFound):
        erase(log, "t")


@pytest.mark.parametrize("moment", ["insert_event", "move_into_place"])
def test_a_crash_before_the_rename_leaves_the_old_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Crash(BaseException):
        """Like a kill: nothing cleans up after it."""

    def crash(*_: object) -> None:
        raise Crash

    before = rows_of(folder)
    monkeypatch.setattr(erase_module, moment, crash)
    with pytest.raises(Crash):
        erase(EventLog.open(folder), "t1")
    monkeypatch.undo()
    assert rows_of(folder) == before
    assert erase(EventLog.open(folder), "t1").blobs == 4
    assert not (folder / "log.duckdb.new").exists()
    assert (SECRET + "answer").encode() not in bytes_of(folder)


def test_a_crash_after_the_rename_leaves_the_new_log(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LogError("killed")

    log = EventLog.open(folder)
    monkeypatch.setattr(EventLog, "open", fail)
    with pytest.raises(LogError, match="killed"):
        erase(log, "t1")
    monkeypatch.undo()
    assert rows_of(folder)[-1][4] == "content.erased"
    assert (SECRET + "answer").encode() not in bytes_of(folder)
