"""Frames carry every message unharmed, however the pipe cuts them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import frames
from gx.core.errors import BenchError
from gx.core.message import Answer, Failure, Message, Turn, Usage
from gx.core.protocol import Cancel, Execute, Finished, FromBench, Signal

TURN = Turn(run="r", task="t", attempt=1, model="m", messages=(Message(role="user", content="héllo"),))
DOCUMENT = b'{"b": [1, 2.50, "\xc3\xa9"], "a": null}'


def split(stream: bytes, size: int) -> list[FromBench]:
    splitter = frames.Splitter()
    chunks = (stream[i : i + size] for i in range(0, len(stream), size))
    return [frames.from_bench(body) for chunk in chunks for body in splitter.feed(chunk)]


@settings(deadline=None)
@given(st.integers(1, 400))
def test_messages_survive_any_cut_of_the_stream(size: int) -> None:
    sent: list[FromBench] = [
        Signal(task="t", attempt=1, text="a"),
        Finished(task="t", attempt=1, outcome=Answer(value=msgspec.Raw(DOCUMENT), usage=Usage(tokens_in=3))),
        Finished(task="t", attempt=2, outcome=Failure(code="timeout", message="late")),
    ]
    assert split(b"".join(frames.frame(m) for m in sent), size) == sent


def test_an_answer_keeps_its_bytes() -> None:
    outcome = Answer(value=msgspec.Raw(DOCUMENT))
    (finished,) = split(frames.frame(Finished(task="t", attempt=1, outcome=outcome)), 1000)
    assert isinstance(finished, Finished) and isinstance(finished.outcome, Answer)
    assert bytes(finished.outcome.value) == DOCUMENT
    unpacked = frames.unpack_outcome(frames.pack_outcome(outcome))
    assert isinstance(unpacked, Answer) and bytes(unpacked.value) == DOCUMENT


def test_a_turn_arrives_as_it_was_sent() -> None:
    for sent in (Execute(turn=TURN), Cancel(task="t", attempt=3)):
        (body,) = frames.Splitter().feed(frames.frame(sent))
        assert frames.to_bench(body) == sent


def test_a_stray_line_in_the_stream_is_an_error_and_not_a_frame() -> None:
    with pytest.raises(BenchError, match="aren't frames"):
        list(frames.Splitter().feed(b"Loading model, please wait\n"))
    with pytest.raises(BenchError, match="can't read"):
        frames.from_bench(b"\xc1")


def nested(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for _ in range(depth):
        made = {"a": made}
    return made


@pytest.mark.parametrize("schema", [{"maximum": 10**20}, nested(5_000)], ids=["a long integer", "a deep schema"])
def test_what_msgpack_cannot_write_is_an_error_of_ours(schema: dict[str, Any]) -> None:
    with pytest.raises(BenchError, match="can't be sent"):
        frames.frame(Execute(turn=msgspec.structs.replace(TURN, output_schema=schema)))
