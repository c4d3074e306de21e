from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.project import ENDLESS, HELD, RECIPE, SLOW, Project
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
def folder(tmp_path: Path) -> Iterator[Project]:
    """An empty project; what was started in it ends with the test."""
    made = Project(tmp_path)
    yield made
    made.close()


@pytest.fixture
def project(folder: Project, tiny: Path) -> Project:
    return folder.keep().write(RECIPE, tiny)


@pytest.fixture
def slow(folder: Project, tiny: Path) -> Project:
    """Each row takes a tenth of a second or so."""
    return folder.keep().write(SLOW, tiny)


@pytest.fixture
def held(folder: Project, long: Path) -> Project:
    """Rows are done at once, and the run stays live until it is let go."""
    return folder.keep().write(HELD, long, rows=14)


@pytest.fixture
def endless(folder: Project, long: Path) -> Project:
    """Each row takes many seconds."""
    return folder.keep().write(ENDLESS, long, rows=3)
