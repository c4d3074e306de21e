"""What goes wrong for one request is that request's alone, and the engine goes on."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.engine import engine as module
from edge.engine.engine import Completion, Engine, Request, Result, Weights
from edge.engine.lane import Lane
from edge.engine.loaded import Loaded
from gx.core.errors import BenchError
from gx.core.message import Failure, Message, Sampling
from tests.tiny_bert import write_tiny_bert
from tests.tiny_model import write_tiny_model

# llguidance asks llama_cpp for each token's attributes by an older name.
pytestmark = pytest.mark.filterwarnings("ignore:llama_token_get_attr")


@pytest.fixture
def engine(tiny: str, tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(threads=1, slots=4)
    engine.register("tiny", tiny)
    bare = "{{ messages[0]['content'] }}"
    engine.register("bare", str(write_tiny_model(tmp_path / "bare.gguf", template=bare)))
    engine.register("bert", str(write_tiny_bert(tmp_path / "bert.gguf")))
    yield engine
    engine.close()


def ask(text: str = "Hi", model: str = "tiny", **fields: Any) -> Request:
    sampling = Sampling(max_tokens=fields.pop("max_tokens", 20))
    return Request(model=model, messages=(Message(role="user", content=text),), sampling=sampling, **fields)


def done(futures: list[Future[Result]]) -> list[Result]:
    return [future.result(60) for future in futures]


def test_an_empty_prompt_is_refused_and_its_neighbours_go_on(engine: Engine) -> None:
    good = [engine.submit(ask(f"good {number}", "bare", max_tokens=100)) for number in range(6)]
    empty = [engine.submit(ask("", "bare")), engine.submit(ask("", "bare", options=("a", "b")))]
    assert all(isinstance(result, Completion) for result in done(good))
    assert [result.code for result in done(empty) if isinstance(result, Failure)] == ["empty", "empty"]


def test_what_goes_wrong_where_nobody_foresaw_it_takes_no_slot(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    done([engine.submit(ask())])

    def fail(*args: Any) -> Any:
        raise ValueError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(Lane, "_fetch", fail)
        for _ in range(2 * engine.slots):
            with pytest.raises(ValueError, match="a bug"):
                engine.submit(ask()).result(30)
    assert all(isinstance(result, Completion) for result in done([engine.submit(ask()) for _ in range(8)]))
    (loaded,) = engine._shelf._loaded.values()
    engine.measure().result(10)
    assert not loaded.users and all(lane.is_idle for lane in loaded.lanes._lanes)


def test_a_cancelled_future_of_texts_stops_nothing(engine: Engine) -> None:
    future = engine.embed("bert", ["a"] * 300)
    future.cancel()
    assert isinstance(engine.submit(ask()).result(30), Completion)
    assert engine.embed("bert", ["b"]).result(30).shape == (1, 64)


def test_a_listener_that_fails_costs_its_own_answer(engine: Engine) -> None:
    def fail(text: str, tokens: int) -> None:
        raise ZeroDivisionError

    good = engine.submit(ask("good", max_tokens=200))
    with pytest.raises(ZeroDivisionError):
        engine.submit(ask("bad"), on_text=fail).result(30)
    assert isinstance(good.result(30), Completion)


def test_who_submits_while_the_engine_closes_is_told(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(threads=1)
    engine.register("tiny", tiny)
    engine.describe("tiny")
    begins, slow = threading.Event(), module.encode_request

    def begin_slowly(*args: Any) -> None:
        begins.set()
        time.sleep(0.2)
        slow(*args)

    monkeypatch.setattr(module, "encode_request", begin_slowly)
    closing = threading.Thread(target=lambda: (begins.wait(), engine.close()))
    closing.start()
    with pytest.raises(BenchError, match="closed"):
        engine.submit(ask())
    closing.join()


def test_who_is_cancelled_while_its_model_waits_for_room_is_cancelled_and_not_tried_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = threading.Event()

    def full(digest: str, *, gives_up: Callable[[], bool]) -> Loaded:
        cancelled.set()
        assert gives_up()
        raise BenchError("nobody waits for the model any more", code="cancelled")

    monkeypatch.setattr(engine._shelf, "take", full)
    result = engine.submit(ask(), cancelled=cancelled).result(10)
    assert isinstance(result, Failure) and (result.code, result.retryable) == ("cancelled", False)


def test_three_models_in_use_are_each_in_memory_once(engine: Engine, tmp_path: Path) -> None:
    paths = {name: str(write_tiny_model(tmp_path / name, seed=ord(name))) for name in "abc"}
    for name, path in paths.items():
        engine.register(name, path)
    futures = [engine.submit(ask(f"Hi {number}", "abc"[number % 3], max_tokens=60)) for number in range(30)]
    assert sorted(name for name in engine._shelf.digests() if name in paths) == [*paths]
    assert all(isinstance(result, Completion) for result in done(futures))


def test_recipes_that_alternate_each_find_their_prefix(engine: Engine) -> None:
    prefixes = [f"Instruction number {number}: " + "do this and that. " * 15 for number in range(3)]
    results = [engine.submit(ask(f"{prefixes[n % 3]} row {n}", max_tokens=3)).result(30) for n in range(15)]
    assert all(isinstance(r, Completion) and r.usage.tokens_cached > 60 for r in results[3:])


def test_slots_that_llama_cpp_has_not_are_refused() -> None:
    for slots in (0, 257):
        with pytest.raises(BenchError, match="expected 1 to 256 slots"):
            Engine(slots=slots)


def test_options_must_differ(engine: Engine) -> None:
    for options in (("a", "a"), ("a", "")):
        failure = engine.submit(ask(options=options)).result(30)
        assert isinstance(failure, Failure) and failure.code == "choice"


def test_an_option_that_begins_another_can_still_lose(engine: Engine) -> None:
    part, whole = (
        engine.submit(ask(options=("1", "10"), are_whole=are_whole)).result(30) for are_whole in (False, True)
    )
    assert isinstance(part, Weights) and isinstance(whole, Weights)
    assert part.log_likelihoods[0] > part.log_likelihoods[1]  # whatever goes on is less likely
    ahead = [weights.log_likelihoods[0] - weights.log_likelihoods[1] for weights in (part, whole)]
    assert ahead[1] != pytest.approx(ahead[0], abs=0.1)  # its end counts, too


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_cancelled_everybody_gets_a_result_and_no_slot_is_lost(engine: Engine, seed: int) -> None:
    dice = random.Random(seed)
    shared = "You are given a ticket of some length. " * 4
    kinds: list[Callable[[int], dict[str, Any]]] = [
        lambda n: {"max_tokens": dice.randint(1, 60)},
        lambda n: {"output_schema": {"enum": ["a", "b", n]}},
        lambda n: {"options": ("yes", "no", "perhaps so")},
        lambda n: {"timeout_s": 0.05, "max_tokens": 300},
    ]
    events = [threading.Event() for _ in range(80)]
    futures = []
    for number, event in enumerate(events):
        text = (shared if dice.random() < 0.5 else "") + f"number {number} " * dice.randint(1, 20)
        futures.append(engine.submit(ask(text, **dice.choice(kinds)(number)), cancelled=event))
    for event in events:
        if dice.random() < 0.5:
            time.sleep(0.002)
            event.set()
    results = done(futures)
    assert {r.code for r in results if isinstance(r, Failure)} <= {"cancelled", "timeout", "truncated"}
    assert isinstance(engine.submit(ask()).result(30), Completion)
    deadline_s = time.monotonic() + 5
    while any(loaded.users for loaded in engine._shelf._loaded.values()) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not any(loaded.users for loaded in engine._shelf._loaded.values())
    for loaded in engine._shelf._loaded.values():
        assert loaded.lanes.is_idle
        assert all(np.all(~lane._slots._is_busy) for lane in loaded.lanes._lanes)
