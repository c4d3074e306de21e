"""Who waits for a baseline may leave. It goes on for the others, and nothing is weighed twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import anyio
import anyio.to_thread
import pytest

from edge.baseline import FAILED_S, LINGER_S, baseline_of
from edge.engine.engine import Engine, Request, Result
from edge.engine.front import Front
from edge.execute import execute
from edge.fields import fields_of
from gx.core.errors import BenchError
from gx.core.message import Answer, Choice, Failure, Message, Outcome, Turn
from tests.told_engine import SPENT, ToldEngine, asked, weights

T = TypeVar("T")
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}, "b": {"enum": ["v", "w"]}}}
FIELDS = fields_of(SCHEMA)
TOO_LONG = Failure(code="context", message="too long", retryable=False)


def chats(*texts: str) -> tuple[tuple[Message, ...], ...]:
    return tuple((Message(role="user", content=text),) for text in texts)


def turn(*texts: str, choice: Choice = "calibrated", **fields: Any) -> Turn:
    messages = (Message(role="user", content="hi"),)
    given = {"run": "r", "task": "t", "attempt": 0, "model": "m", "messages": messages, "output_schema": SCHEMA}
    return Turn(**given, choice=choice, baselines=chats(*texts), **fields)  # type: ignore[arg-type]


def on_loop(act: Callable[[Front], Awaitable[T]], engine: ToldEngine) -> T:
    async def main() -> T:
        return await act(Front(cast(Engine, engine)))

    return anyio.run(main)


@contextmanager
def later_by(seconds: float) -> Iterator[None]:
    """The loop's clock, as if so much time had passed: what was due by then is done in the next round."""
    loop = asyncio.get_running_loop()
    real = loop.time
    loop.time = lambda: real() + seconds  # type: ignore[method-assign]
    try:
        yield
    finally:
        loop.time = real  # type: ignore[method-assign]


def failed(outcome: object) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


def test_a_turn_that_was_cancelled_waits_for_no_baseline() -> None:
    engine, cancelled = ToldEngine(), threading.Event()
    cancelled.set()

    async def act(front: Front) -> Outcome:
        with anyio.fail_after(60):
            return await execute(turn("one", "two"), lambda _: None, front=front, cancelled=cancelled)

    assert failed(on_loop(act, engine)).code == "cancelled"


def test_a_turn_that_is_cancelled_leaves_and_the_others_get_their_baseline() -> None:
    engine, cancelled, found = ToldEngine(hi=weights(-1.0, -2.0)), threading.Event(), dict[str, Outcome]()

    async def act(front: Front) -> None:
        async def run(name: str, event: threading.Event) -> None:
            found[name] = await execute(turn("one", "two"), lambda _: None, front=front, cancelled=event)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(run, "stays", threading.Event())
                async with anyio.create_task_group() as leaving:
                    leaving.start_soon(run, "leaves", cancelled)
                    await asked(engine, 2)
                    cancelled.set()
                assert list(found) == ["leaves"] and not any(event.is_set() for _, _, event in engine.pending)
                engine.settle()
                await asked(engine, 4)
                engine.settle()

    on_loop(act, engine)
    assert failed(found["leaves"]).code == "cancelled" and isinstance(found["stays"], Answer)
    assert engine.count("one") == engine.count("two") == 2  # once for each field


def test_a_turn_whose_time_is_up_says_what_takes_longer_and_the_next_one_finds_it_further_along() -> None:
    engine = ToldEngine(hi=weights(-1.0, -2.0), one=weights(-1.0, -2.0))

    async def act(front: Front) -> tuple[Outcome, Outcome]:
        first = await execute(turn("one", "two", timeout_s=0.5), lambda _: None, front=front)
        await asked(engine, 2)
        assert [text for text, _, _ in engine.pending] == ["two"]
        with later_by(LINGER_S + 1):
            await anyio.to_thread.run_sync(engine.pending[0][2].wait, 10)
        assert engine.pending[0][2].is_set()  # nobody came back
        engine.answers["two"] = weights(-1.0, -2.0)
        return first, await execute(turn("one", "two", timeout_s=10), lambda _: None, front=front)

    first, second = on_loop(act, engine)
    assert (failed(first).code, failed(first).retryable) == ("timeout", True)
    assert "longer than 0.5 s: the baseline of 2 chats" in failed(first).message
    assert "(1 of 4 choices are weighed, and kept); raise `timeout`" in failed(first).message
    assert isinstance(second, Answer)
    assert (engine.count("one"), engine.count("two")) == (2, 3)  # the first chat's first field was not weighed again


