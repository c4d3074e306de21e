"""The reranker that a setting or a flag names is the same file whatever folder the node stands in."""

from __future__ import annotations

from pathlib import Path

import pytest

from gx import settings
from gx.cli.memoryasking import reranker_of


def test_a_reranker_is_a_path_from_the_file_that_names_it_or_the_folder_that_a_flag_is_given_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("XDG_CONFIG_HOME", tmp_path / "config"), ("HOME", tmp_path)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("GX_MEMORY_RERANKER", raising=False)
    below = tmp_path / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    assert reranker_of(None) is None and settings.load().memory_reranker == settings.NONE
    (tmp_path / "gx.toml").write_text('memory_reranker = "./zed.gguf"\n')
    assert reranker_of(None) == settings.load().memory_reranker == str(tmp_path / "zed.gguf")
    assert reranker_of("zed.gguf") == str(below / "zed.gguf")
    for source in ("jina-reranker-tiny", "hf:owner/repo/file.gguf", "none"):
        monkeypatch.setenv("GX_MEMORY_RERANKER", source)
        assert reranker_of(None) == reranker_of(source) == source
