"""Files become chunks that are ready to be remembered, each with its own answer, by the model's own tokens."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edge.knowledge.counting import about, tokens_of
from edge.knowledge.document import Skipped
from edge.knowledge.extraction import Extractor
from edge.knowledge.reading import Read, heading_of, read
from tests.tiny_bert import write_tiny_bert


def test_each_file_gives_one_answer_in_order(tmp_path: Path) -> None:
    files = {"a.md": b"# Tea\n\nAda likes tea.", "b.pdf": b"%PDF-1.4 no", "c.txt": b"   ", "d.txt": b"Last. " * 90}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with Extractor() as extractor:
        found = list(read([str(tmp_path / name) for name in files], extractor, about, 60, 10))
    assert [type(one) for one in found] == [Read, Skipped, Skipped, Read]
    assert [Path(one.path).name for one in found] == list(files)
    first, *_, last = found
    assert isinstance(first, Read) and first.sha256 == hashlib.sha256(files["a.md"]).hexdigest()
    assert isinstance(last, Read) and len(last.chunks) > 2 and all(one.tokens <= 60 for one in last.chunks)


def test_what_cannot_be_cut_is_skipped_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("word")
    with Extractor() as extractor:
        (found,) = read([str(tmp_path / "a.txt")], extractor, lambda texts: [99 for _ in texts], 60, 10)
    assert isinstance(found, Skipped) and "can't be cut" in found.reason


def test_tokens_are_the_models_own_with_those_around_a_text(tmp_path: Path) -> None:
    count = tokens_of(str(write_tiny_bert(tmp_path / "bert.gguf")))
    assert count(["", "abc", "abc de"]) == [2, 5, 7]


def test_a_word_that_the_model_cannot_spell_is_cut_all_the_same(tmp_path: Path) -> None:
    count = tokens_of(str(write_tiny_bert(tmp_path / "bert.gguf")))
    (tmp_path / "a.txt").write_text("ሀለ" * 1000)
    with Extractor() as extractor:
        (found,) = read([str(tmp_path / "a.txt")], extractor, count, 20, 5)
    assert isinstance(found, Read) and max(len(one.text) for one in found.chunks) <= 20 * 16
    assert "".join(one.text for one in found.chunks) == "ሀለ" * 1000


def test_a_heading_says_each_thing_once() -> None:
    assert heading_of("Tea", ("Tea", "Green")) == "Tea › Green"
    assert len(heading_of("x" * 1000, ())) == 300
