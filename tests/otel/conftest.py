from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node.served import PATIENCE_S, Served, serve
from tests.otel.receiver import Received, receiving
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("otel")
    write_tiny_model(folder / "tiny.gguf", context=32768)
    with serve(folder / "ws") as served:
        yield served


@pytest.fixture
def served(shared: Served) -> Iterator[Served]:
    """A node that serves a workspace, with no run when a test begins, and none when it ends."""
    shared.node.telemetry.flush_s = PATIENCE_S  # what may be sent to a collector that takes it arrives, however slowly
    yield shared
    shared.end_runs()


@pytest.fixture
def there() -> Iterator[Received]:
    """A collector on loopback."""
    with receiving() as made:
        yield made
