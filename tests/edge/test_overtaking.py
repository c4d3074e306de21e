"""Who waits for a long lane holds up nobody whom it need not, and is held up by nobody for ever."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from edge.engine.engine import Engine, Request, Result
from gx.core.message import Failure, Message, Sampling
from tests.tiny_model import write_tiny_model

LONG = "long " * 5000


class Bench:
    """An engine with memory for so many tokens, and who ended there, in their order."""

    def __init__(self, path: str, cache_tokens: int) -> None:
        self.engine = Engine(threads=1, slots=4, context_tokens=8192, cache_bytes=0)
        self.engine.register("tiny", path)
        self.engine.submit(self._ask("load", 1)).result(30)
        (loaded,) = self.engine._shelf._loaded.values()
        loaded.lanes._given_tokens = cache_tokens
        loaded.lanes.close()
        self.ended: list[str] = []
        self._futures: list[Future[Result]] = []

    def _ask(self, text: str, max_tokens: int) -> Request:
        message = Message(role="user", content=text)
        return Request(model="tiny", messages=(message,), sampling=Sampling(max_tokens=max_tokens), ignores_end=True)

    def submit(self, name: str, max_tokens: int, text: str = "") -> None:
        future = self.engine.submit(self._ask(text or name, max_tokens))
        future.add_done_callback(lambda _: self.ended.append(name))
        self._futures.append(future)

    def wait(self) -> None:
        for future in self._futures:
            assert not isinstance(future.result(60), Failure)


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_model(tmp_path_factory.mktemp("overtaking") / "tiny.gguf", context=8192))


@pytest.fixture
def bench(roomy: str) -> Iterator[Bench]:
    """With memory for four short slots, or for one long one."""
    bench = Bench(roomy, cache_tokens=9_000)
    yield bench
    bench.engine.close()


def test_what_ends_sooner_than_those_that_run_overtakes_who_waits_for_a_lane(bench: Bench) -> None:
    with bench.engine._rounds._changed:
        bench.submit("runs", 900)
        bench.submit("waits", 4, LONG)
        for number in range(6):
            bench.submit(f"short {number}", 4)
    bench.wait()
    assert bench.ended == [*(f"short {number}" for number in range(6)), "runs", "waits"]


def test_who_waits_for_a_lane_is_not_overtaken_by_what_would_keep_it_waiting(bench: Bench) -> None:
    with bench.engine._rounds._changed:
        for number in range(4):
            bench.submit(f"runs {number}", 100)
        bench.submit("waits", 4, LONG)
        for number in range(12):
            bench.submit(f"as long {number}", 100)
    bench.wait()
    assert bench.ended.index("waits") == 4


def test_who_waits_for_a_slot_holds_up_its_own_size_only(roomy: str) -> None:
    bench = Bench(roomy, cache_tokens=40_000)
    with bench.engine._rounds._changed:
        for number in range(4):
            bench.submit(f"long {number}", 100, f"{number} {LONG}")
        for number in range(4):
            bench.submit(f"short {number}", 4)
    bench.wait()
    bench.engine.close()
    assert sorted(bench.ended[:4]) == [f"short {number}" for number in range(4)]
