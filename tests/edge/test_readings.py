"""A reading of the engine has what has ended, and asking for one disturbs nobody."""

from __future__ import annotations

from concurrent.futures import Future

import msgspec
import pytest

from edge.engine.engine import Completion, Engine, Request
from gx.core.errors import BenchError
from gx.core.message import Message, Sampling
from gx.core.protocol import Measured


def request(text: str = "Hello", max_tokens: int = 8) -> Request:
    messages = (Message(role="user", content=text),)
    return Request(model="tiny", messages=messages, sampling=Sampling(max_tokens=max_tokens), ignores_end=True)


def test_whoever_has_a_result_is_counted(engine: Engine) -> None:
    before = engine.measure().result(10).counts
    for n in range(1, 11):
        result = engine.submit(request()).result(20)
        assert isinstance(result, Completion)
        reading = engine.measure().result(10)
        assert (reading.counts.requests, reading.slots, reading.slots_busy) == (before.requests + n, 4, 0)
        assert reading.counts.prompt_tokens == before.prompt_tokens + n * result.usage.tokens_in


def test_what_runs_is_told_with_its_threads(engine: Engine) -> None:
    seen = []
    futures = [
        engine.submit(request(max_tokens=60), on_text=lambda _text, tokens: seen.append(engine.measure()))
        for _ in range(3)
    ]
    for future in futures:
        future.result(20)
    readings = [reading.result(10) for reading in seen]
    assert max(reading.slots_busy for reading in readings) == 3
    assert {reading.threads for reading in readings if reading.slots_busy} == {1}


def test_who_no_longer_waits_for_a_reading_disturbs_nobody(engine: Engine) -> None:
    assert not engine.measure().cancel()
    assert isinstance(engine.submit(request()).result(20), Completion)


def test_an_idle_engine_reads_the_same_again(engine: Engine) -> None:
    assert engine.measure().result(10) == engine.measure().result(10)


def test_a_closed_engine_gives_no_reading() -> None:
    engine = Engine(threads=1, slots=1)
    engine.close()
    with pytest.raises(BenchError, match="the engine is closed"):
        engine.measure()


def test_what_runs_is_told_slot_by_slot_with_the_length_of_its_sequence(engine: Engine) -> None:
    seen = list[tuple[int, Future[Measured]]]()
    engine.submit(
        msgspec.structs.replace(request("Hello there", max_tokens=40), conversation="t1 2"),
        on_text=lambda _text, tokens: seen.append((tokens, engine.measure())),
    ).result(20)
    readings = [(tokens, reading.result(10).sequences) for tokens, reading in seen[1:-1]]
    for tokens, (one,) in readings:
        assert (one.conversation, one.is_prefill, one.tokens_out) == ("t1 2", False, tokens)
        assert one.tokens in (one.prompt_tokens + tokens - 1, one.prompt_tokens + tokens)  # the last is decoded next
        assert one.tokens_per_s is None or one.tokens_per_s > 0
    assert engine.measure().result(10).sequences == ()
