"""Files that mean harm are contained: each is skipped in bounded time and memory, and the next one is read."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from edge.knowledge.document import Document, Limits, Skipped
from edge.knowledge.extraction import Extractor
from tests.documents import bomb, endless_pdf


def reason(path: Path, limits: Limits) -> str:
    """Why a file is skipped by an extractor that reads a good one before and behind it."""
    good = path.parent / "good.md"
    good.write_text("# Good\n\nText.")
    with Extractor(limits) as extractor:
        assert isinstance(extractor.extract(str(good)), Document)
        skipped = extractor.extract(str(path))
        assert isinstance(extractor.extract(str(good)), Document)
    assert isinstance(skipped, Skipped) and skipped.path == str(path), skipped
    return skipped.reason


def test_a_zip_bomb_is_seen_before_it_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(bomb(300))
    assert reason(tmp_path / "a.docx", Limits()).startswith("it unpacks to 31")


@pytest.mark.skipif(not Path("/proc").exists(), reason="the limit of memory holds on Linux")
def test_a_file_that_takes_too_much_memory_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(bomb(150))
    assert reason(tmp_path / "a.docx", Limits(memory_bytes=200 << 20, wall_s=60))


def test_a_text_of_2_gb_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.touch()
    os.truncate(path, 2 << 30)
    assert "bytes" in reason(path, Limits())


def test_a_pdf_that_never_ends_ends(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(endless_pdf())
    assert reason(tmp_path / "a.pdf", Limits(cpu_s=2)) in (
        "reading it takes more than 2 s of processor time",
        "its reader died of it (SIGABRT), for lack of memory perhaps",
    )


def test_a_text_that_is_longer_than_it_may_be_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc " * 100)
    assert reason(tmp_path / "a.txt", Limits(text_chars=99)) == "its text is longer than 99 characters"


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.html", b"<div>" * 200_000 + b"deep"),
        ("a.jsonl", b"[" * 200_000),
        ("a.py", b"(" * 200_000),
        ("a.md", b"> " * 50_000 + b"x\n" + b"[" * 50_000),
        ("a.csv", b'"' * 100_001),
    ],
)
def test_nesting_without_end_is_contained(tmp_path: Path, name: str, raw: bytes) -> None:
    (tmp_path / name).write_bytes(raw)
    (tmp_path / "good.txt").write_text("good")
    with Extractor(Limits(cpu_s=2)) as extractor:
        assert isinstance(extractor.extract(str(tmp_path / name)), Document | Skipped)
        assert isinstance(extractor.extract(str(tmp_path / "good.txt")), Document)


def test_a_file_that_is_not_answered_for_in_time_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with Extractor(Limits(wall_s=0.05)) as extractor:
        assert isinstance(extractor.extract(str(tmp_path / "a.txt")), Document)
        assert extractor._child is not None
        os.kill(extractor._child.pid, signal.SIGSTOP)
        skipped = extractor.extract(str(tmp_path / "a.txt"))
        assert isinstance(skipped, Skipped) and skipped.reason == "reading it takes more than 0.05 s"
        assert isinstance(extractor.extract(str(tmp_path / "a.txt")), Document)


def test_a_reader_that_was_killed_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with Extractor() as extractor:
        assert isinstance(extractor.extract(str(tmp_path / "a.txt")), Document)
        assert extractor._child is not None
        os.kill(extractor._child.pid, signal.SIGKILL)
        assert isinstance(extractor.extract(str(tmp_path / "a.txt")), Document | Skipped)
        assert isinstance(extractor.extract(str(tmp_path / "a.txt")), Document)


def test_names_with_newlines_and_pipes_are_read_and_reported(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    odd = tmp_path / "a\n\x1b[2J.md"
    odd.write_text("# Odd")
    with Extractor() as extractor:
        document = extractor.extract(str(odd))
        assert isinstance(document, Document) and document.path == str(odd)
        assert extractor.extract(str(tmp_path / "pipe.txt")) == Skipped(
            path=str(tmp_path / "pipe.txt"), reason="it is not a file"
        )
        lost = extractor.extract(str(tmp_path / "\udcff.txt"))
        assert isinstance(lost, Skipped) and lost.path.endswith("udcff.txt")


def test_a_child_goes_when_its_stdin_closes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    extractor = Extractor()
    extractor.extract(str(tmp_path / "a.txt"))
    child = extractor._child
    assert child is not None and child.stdin is not None
    child.stdin.close()
    assert child.wait(60) == 0
    extractor.close()
