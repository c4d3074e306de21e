"""A model stays in memory as long as somebody uses it, and no longer than there is room."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from edge.engine.lanes import Lanes
from edge.engine.llama import Model
from edge.engine.shelf import Place, Shelf
from edge.engine.statistics import Statistics
from gx.core.message import Message


def lanes(model: Model, context_tokens: int) -> Lanes:
    return Lanes(
        model,
        context_tokens=context_tokens,
        n_slots=2,
        budget_tokens=1024,
        threads=1,
        statistics=Statistics(),
        now=time.monotonic,
    )


def test_a_borrowed_model_stays_and_who_came_last_goes_first(tiny: str) -> None:
    shelf = Shelf(lanes, context_tokens=256, budget_bytes=Path(tiny).stat().st_size * 3 // 2)
    for digest in "ab":
        shelf.register(digest, Place(path=tiny))
    with shelf.borrow("a") as first:
        with shelf.borrow("b") as second:
            assert shelf.digests() == ["a", "b"]
            assert len(first.model.encode((Message(role="user", content="Hi"),))) > 3
        assert shelf.digests() == ["a"]
        assert second.model.is_closed and not first.model.is_closed
    assert not first.model.is_closed
    shelf.close()
    assert first.model.is_closed


def test_who_wants_a_loaded_model_does_not_wait_for_another_ones_load(tiny: str) -> None:
    loading, may_end = threading.Event(), threading.Event()

    def slow(model: Model, context_tokens: int) -> Lanes:
        if model.digest == "b":
            loading.set()
            may_end.wait(10)
        return lanes(model, context_tokens)

    shelf = Shelf(slow, context_tokens=256)
    for digest in "ab":
        shelf.register(digest, Place(path=tiny))
    shelf.give_back(shelf.take("a"))
    other = threading.Thread(target=lambda: shelf.give_back(shelf.take("b")))
    other.start()
    assert loading.wait(10)
    shelf.give_back(shelf.take("a"))  # it would wait for ever
    may_end.set()
    other.join()
    assert shelf.digests() == ["a", "b"]
    shelf.close()


def test_a_model_without_users_is_freed_when_another_takes_its_place(tiny: str) -> None:
    shelf = Shelf(lanes, context_tokens=256, budget_bytes=Path(tiny).stat().st_size * 3 // 2)
    for digest in "ab":
        shelf.register(digest, Place(path=tiny))
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
    assert before.model.is_closed and not after.model.is_closed
    shelf.close()


def test_models_stay_while_weights_and_caches_are_within_the_budget(tiny: str) -> None:
    size = Path(tiny).stat().st_size
    shelf = Shelf(lanes, context_tokens=256, budget_bytes=3 * size, cache_bytes=size // 2)
    for digest in "abc":
        shelf.register(digest, Place(path=tiny))
    for digest in "abac":
        shelf.give_back(shelf.take(digest))
    assert shelf.digests() == ["a", "c"]
    shelf.close()
