from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny_model import packaged_model, write_tiny_model


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def packaged() -> str:
    """The SmolLM2 file that the development environment brings."""
    return str(packaged_model())


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tiny model that was trained on 512 tokens, or says so."""
    path: Path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    yield str(write_tiny_model(path, context=512))


from tests.hub import server  # noqa: E402, F401  the fixture that downloads are tested with
