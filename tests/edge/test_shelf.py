"""A model stays in memory as long as somebody uses it, and models together take no more than there is room for."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from edge.engine.lanes import Lanes
from edge.engine.llama import Model
from edge.engine.llama.library import llama_cpp
from edge.engine.loaded import Loaded, Place
from edge.engine.memory import Claim, claim_of, total
from edge.engine.shelf import BETWEEN_TURNS_S, PATIENCE_S, Shelf
from edge.engine.statistics import Statistics
from gx.core.errors import BenchError, ModelError
from gx.core.message import Message

CONTEXT = 256


def lanes(model: Model, context_tokens: int, cache_bytes: int) -> Lanes:
    return Lanes(
        model,
        context_tokens=context_tokens,
        n_slots=2,
        budget_tokens=1024,
        threads=1,
        statistics=Statistics(),
        now=time.monotonic,
    )


def claim(path: str, cache_bytes: int = 0) -> Claim:
    return claim_of(path, context_tokens=CONTEXT, text_tokens=(512, 2048), cache_bytes=cache_bytes)


def room(path: str, n: int, cache_bytes: int = 0) -> int:
    """What so many such models take."""
    return total([claim(path, cache_bytes)] * n)


class Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


class Loads:
    """Makes lanes, and counts: a model is loaded each time."""

    def __init__(self) -> None:
        self.of: list[str] = []

    def __call__(self, model: Model, context_tokens: int, cache_bytes: int) -> Lanes:
        self.of.append(model.digest)
        return lanes(model, context_tokens, cache_bytes)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def made(path: str, budget: int | None, *, n: int = 3, **options: object) -> Shelf:
    shelf = Shelf(options.pop("make", lanes), context_tokens=CONTEXT, budget_bytes=budget, **options)  # type: ignore[arg-type]
    for digest in "abcdef"[:n]:
        shelf.register(digest, Place(path=path))
    return shelf


def waits(shelf: Shelf, taken: Future[Loaded]) -> bool:
    """Whether somebody is in the queue, and stays there."""
    until_s = time.monotonic() + 10
    while not shelf._wants and not taken.done() and time.monotonic() < until_s:
        time.sleep(0.001)
    return not taken.done()


def test_who_finds_no_room_waits_until_a_model_is_given_back(tiny: str, threads: ThreadPoolExecutor) -> None:
    shelf = made(tiny, room(tiny, 1))
    first = shelf.take("a")
    second = threads.submit(shelf.take, "b")
    assert waits(shelf, second) and shelf.digests() == ["a"]
    assert len(first.model.encode((Message(role="user", content="Hi"),))) > 3
    shelf.give_back(first)
    assert second.result(10).model.digest == "b"
    assert first.model.is_closed and shelf.digests() == ["b"]
    shelf.give_back(second.result())
    shelf.close()
    assert second.result().model.is_closed


def test_models_in_use_and_being_loaded_never_claim_more_than_the_budget(
    tiny: str, threads: ThreadPoolExecutor
) -> None:
    budget, seen = room(tiny, 2, 1 << 20), list[int]()

    def look() -> None:
        with shelf._changed:  # what is about to be put away makes room for a load that has not begun
            leaving = [one for one in shelf._retired if not one.users]
            seen.append(total(shelf._claims(without=leaving)))

    def slow(model: Model, context_tokens: int, cache_bytes: int) -> Lanes:
        look()
        time.sleep(0.002)
        return lanes(model, context_tokens, cache_bytes)

    def use(seed: int) -> None:
        for digest in random.Random(seed).choices("abcdef", k=6):
            with shelf.borrow(digest) as loaded:
                assert not loaded.model.is_closed
                look()

    shelf = made(tiny, budget, n=6, make=slow, cache_bytes=1 << 20)
    for done in [threads.submit(use, seed) for seed in range(8)]:
        done.result(60)
    assert max(seen) == budget and len(shelf.digests()) == 2
    shelf.close()


def test_a_model_that_does_not_fit_alone_is_refused_with_the_figures(tiny: str, packaged: str) -> None:
    shelf = made(tiny, room(tiny, 1))
    shelf.register("large", Place(path=packaged))
    with (
        shelf.borrow("a"),
        pytest.raises(ModelError, match=r"needs \d+ MB \(\d+ MB of weights.* there are \d") as caught,
    ):
        shelf.take("large")
    assert caught.value.code == "model.memory" and "smaller" in caught.value.hint
    assert shelf.digests() == ["a"]
    shelf.close()


def test_alone_a_model_is_content_with_the_cache_of_one_turn_and_gets_what_is_left(tiny: str) -> None:
    left = 1 << 16
    caches: list[int] = []

    def make(model: Model, context_tokens: int, cache_bytes: int) -> Lanes:
        caches.append(cache_bytes)
        return lanes(model, context_tokens, cache_bytes)

    shelf = made(tiny, room(tiny, 1) + left, cache_bytes=1 << 30, make=make)
    with shelf.borrow("a") as loaded:
        assert caches == [loaded.claim.cache] == [claim(tiny).turn + left]
    shelf.close()


def test_beside_others_a_model_takes_less_cache_where_it_is_content_with_it(tiny: str) -> None:
    most, least = 8 << 20, 2 << 20
    shelf = made(tiny, room(tiny, 2) - 2 * claim(tiny).turn + most + least, cache_bytes=most, least_cache_bytes=least)
    with shelf.borrow("a") as a, shelf.borrow("b") as b:
        assert (a.claim.cache, b.claim.cache) == (most, least)
    shelf.close()


def test_a_model_in_use_serves_whoever_comes_until_the_other_one_has_waited_long_enough(
    tiny: str, threads: ThreadPoolExecutor
) -> None:
    clock = Clock()
    shelf = made(tiny, room(tiny, 1), now=clock)
    uses = [shelf.take("a")]
    other = threads.submit(shelf.take, "b")
    assert waits(shelf, other)
    for _ in range(50):  # used without a break
        uses.append(shelf.take("a"))
        shelf.give_back(uses.pop(0))
    assert not other.done()
    clock.s += PATIENCE_S
    assert shelf.take_nowait("a") is None
    again = threads.submit(shelf.take, "a")
    assert waits(shelf, again)
    shelf.give_back(uses.pop())
    assert other.result(10).model.digest == "b" and not again.done()
    for _ in range(50):  # and now the other way round, though `a` is waited for
        more = shelf.take_nowait("b")
        assert more is not None
        shelf.give_back(more)
    clock.s += PATIENCE_S
    assert shelf.take_nowait("b") is None
    shelf.give_back(other.result())
    shelf.give_back(again.result(10))
    shelf.close()


def test_two_models_that_are_used_in_turns_are_not_loaded_for_each_request(
    tiny: str, threads: ThreadPoolExecutor
) -> None:
    loads = Loads()
    shelf = made(tiny, room(tiny, 1), make=loads)

    def use(digest: str) -> None:
        with shelf.borrow(digest):
            time.sleep(0.05)

    first = shelf.take("a")
    uses = [threads.submit(use, digest) for digest in "abababab"]
    for used in uses[::2]:
        used.result(20)
    until_s = time.monotonic() + 20
    while len(shelf._wants) < 4 and time.monotonic() < until_s:  # everybody has come
        time.sleep(0.001)
    shelf.give_back(first)
    for used in uses[1::2]:
        used.result(20)
    assert loads.of == ["a", "b"]
    shelf.close()


def test_two_models_that_one_turn_after_the_other_uses_are_not_loaded_for_each_turn(
    tiny: str, threads: ThreadPoolExecutor
) -> None:
    loads = Loads()
    shelf = made(tiny, room(tiny, 1), make=loads)

    def use(digest: str) -> None:
        for _ in range(15):
            with shelf.borrow(digest):
                time.sleep(0.01)
            time.sleep(0.002)  # the next turn is on its way

    for used in [threads.submit(use, digest) for digest in "ab"]:
        used.result(60)
    assert len(loads.of) <= 4, loads.of
    shelf.close()


def test_who_waited_longest_is_not_overtaken_for_ever(tiny: str, tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    large = tmp_path / "large.gguf"
    large.write_bytes(Path(tiny).read_bytes() + bytes(Path(tiny).stat().st_size))
    clock = Clock()
    shelf = made(tiny, room(str(large), 1) + claim(tiny).turn, now=clock, n=4)
    shelf.register("large", Place(path=str(large)))
    first, second = shelf.take("a"), shelf.take("b")
    third = threads.submit(shelf.take, "large")
    assert waits(shelf, third)
    clock.s += PATIENCE_S
    shelf.give_back(first)
    small = threads.submit(shelf.take, "d")  # there would be room for it at once
    time.sleep(0.2)
    assert not small.done() and not third.done()
    shelf.give_back(second)
    shelf.give_back(third.result(10))
    clock.s += BETWEEN_TURNS_S
    shelf.give_back(small.result(10))
    shelf.close()


def test_who_gives_up_waits_no_longer_and_closing_ends_all_waiting(tiny: str, threads: ThreadPoolExecutor) -> None:
    shelf = made(tiny, room(tiny, 1))
    first, gone = shelf.take("a"), threading.Event()
    one = threads.submit(shelf.take, "b", gives_up=gone.is_set)
    other = threads.submit(shelf.take, "c")
    assert waits(shelf, one)
    gone.set()
    with pytest.raises(BenchError) as caught:
        one.result(10)
    assert caught.value.code == "cancelled"
    shelf.close()
    with pytest.raises(BenchError, match="closed"):
        other.result(10)
    with pytest.raises(BenchError, match="closed"):
        shelf.take_nowait("never registered")
    assert not first.model.is_closed
    shelf.give_back(first)
    assert first.model.is_closed


def test_who_wants_a_loaded_model_does_not_wait_for_another_ones_load(tiny: str) -> None:
    loading, may_end = threading.Event(), threading.Event()

    def slow(model: Model, context_tokens: int, cache_bytes: int) -> Lanes:
        if model.digest == "b":
            loading.set()
            may_end.wait(60)
        return lanes(model, context_tokens, cache_bytes)

    shelf = made(tiny, None, make=slow)
    shelf.give_back(shelf.take("a"))
    other = threading.Thread(target=lambda: shelf.give_back(shelf.take("b")))
    other.start()
    assert loading.wait(60)
    assert shelf.take_nowait("b") is None
    shelf.give_back(shelf.take("a"))  # it would wait for ever
    may_end.set()
    other.join()
    assert shelf.digests() == ["a", "b"]
    shelf.close()


def test_a_model_without_users_is_freed_when_another_takes_its_place(tiny: str) -> None:
    shelf = made(tiny, room(tiny, 1))
    with shelf.borrow("a") as first:
        pass
    with shelf.borrow("a") as again:
        assert again is first and not first.model.is_closed
    with shelf.borrow("b") as second:
        assert first.model.is_closed
    shelf.close()
    assert second.model.is_closed


def test_a_new_place_counts_from_the_next_use(tiny: str) -> None:
    shelf = Shelf(lanes)
    shelf.register("a", Place(path=tiny, context_tokens=256))
    with shelf.borrow("a") as before:
        shelf.register("a", Place(path=tiny, context_tokens=300))
        with shelf.borrow("a") as after:
            assert (before.card.context_tokens, after.card.context_tokens) == (256, 300)
            assert len(shelf._claims()) == 2
    assert before.model.is_closed and not after.model.is_closed
    assert len(shelf._claims()) == 1
    shelf.close()


def test_the_least_recently_used_model_goes_first(tiny: str) -> None:
    size = Path(tiny).stat().st_size
    shelf = made(tiny, room(tiny, 2, size // 2), cache_bytes=size // 2)
    for digest in "abac":
        shelf.give_back(shelf.take(digest))
    assert shelf.digests() == ["a", "c"]
    shelf.close()


def test_a_broken_file_is_tried_once_until_it_is_another_file(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[bytes] = []
    load = llama_cpp.llama_model_load_from_file

    def counted(path: bytes, params: object) -> object:
        tried.append(path)
        return load(path, params)

    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", counted)
    path = tmp_path / "x.gguf"
    path.write_bytes(Path(tiny).read_bytes()[: Path(tiny).stat().st_size // 2])
    shelf = made(str(path), None, n=1)
    messages = set[str]()
    for _ in range(20):
        with pytest.raises(ModelError, match="cut short or damaged") as caught:
            shelf.take("a")
        messages.add(f"{caught.value}; {caught.value.hint}")
    assert len(tried) == 1 and len(messages) == 1
    shutil.copy(tiny, path)
    with shelf.borrow("a") as loaded:
        assert not loaded.model.is_closed
    assert len(tried) == 2
    shelf.close()


def test_what_has_no_room_on_a_gpu_is_loaded_with_fewer_layers_there_and_says_so(tiny: str) -> None:
    weights = Path(tiny).stat().st_size
    large, small = (made(tiny, budget, n=1, is_gpu=True) for budget in (2 * weights, 3 * weights // 4))
    with large.borrow("a") as loaded:
        assert loaded.model.gpu_layers is None and not loaded.card.warnings
    with small.borrow("a") as loaded:
        assert loaded.model.gpu_layers == 1 and loaded.claim.layers == 2 and loaded.claim.share == 1 / 3
        (warning,) = loaded.card.warnings
        assert f"room for {loaded.model.gpu_layers} of its {loaded.claim.layers + 1} layers" in warning
    large.close()
    small.close()
