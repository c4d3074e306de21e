"""A copy is made because somebody asked, is measured, is found by its source's digest, and can be deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge import prepared
from gx.core.errors import ModelError
from tests.tiny_bert import write_tiny_bert
from tests.tiny_reranker import write_counting_reranker


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny: str) -> tuple[Path, Path, prepared.Copy]:
    models_dir = tmp_path_factory.mktemp("models")
    return models_dir, *prepared.make(Path(tiny), "f" * 64, "q8_0", models_dir)


def test_a_copy_is_measured_beside_its_source(made: tuple[Path, Path, prepared.Copy], tiny: str) -> None:
    _, path, copy = made
    assert path.stat().st_size == copy.measured.copy_bytes < copy.measured.size_bytes == Path(tiny).stat().st_size
    assert all(rate > 0 for rate in (*copy.measured.prefill, *copy.measured.decode))
    assert 0 <= copy.measured.kl < 0.05 and copy.measured.same_best > 0.8
    assert copy.measured.tokens == 1024


def test_a_copy_is_found_by_the_digest_of_its_source(made: tuple[Path, Path, prepared.Copy]) -> None:
    models_dir, path, copy = made
    assert prepared.find(models_dir, "f" * 64) == (path, copy)
    assert prepared.find(models_dir, "e" * 64) is None


def test_a_copy_without_its_note_is_not_there(made: tuple[Path, Path, prepared.Copy], tmp_path: Path) -> None:
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / made[1].name).write_bytes(b"GGUF")
    assert prepared.find(tmp_path, "f" * 64) is None


def test_what_cannot_be_copied_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "x.gguf"
    source.write_bytes(b"no model")
    with pytest.raises(ModelError, match="isn't a GGUF file"):
        prepared.make(source, "a" * 64, "bf16", tmp_path / "models")
    assert not [path for path in (tmp_path / "models" / "prepared").iterdir() if path.suffix in (".gguf", ".part")]


def test_deleting_a_copy_frees_its_bytes(tmp_path: Path, tiny: str) -> None:
    path, _ = prepared.make(Path(tiny), "b" * 64, "bf16", tmp_path)
    size = path.stat().st_size
    assert prepared.remove(tmp_path, "b" * 64) == size and prepared.find(tmp_path, "b" * 64) is None


def test_the_copy_of_an_embedding_model_makes_nearly_the_same_vectors(tmp_path: Path) -> None:
    path, copy = prepared.make(write_tiny_bert(tmp_path / "bert.gguf"), "d" * 64, "bf16", tmp_path)
    measured = copy.measured
    assert measured.texts > 10 and measured.cosine is not None and 0.99 < measured.cosine < 0.9999999
    assert measured.decode is None and min(measured.prefill) > 0
    assert prepared.find(tmp_path, "d" * 64) == (path, copy)


def test_a_reranker_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither writes nor embeds"):
        prepared.make(write_counting_reranker(tmp_path / "r.gguf"), "c" * 64, "bf16", tmp_path)
    assert not [path for path in (tmp_path / "prepared").iterdir() if path.suffix in (".gguf", ".part")]