def test_a_baseline_goes_on_for_those_who_come_back_soon() -> None:
    engine = ToldEngine()

    async def act(front: Front) -> object:
        found = await baseline_of("m", chats("one", "two"), FIELDS, front, timeout_s=0.05)
        assert failed(found).code == "timeout"
        with later_by(LINGER_S - 1):
            again = await baseline_of("m", chats("one", "two"), FIELDS, front, timeout_s=0.05)
        assert failed(again).code == "timeout" and not any(event.is_set() for _, _, event in engine.pending)
        await asked(engine, 2)
        engine.settle()
        await asked(engine, 4)
        engine.settle()
        return await baseline_of("m", chats("one", "two"), FIELDS, front)

    assert not isinstance(on_loop(act, engine), Failure)
    assert len(engine.asked) == 4


def test_a_loop_that_ends_takes_the_baseline_with_it() -> None:
    engine = ToldEngine()

    async def act(front: Front) -> object:
        found = await baseline_of("m", chats("one"), FIELDS, front, timeout_s=0.05)
        await asked(engine, 1)
        return found

    assert failed(on_loop(act, engine)).code == "timeout"
    assert engine.pending[0][2].is_set()


def test_a_failure_that_would_come_again_is_kept_for_a_while() -> None:
    engine = ToldEngine(one=TOO_LONG, two=TOO_LONG)

    async def act(front: Front) -> None:
        for _ in range(20):
            assert await baseline_of("m", chats("one", "two"), FIELDS, front) == TOO_LONG
        assert len(engine.asked) == 2
        with later_by(FAILED_S + 1):
            assert await baseline_of("m", chats("one", "two"), FIELDS, front) == TOO_LONG
        assert len(engine.asked) == 4

    on_loop(act, engine)


@pytest.mark.parametrize(
    "passing",
    [
        Failure(code="bench", message="no memory"),
        Failure(code="cancelled", message="the turn was cancelled", retryable=False),
        BenchError("the engine is closed"),
    ],
)
def test_a_failure_of_the_engine_is_nobodys_baseline(passing: Failure | BenchError) -> None:
    engine = ToldEngine(one=passing, two=weights(-1.0, -2.0))

    async def act(front: Front) -> object:
        assert failed(await baseline_of("m", chats("one", "two"), FIELDS, front)).code == passing.code
        engine.answers["one"] = weights(-1.0, -2.0)
        return await baseline_of("m", chats("one", "two"), FIELDS, front)

    assert not isinstance(on_loop(act, engine), Failure)
    assert engine.count("two") == 2


def test_the_wait_is_charged_to_the_turn() -> None:
    engine = ToldEngine(hi=weights(-1.0, -2.0))

    async def compute() -> None:
        for n in (1, 2):
            await asked(engine, n)
            await anyio.to_thread.run_sync(threading.Event().wait, 0.05)
            engine.settle()

    async def act(front: Front) -> list[Outcome]:
        found = []
        async with anyio.create_task_group() as group:
            group.start_soon(compute)
            found.append(await execute(turn("one", timeout_s=30.0), lambda _: None, front=front))
        return found

    assert isinstance(on_loop(act, engine)[0], Answer)
    first, second = (request.timeout_s for request in engine.asked if request.messages[-1].content == "hi")
    assert first is not None and second is not None
    assert first < 29.91 and second == pytest.approx(first - 0.1)


@pytest.mark.parametrize("choice", ["scored", "calibrated"])
def test_a_time_out_in_a_later_field_names_the_turns_limit_and_counts_all_fields(choice: Choice) -> None:
    left = Failure(code="timeout", message="the turn ran longer than 1.9 s: nothing was done", usage=SPENT)

    class OneField(ToldEngine):
        def submit(
            self, request: Request, *, on_text: Any = None, cancelled: threading.Event, held: Any = None, **more: Any
        ) -> Future[Result]:
            self.answers["hi"] = weights(-1.0, -2.0) if request.goes_on else left
            return super().submit(request, on_text=on_text, cancelled=cancelled, held=held)

    engine = OneField(one=weights(-1.0, -2.0))

    async def act(front: Front) -> Outcome:
        return await execute(turn("one", choice=choice, timeout_s=2.0), lambda _: None, front=front)

    outcome = failed(on_loop(act, engine))
    assert (outcome.code, outcome.retryable) == ("timeout", True)
    assert outcome.message.startswith("the turn ran longer than 2 s: 1 of 2 fields were chosen")
    assert ("waited for its baseline" in outcome.message) == (choice == "calibrated")
    assert (outcome.usage.tokens_in, outcome.usage.tokens_out, outcome.usage.prefill_ms) == (20, 2, 120)
