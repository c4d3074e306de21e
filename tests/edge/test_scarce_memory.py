"""Where there is less memory than was thought, lanes have fewer slots, and make way for each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.engine import cache
from edge.engine.engine import Completion, Engine, Request
from edge.engine.llama import Context, Model
from gx.core.errors import ModelError
from gx.core.message import Failure, Message, Sampling
from tests.tiny_model import write_tiny_model


class Memory:
    """Has room for the contexts of so many tokens."""

    def __init__(self) -> None:
        self.tokens = 1 << 20
        self._taken: dict[Context, int] = {}

    def context(self, model: Model, **fields: Any) -> Context:
        n_tokens = fields["slots"] * fields["slot_tokens"]
        taken = sum(tokens for context, tokens in self._taken.items() if context._pointer)
        if taken + n_tokens > self.tokens:
            raise ModelError("no context could be made")
        context = Context(model, **fields)
        self._taken[context] = n_tokens
        return context


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    monkeypatch.setattr(cache, "Context", memory.context)
    return memory


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(threads=1, slots=8, context_tokens=4096)
    engine.register("tiny", str(write_tiny_model(tmp_path / "tiny.gguf", context=4096)))
    yield engine
    engine.close()


def ask(text: str, max_tokens: int = 4) -> Request:
    message = Message(role="user", content=text)
    return Request(model="tiny", messages=(message,), sampling=Sampling(max_tokens=max_tokens), ignores_end=True)


def sizes(engine: Engine) -> list[tuple[int, int]]:
    (loaded,) = engine._shelf._loaded.values()
    return [state[1::-1] for state in (one.state() for one in loaded.lanes._lanes)]


def test_a_lane_has_half_as_many_slots_until_it_fits(engine: Engine, memory: Memory) -> None:
    """Whoever was idle meanwhile asks for more again, and gets the slot that there is room for."""
    memory.tokens = 3 * 1024
    futures = [engine.submit(ask(f"{number}")) for number in range(12)]
    assert all(isinstance(future.result(30), Completion) for future in futures)
    assert sizes(engine) in ([(2, 1024)], [(2, 1024), (1, 1024)])


def test_a_model_s_card_says_how_many_turns_there_is_room_for(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf", context=4096)
    token_bytes = Model("m", str(path)).token_bytes
    for cache_tokens, slots in ((1 << 20, 8), (6 * 1024, 3), (1024, 1)):
        engine = Engine(threads=1, slots=8, context_tokens=1024, cache_bytes=cache_tokens * token_bytes)
        engine.register("tiny", str(path))
        assert engine.describe("tiny").slots == slots
        engine.close()


def test_an_idle_lane_makes_way_for_one_that_does_not_fit_beside_it(engine: Engine, memory: Memory) -> None:
    memory.tokens = 9 * 1024
    assert isinstance(engine.submit(ask("short")).result(30), Completion)
    assert isinstance(engine.submit(ask("long " * 3000)).result(30), Completion)
    assert sizes(engine) == [(1, 4096)]


def test_who_does_not_fit_beside_those_that_run_waits(engine: Engine, memory: Memory) -> None:
    memory.tokens = 9 * 1024
    with engine._rounds._changed:
        runs, waits = engine.submit(ask("short", 200)), engine.submit(ask("long " * 3000))
    assert isinstance(runs.result(30), Completion) and isinstance(waits.result(30), Completion)


def test_a_model_without_memory_for_one_slot_is_refused_and_the_others_go_on(engine: Engine, memory: Memory) -> None:
    memory.tokens = 2048
    failure = engine.submit(ask("long " * 3000)).result(30)
    assert isinstance(failure, Failure) and failure.code == "model"
    assert isinstance(engine.submit(ask("short")).result(30), Completion)
