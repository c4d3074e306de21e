"""What many requests get while they change their places, within a lane and between two, is what each gets alone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from edge.engine import lane, lanes
from edge.engine.cache import Cache
from edge.engine.calls import gather
from edge.engine.engine import Completion, Engine, Request, Weights
from edge.engine.llama import Context, Fed, Rows
from edge.engine.room import LaneState, merge
from gx.core.errors import BenchError
from gx.core.message import Failure, Message, Sampling
from tests.tiny_model import write_tiny_model

NEARLY = 0.03
"""How far apart two logits of the same token are in different company, and more."""
SHARED = (
    "You are given a ticket of some length, and so on. " * 6,
    "Another one that many begin with, in other words. " * 6,
)


class Moves:
    """Counts what is moved, and has places change at random in every round, where that is asked for."""

    def __init__(self, dice: random.Random | None) -> None:
        self._dice = dice
        self.merges = self.swaps = 0

    def merge(self, states: Sequence[LaneState]) -> tuple[int, int] | None:
        pair = merge(states)
        self.merges += pair is not None
        return pair

    def gather(self, writing: Iterable[int], n_slots: int) -> list[tuple[int, int]]:
        pairs = gather(writing, n_slots)
        if self._dice is not None:
            pairs = [(a, b) for a, b in (self._dice.sample(range(n_slots), 2) for _ in range(2))]
        self.swaps += len(pairs)
        return pairs


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model with room for two kinds of lanes."""
    return str(write_tiny_model(tmp_path_factory.mktemp("moves") / "roomy.gguf", context=4096))


def start(path: str, cache_bytes: int = 1 << 30) -> Engine:
    engine = Engine(threads=1, slots=8, context_tokens=4096, cache_bytes=cache_bytes)
    engine.register("tiny", path)
    return engine


def crowd(dice: random.Random, n: int) -> list[Request]:
    """Requests of two lanes: answers of all lengths, and options of several tokens."""

    def one(number: int) -> Request:
        fields: dict[str, Any] = {"ignores_end": True, "sampling": Sampling(max_tokens=dice.choice((3, 10, 30, 60)))}
        if dice.random() < 0.25:
            fields = {"options": ("yes, by all means", "no", "perhaps so, who knows")}
        text = dice.choice((*SHARED, "")) + f"number {number} " * dice.randint(1, 12)
        text += "word " * dice.randint(1000, 1300) * (number % 12 > 6 and dice.random() < 0.3)
        return Request(model="tiny", messages=(Message(role="user", content=text),), **fields)

    return [one(number) for number in range(n)]


class Alone(NamedTuple):
    """What comes of a request without company, and how sure the model was of each token: how far the next one was."""

    result: Any
    pieces: list[bytes]
    gaps: list[float]

    def check(self, result: Any) -> None:
        """Greedy text is the same in any company, but where two tokens are all but equally likely; a weight nearly."""
        if isinstance(self.result, Weights):
            assert isinstance(result, Weights)
            assert result.log_likelihoods == pytest.approx(self.result.log_likelihoods, abs=NEARLY)
            return
        assert isinstance(result, Completion) and isinstance(self.result, Completion)
        assert result.usage.tokens_out == self.result.usage.tokens_out
        if result.text != self.result.text:
            told = [b"".join(self.pieces[:n]).decode("utf-8", "ignore") for n in range(1, len(self.pieces) + 1)]
            differs = next(n for n, text in enumerate(told) if not result.text.startswith(text))
            assert self.gaps[differs] < NEARLY, (result.text, self.result.text)


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    return crowd(random.Random(3), 48)


@pytest.fixture(scope="module")
def expected(roomy: str, requests: list[Request]) -> list[Alone]:
    """What comes of each of them without company, and without a move."""
    rows: list[tuple[int, float]] = []

    def decode(context: Context, parts: Sequence[Fed]) -> Rows:
        logits = decode_all(context, parts)
        for row in logits:
            second, first = np.partition(row, -2)[-2:].tolist()
            rows.append((int(row.argmax()), first - second))
        return logits

    with pytest.MonkeyPatch.context() as patch:
        decode_all = Context.decode
        patch.setattr(Context, "decode", decode)
        patch.setattr(lanes, "merge", lambda states: None)
        patch.setattr(lane, "gather", lambda writing, n_slots: [])
        patch.setattr(Cache, "copy_from", lambda *args: False)
        engine = start(roomy)
        found = []
        with engine._shelf.borrow("tiny") as loaded:
            for request in requests:
                rows.clear()
                result = engine.submit(request).result(60)
                pieces = [loaded.model.vocab.piece(token) for token, _ in rows]
                found.append(Alone(result, pieces, [gap for _, gap in rows]))
        engine.close()
    return found


