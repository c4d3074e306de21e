"""A slot that is kept for a conversation is neither lost nor in anybody's way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.engine.engine import Completion, Engine, Request
from edge.engine.slots import Slots
from gx.core.message import Message, Sampling
from tests.tiny_model import write_tiny_model


class Bench:
    """An engine of three slots, whose clock stands until it is set."""

    def __init__(self, path: str) -> None:
        self.path, self.now_s = path, 0.0
        self.engine = Engine(threads=1, slots=3, context_tokens=1024, clock=lambda: self.now_s)
        self.engine.register("tiny", path)

    def ask(self, text: str, max_tokens: int = 2, **fields: Any) -> Request:
        message, sampling = Message(role="user", content=text), Sampling(max_tokens=max_tokens)
        return Request(model="tiny", messages=(message,), sampling=sampling, ignores_end=True, **fields)

    def run(self, *requests: Request) -> list[Completion]:
        """What becomes of some that come in one round."""
        with self.engine._rounds._changed:
            futures = [self.engine.submit(request) for request in requests]
        results = [future.result(20) for future in futures]
        return [result for result in results if isinstance(result, Completion)]

    @property
    def slots(self) -> Slots:
        (loaded,) = self.engine._shelf._loaded.values()
        return loaded.lanes._lanes[0]._slots


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(str(write_tiny_model(tmp_path / "tiny.gguf")))
    yield bench
    bench.engine.close()


def test_two_that_begin_alike_both_end_where_one_of_them_has_a_kept_slot(bench: Bench) -> None:
    """The first would copy from the free slot that the second gets, and the second from the first."""
    near, far = (" ".join(f"{word}{number}" for number in range(60)) for word in ("near", "far"))
    bench.run(bench.ask(near))
    busy = bench.engine.submit(bench.ask("zzz", 900))
    bench.run(bench.ask("quite another thing", conversation="c", goes_on=True))
    alike = (f"{near} {far} one", f"{near} {far} two")
    both = bench.run(bench.ask(alike[0], 9, conversation="c"), bench.ask(alike[1], 9))
    assert isinstance(busy.result(20), Completion) and len(both) == 2
    assert both[0].usage.tokens_cached > 100
    alone = Bench(bench.path)
    for text, result in zip(alike, both, strict=True):
        assert [one.text for one in alone.run(bench.ask(text, 9))] == [result.text]
    alone.engine.close()


def test_of_a_conversation_that_runs_twice_one_slot_is_kept(bench: Bench) -> None:
    twice = [bench.ask(f"the same one {number}", conversation="c", goes_on=True) for number in range(2)]
    assert len(bench.run(*twice)) == 2
    assert bench.slots.n_free == 2
    bench.now_s = 1.0
    assert len(bench.run(bench.ask("another"))) == 1
    assert bench.slots.n_free == 3


def test_a_kept_slot_is_free_when_its_time_is_over(bench: Bench) -> None:
    first = [bench.ask(f"{number}", conversation=f"{number}", goes_on=True) for number in range(3)]
    bench.run(*first)
    assert bench.slots.n_free == 0
    future = bench.engine.submit(bench.ask("another"))
    (next_one,) = bench.run(bench.ask("0 and more", conversation="0", goes_on=True))
    assert next_one.usage.tokens_cached and not future.done()
    bench.now_s = 1.0
    assert isinstance(future.result(20), Completion)
