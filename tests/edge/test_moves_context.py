"""A sequence that llama.cpp moves, within a context or between two, goes on as if it had stayed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge.engine.llama import Context, Fed, Model
from edge.engine.slots import Copy, Cut, Tokens
from tests.tiny_model import write_tiny_model

SLOTS = 4
Row = npt.NDArray[np.float32]
N, LAST = 60, np.array([777], np.int32)


def some(seed: int) -> Tokens:
    return np.random.default_rng(seed).integers(100, 40_000, N).astype(np.int32)


def feed(context: Context, slot: int, start: int, tokens: Tokens) -> Row:
    return np.array(context.decode([Fed(slot, start, tokens, "last")])[0])


class Bench:
    """A loaded model, and contexts that are closed with it."""

    def __init__(self, path: str) -> None:
        self.model = Model("tiny", path)
        self._contexts: list[Context] = []

    def context(self, slot_tokens: int = 256) -> Context:
        self._contexts.append(Context(self.model, slots=SLOTS, slot_tokens=slot_tokens, threads=1))
        return self._contexts[-1]

    def close(self) -> None:
        for context in self._contexts:
            context.close()
        self.model.close()


@pytest.fixture
def bench(tiny: str) -> Iterator[Bench]:
    bench = Bench(tiny)
    yield bench
    bench.close()


@pytest.fixture
def stayed(bench: Bench) -> Row:
    """The logits after a sequence that never moved."""
    context = bench.context()
    feed(context, 0, 0, some(1))
    return feed(context, 0, N, LAST)


def swap(context: Context) -> None:
    """Slots 0 and 2 change places."""
    here, there = context.save(0), context.save(2, buffer=1)
    context.restore(0, there)
    context.restore(2, here)


@pytest.mark.parametrize("target", [1, 3])
def test_a_sequence_in_another_slot_goes_on_bit_for_bit(bench: Bench, stayed: Row, target: int) -> None:
    context = bench.context()
    feed(context, 0, 0, some(1))
    feed(context, target, 0, some(2))
    context.restore(target, context.save(0))
    assert np.array_equal(feed(context, target, N, LAST), stayed)


def test_a_sequence_in_a_longer_context_goes_on_bit_for_bit(bench: Bench, stayed: Row) -> None:
    short, long = bench.context(), bench.context(512)
    feed(short, 2, 0, some(1))
    feed(long, 0, 0, some(2))
    long.restore(3, short.save(2))
    assert np.array_equal(feed(long, 3, N, LAST), stayed)


def test_a_prompt_that_moves_halfway_goes_on_bit_for_bit(bench: Bench) -> None:
    tokens, stays, moves, other = some(1), bench.context(), bench.context(), bench.context(512)
    feed(stays, 0, 0, tokens[:25])
    feed(moves, 0, 0, np.concatenate([tokens[:25], LAST, LAST]))
    moves.move([Cut(0, 25)])
    swap(moves)
    other.restore(1, moves.save(2))
    assert np.array_equal(feed(stays, 0, 25, tokens[25:]), feed(other, 1, 25, tokens[25:]))


@pytest.mark.parametrize("n_other", [0, 20])
def test_two_that_change_places_both_go_on_bit_for_bit(bench: Bench, stayed: Row, n_other: int) -> None:
    alone, context = bench.context(), bench.context()
    expected = None
    feed(context, 0, 0, some(1))
    if n_other:
        feed(alone, 2, 0, some(2)[:n_other])
        expected = feed(alone, 2, n_other, LAST)
        feed(context, 2, 0, some(2)[:n_other])
    swap(context)
    assert np.array_equal(feed(context, 2, N, LAST), stayed)
    if expected is not None:
        assert np.array_equal(feed(context, 0, n_other, LAST), expected)


def test_what_is_copied_is_what_was_there_though_its_place_is_given_away(bench: Bench, stayed: Row) -> None:
    """A copy is made at the next decode, before that writes."""
    context = bench.context()
    feed(context, 0, 0, some(1))
    context.move([Copy(0, 1, N), Cut(0, 0), Copy(1, 2, N)])
    other = feed(context, 0, 0, some(2))
    assert np.array_equal(feed(context, 1, N, LAST), stayed) and np.array_equal(feed(context, 2, N, LAST), stayed)
    assert np.array_equal(other, feed(bench.context(), 0, 0, some(2)))


def test_layers_that_look_back_a_little_lose_what_is_before_when_they_move(tmp_path: Path) -> None:
    """So a model that has such layers says that its sequences can't be moved, and they can still be shared."""
    bench = Bench(str(write_tiny_model(tmp_path / "sliding.gguf", window=16)))
    stays = bench.context()
    feed(stays, 0, 0, some(1)[:25])
    right = feed(stays, 0, 25, LAST)

    shares = bench.context()
    feed(shares, 0, 0, some(1))
    shares.move([Copy(0, 2, 25)])
    shared = feed(shares, 2, 25, LAST)

    moves = bench.context()
    feed(moves, 0, 0, some(1))
    moves.restore(1, moves.save(0))
    moves.move([Cut(1, 25)])
    moved = feed(moves, 1, 25, LAST)

    assert np.allclose(shared, right, atol=1e-3) and not np.allclose(moved, right, atol=1e-3)
    assert bench.model.can_share and not bench.model.can_move
    bench.close()


def test_what_has_no_such_layers_moves(bench: Bench) -> None:
    assert bench.model.can_share and bench.model.can_move
