from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that was trained on 512 tokens, or says so: an answer takes a moment."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf", context=512)


@pytest.fixture(scope="session")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a context so long that an answer may take many seconds."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "long.gguf", context=32768)
