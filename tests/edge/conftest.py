from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edge.engine.engine import Engine

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


@pytest.fixture(scope="module")
def engine(tiny: str, packaged: str) -> Iterator[Engine]:
    """An engine of four slots with a random model, "tiny", and a real one, "smol"."""
    from edge.engine.engine import Engine  # tests that need no engine load no llama.cpp

    engine = Engine(threads=1, slots=4)
    engine.register("tiny", tiny)
    engine.register("smol", packaged, 2048)
    yield engine
    engine.close()


from tests.hub import server  # noqa: E402, F401  the fixture that downloads are tested with
