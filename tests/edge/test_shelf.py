"""A model stays in memory as long as somebody uses it, and no longer than there is room."""

from __future__ import annotations

import time

from edge.engine.lane import Lanes
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


def test_a_borrowed_model_outlives_its_place_on_the_shelf(tiny: str) -> None:
    shelf = Shelf(lanes, context_tokens=256, room=1)
    for digest in "ab":
        shelf.register(digest, Place(path=tiny))
    with shelf.borrow("a") as first:
        with shelf.borrow("b"):
            assert shelf.digests() == ["b"]
            assert len(first.model.encode((Message(role="user", content="Hi"),))) > 3
        assert not first.model.is_closed
    assert first.model.is_closed
    shelf.close()


def test_a_model_without_users_is_freed_when_another_takes_its_place(tiny: str) -> None:
    shelf = Shelf(lanes, context_tokens=256, room=1)
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