def check_all_free(engine: Engine) -> None:
    until_s = time.monotonic() + 5
    while any(loaded.users for loaded in engine._shelf._loaded.values()) and time.monotonic() < until_s:
        time.sleep(0.01)
    for loaded in engine._shelf._loaded.values():
        assert not loaded.users and loaded.lanes.is_idle
        for one in loaded.lanes._lanes:
            assert one._slots.n_free == len(one._slots)


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_what_is_written_and_weighed_does_not_depend_on_moves(
    roomy: str, requests: list[Request], expected: list[Alone], monkeypatch: pytest.MonkeyPatch, is_shuffled: bool
) -> None:
    moves = Moves(random.Random(4) if is_shuffled else None)
    monkeypatch.setattr(lanes, "merge", moves.merge)
    monkeypatch.setattr(lane, "gather", moves.gather)
    engine = start(roomy)
    results: list[Any] = []
    for wave in range(0, len(requests), 12):  # a wave's end leaves few in each lane
        results += [f.result(60) for f in [engine.submit(request) for request in requests[wave : wave + 12]]]
    check_all_free(engine)
    engine.close()
    for result, other in zip(results, expected, strict=True):
        other.check(result)
    assert moves.merges and moves.swaps >= 5


@pytest.mark.parametrize("seed", range(2))
def test_who_is_cancelled_or_late_while_all_move_changes_nothing_for_the_others(
    roomy: str, requests: list[Request], expected: list[Alone], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    dice = random.Random(seed)
    moves = Moves(random.Random(seed))
    monkeypatch.setattr(lanes, "merge", moves.merge)
    monkeypatch.setattr(lane, "gather", moves.gather)
    engine = start(roomy)
    events = [threading.Event() for _ in requests]
    late = Request(model="tiny", messages=requests[0].messages, timeout_s=0.02, sampling=Sampling(max_tokens=300))
    futures, lates = [], []
    for number, (request, event) in enumerate(zip(requests, events, strict=True)):
        futures.append(engine.submit(request, cancelled=event))
        if number % 6 == 0:
            lates.append(engine.submit(late))
    for event in dice.sample(events, len(events) // 2):
        time.sleep(dice.choice((0.0, 0.004)))
        event.set()
    for future, event, other in zip(futures, events, expected, strict=True):
        result = future.result(60)
        if isinstance(result, Failure):
            assert event.is_set() and result.code == "cancelled"
        else:
            other.check(result)
    assert {getattr(future.result(60), "code", "done") for future in lates} <= {"timeout", "done"}
    check_all_free(engine)
    engine.close()
    assert moves.swaps


def test_lanes_of_different_numbers_of_slots_stay_apart_and_everybody_is_answered(
    roomy: str, requests: list[Request], expected: list[Alone], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start(roomy, cache_bytes=20_000 * 512)  # 8 slots of 1,024 tokens, 4 of 2,048
    results = [future.result(60) for future in [engine.submit(request) for request in requests]]
    (loaded,) = engine._shelf._loaded.values()
    assert {len(one._slots) for one in loaded.lanes._lanes} == {8, 4}
    engine.close()
    for result, other in zip(results, expected, strict=True):
        other.check(result)


@pytest.mark.parametrize("what", ["save", "restore"])
def test_who_can_not_be_moved_stays_or_fails_alone_and_may_try_again(
    roomy: str, requests: list[Request], expected: list[Alone], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    dice, works, lost = random.Random(5), getattr(Context, what), []

    def fail_now_and_then(*args: Any, **fields: Any) -> Any:
        if dice.random() < 0.02:
            lost.append(args)
            raise BenchError("slot 0 can't be moved")
        return works(*args, **fields)

    monkeypatch.setattr(Context, what, fail_now_and_then)
    moves = Moves(random.Random(6))
    monkeypatch.setattr(lanes, "merge", moves.merge)
    monkeypatch.setattr(lane, "gather", moves.gather)
    engine = start(roomy)
    results = [future.result(60) for future in [engine.submit(request) for request in requests]]
    check_all_free(engine)
    engine.close()
    failed = [result for result in results if isinstance(result, Failure)]
    assert all(failure.code == "bench" and failure.retryable for failure in failed)
    assert lost and len(failed) <= (2 * len(lost) if what == "restore" else 0), "what can't be read is as it was"
    for result, other in zip(results, expected, strict=True):
        if not isinstance(result, Failure):
            other.check(result)
