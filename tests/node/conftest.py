from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.served import Served, serve
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a context so long that an answer may take as long as a test likes."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "long.gguf", context=32768)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, long: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "tiny.gguf").symlink_to(long)
    with serve(folder / "ws") as served:
        yield served


@pytest.fixture
def served(shared: Served) -> Iterator[Served]:
    """A node that serves a workspace, with no run when a test begins, and none when it ends."""
    yield shared
    shared.end_runs()
