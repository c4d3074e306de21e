"""Where the memory for a lane isn't there after all, the lanes get by with what there is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge.engine.engine import Completion, Engine, Request
from edge.engine.lane import Lane
from edge.engine.lanes import Lanes
from gx.core.errors import ModelError
from gx.core.message import Message, Sampling
from tests.tiny_model import write_tiny_model


@pytest.fixture
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(threads=1, slots=8, context_tokens=8192, cache_bytes=1 << 30)
    engine.register("m", str(write_tiny_model(tmp_path_factory.mktemp("m") / "m.gguf", context=8192)))
    yield engine
    engine.close()


def ask(words: int) -> Request:
    message = Message(role="user", content="word " * words)
    return Request(model="m", messages=(message,), sampling=Sampling(max_tokens=4))


def test_a_budget_that_was_too_large_is_found_out_and_idle_lanes_make_way(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, make = 4096, Lanes._lane

    def scarce(self: Lanes, n_slots: int, slot_tokens: int) -> Lane:
        if self._tokens + n_slots * slot_tokens > most:
            raise ModelError("no memory", code="model.memory")
        return make(self, n_slots, slot_tokens)

    monkeypatch.setattr(Lanes, "_lane", scarce)
    for words in (10, 2_500, 10, 1_500):  # one size after the other, each while the model is idle
        assert isinstance(engine.submit(ask(words)).result(60), Completion)
    together = [engine.submit(ask(words)) for words in (10, 2_500, 10, 1_500)]
    assert all(isinstance(future.result(60), Completion) for future in together)
