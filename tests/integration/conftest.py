from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.project import ENDLESS, RECIPE, SLOW, Project
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that was trained on 512 tokens, or says so: an answer takes a moment."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf", context=512)


@pytest.fixture(scope="session")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a context so long that an answer may take many seconds."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "long.gguf", context=32768)


@pytest.fixture
def project(tmp_path: Path, tiny: Path) -> Project:
    return Project(tmp_path).write(RECIPE, tiny)


@pytest.fixture
def slow(tmp_path: Path, tiny: Path) -> Project:
    """Each row takes a tenth of a second or so."""
    return Project(tmp_path).write(SLOW, tiny)


@pytest.fixture
def endless(tmp_path: Path, long: Path) -> Project:
    """Each row takes many seconds."""
    return Project(tmp_path).write(ENDLESS, long, rows=3)
