"""Every turn ends in an outcome, and every answer is JSON."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import msgspec
import pytest

from edge.agent import Emit, outcome_of
from edge.engine.engine import Completion, Engine
from edge.engine.front import Front
from edge.execute import execute
from edge.frames import pack_outcome, unpack_outcome
from gx.core.message import Answer, Failure, Message, Outcome, Sampling, ToolSpec, Turn, Usage
from gx.core.protocol import Signal

pytestmark = pytest.mark.filterwarnings("ignore:llama_token_get_attr")


@pytest.fixture(scope="module")
def engine(tiny: str) -> Iterator[Engine]:
    engine = Engine(threads=1, slots=4)
    engine.register("tiny", tiny)
    yield engine
    engine.close()


def run(turn: Turn, engine: Engine, emit: Emit = lambda _: None, cancelled: threading.Event | None = None) -> Outcome:
    """`execute` on an event loop of its own."""

    async def main() -> Outcome:
        return await execute(turn, emit, front=Front(engine), cancelled=cancelled)

    return anyio.run(main)


def turn(**fields: Any) -> Turn:
    messages = (Message(role="user", content="Hello"),)
    defaults = {"run": "r", "task": "t", "attempt": 2, "model": "tiny", "messages": messages}
    return Turn(**{**defaults, "sampling": Sampling(max_tokens=60), **fields})


def test_text_is_a_json_string_without_the_space_around_it() -> None:
    usage = Usage(tokens_in=4, tokens_out=2)
    outcome = outcome_of(Completion(text=' so "quoted"\n', finish="stop", usage=usage), has_schema=False)
    assert outcome == Answer(value=msgspec.Raw(b'"so \\"quoted\\""'), usage=usage)


def test_a_document_stays_as_it_was_written() -> None:
    outcome = outcome_of(Completion(text='{"b": 1.50, "a": []}', finish="stop", usage=Usage()), has_schema=True)
    assert isinstance(outcome, Answer) and bytes(outcome.value) == b'{"b": 1.50, "a": []}'


def test_a_document_that_does_not_parse_is_invalid() -> None:
    outcome = outcome_of(Completion(text='{"b": ', finish="stop", usage=Usage(tokens_out=3)), has_schema=True)
    assert isinstance(outcome, Failure)
    assert (outcome.code, outcome.retryable, outcome.usage.tokens_out, outcome.detail) == ("invalid", True, 3, '{"b":')


def test_a_turn_gives_an_answer_and_previews_of_its_attempt(engine: Engine) -> None:
    told: list[Signal] = []
    outcome = run(turn(), engine, told.append)
    assert isinstance(outcome, Answer)
    assert {(s.task, s.attempt) for s in told} == {("t", 2)}
    assert "".join(s.text for s in told).strip() == msgspec.json.decode(outcome.value, type=str)


def test_an_answer_tells_what_its_sampling_asks_for(engine: Engine) -> None:
    fields = {"title": {"enum": ["an apple", "an orange"]}, "ok": {"type": "boolean"}}
    schema = {"type": "object", "required": list(fields), "properties": fields, "additionalProperties": False}
    outcome = run(turn(sampling=Sampling(max_tokens=60, logprobs=2), output_schema=schema), engine)
    assert isinstance(outcome, Answer) and len(outcome.logprobs) == outcome.usage.tokens_out
    assert b"".join(one.piece for one in outcome.logprobs) == bytes(outcome.value)
    asked = [one for one in outcome.logprobs if one.logprob is not None]
    assert 0 < len(asked) < len(outcome.logprobs) and {len(one.top) for one in asked} == {2}
    assert unpack_outcome(pack_outcome(outcome)) == outcome
    plain = run(turn(output_schema=schema), engine)
    assert isinstance(plain, Answer) and (plain.value, plain.logprobs) == (outcome.value, ())


def test_tools_are_refused_by_name(engine: Engine) -> None:
    tools = (
        ToolSpec(name="search", description="", parameters={}),
        ToolSpec(name="add", description="", parameters={}),
    )
    outcome = run(turn(tools=tools), engine)
    assert isinstance(outcome, Failure)
    assert (outcome.code, outcome.retryable) == ("unsupported", False) and '"search", "add"' in outcome.message


def test_a_cancelled_turn_ends_before_it_begins(engine: Engine) -> None:
    cancelled = threading.Event()
    cancelled.set()
    outcome = run(turn(), engine, cancelled=cancelled)
    assert isinstance(outcome, Failure) and outcome.code == "cancelled"


def test_an_exception_becomes_an_internal_failure_with_its_traceback(engine: Engine) -> None:
    def emit(_: Signal) -> None:
        raise ZeroDivisionError("a bug in whoever listens")

    outcome = run(turn(), engine, emit)
    assert isinstance(outcome, Failure)
    assert (outcome.code, outcome.retryable) == ("internal", True)
    assert outcome.message == "ZeroDivisionError: a bug in whoever listens" and "Traceback" in outcome.detail
    assert isinstance(run(turn(), engine), Answer)


def test_a_closed_engine_is_a_failure(tiny: str) -> None:
    engine = Engine(threads=1)
    engine.close()
    outcome = run(turn(), engine)
    assert isinstance(outcome, Failure) and (outcome.code, outcome.retryable) == ("bench", True)
