"""Several answers to one request: each is that of its own seed, and the prompt is computed once."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar, cast

import anyio
import anyio.lowlevel
import msgspec
import pytest

from edge.engine.engine import Completion, Engine, Request, Result
from edge.engine.front import ENCODERS, WAITING_PER_SLOT, Front
from gx.core.errors import BenchError, GxError
from gx.core.message import Failure, Message, Sampling

T = TypeVar("T")
LONG = "Write one sentence about each of these: " + ", ".join(f"thing number {n}" for n in range(20))


def request(text: str = LONG, **settings: Any) -> Request:
    sampling = Sampling(**{"temperature": 1.0, "top_k": 40, "seed": 3, "max_tokens": 12, **settings})
    return Request(model="tiny", messages=(Message(role="user", content=text),), sampling=sampling)


def endless(text: str) -> Request:
    return msgspec.structs.replace(request(text, max_tokens=200), ignores_end=True)


def on_loop(act: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await act()

    return anyio.run(main)


def test_many_answers_compute_one_prompt(engine: Engine) -> None:
    n, before = 2 * engine.slots + 1, engine.statistics()
    results = on_loop(lambda: Front(engine).generate_all(request("Unheard of. " + LONG), n))
    computed = engine.statistics().prefill_tokens - before.prefill_tokens
    answers = [result for result in results if isinstance(result, Completion)]
    assert len(answers) == n
    n_prompt = answers[0].usage.tokens_in
    assert n_prompt > 100 and n_prompt <= computed <= n_prompt + n
    assert sorted(one.usage.tokens_cached for one in answers)[1:] == [n_prompt - 1] * (n - 1)


def test_each_answer_is_that_of_its_own_seed(engine: Engine) -> None:
    front = Front(engine)
    results = on_loop(lambda: front.generate_all(request(), 3))
    apart = [on_loop(lambda seed=seed: Front(engine).generate(request(seed=seed))) for seed in (3, 4, 5)]  # type: ignore[misc]
    texts = [getattr(result, "text", None) for result in results]
    assert texts == [getattr(result, "text", "") for result in apart]
    assert len(set(texts)) == 3


def test_cancelling_ends_all_of_them(engine: Engine) -> None:
    cancelled = threading.Event()

    def on_text(_: str, n: int) -> None:
        if n == 20:
            cancelled.set()

    pace = engine.submit(endless("Count."), on_text=on_text)
    results = on_loop(lambda: Front(engine).generate_all(endless(LONG), 9, cancelled=cancelled))
    assert isinstance(pace.result(60), Completion)
    assert [result.code for result in results if isinstance(result, Failure)] == ["cancelled"] * 9


def test_a_caller_that_goes_away_ends_all_of_them(engine: Engine) -> None:
    cancelled = threading.Event()

    async def main() -> None:
        with anyio.fail_after(60), anyio.move_on_after(0.05):
            await Front(engine).generate_all(request(max_tokens=400), 9, cancelled=cancelled)

    on_loop(main)
    assert cancelled.is_set()
    assert isinstance(engine.submit(request(max_tokens=2)).result(60), Completion)


@pytest.mark.parametrize(
    ("settings", "n", "told"), [({}, 0, "at least 1"), ({"temperature": 0.0}, 2, "at temperature 0")]
)
def test_answers_that_would_all_be_equal_are_refused(
    engine: Engine, settings: dict[str, Any], n: int, told: str
) -> None:
    with pytest.raises(GxError, match=told) as caught:
        on_loop(lambda: Front(engine).generate_all(request(**settings), n))
    assert caught.value.code == "sampling"


def test_one_greedy_answer_may_be_asked_for(engine: Engine) -> None:
    (result,) = on_loop(lambda: Front(engine).generate_all(request(temperature=0.0), 1))
    assert isinstance(result, Completion)


def test_a_closed_engine_is_one_error(tiny: str) -> None:
    closed = Engine(threads=1, slots=2)
    closed.register("tiny", tiny)
    closed.close()
    with pytest.raises(BenchError, match="closed"):
        on_loop(lambda: Front(closed).generate_all(request(), 4))


class Busy:
    """An engine that takes requests and never ends them."""

    slots = 1

    def __init__(self) -> None:
        self.taken = 0

    def hold(self, digest: str) -> str:
        """Its models are always there."""
        return digest

    def let_go(self, held: str) -> None:
        """They stay."""

    def submit(
        self, request: Request, *, on_text: Any = None, cancelled: threading.Event, held: Any = None, **more: Any
    ) -> Future[Result]:
        self.taken += 1
        return Future()


@pytest.mark.parametrize("is_cancelled_before", [True, False])
def test_who_waits_for_room_and_is_cancelled_ends_though_there_is_none(is_cancelled_before: bool) -> None:
    busy, cancelled, room = Busy(), threading.Event(), 1 + WAITING_PER_SLOT
    front = Front(cast(Engine, busy))
    found: list[Result] = []

    async def ask() -> None:
        found.append(await front.generate(request(), cancelled=cancelled))

    async def main() -> None:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for _ in range(room + 1):
                    group.start_soon(front.generate, request())
                while busy.taken < room:
                    await anyio.lowlevel.checkpoint()
                if is_cancelled_before:
                    cancelled.set()
                async with anyio.create_task_group() as waiting:
                    waiting.start_soon(ask)
                    waiting.start_soon(ask)
                    await anyio.wait_all_tasks_blocked()
                    cancelled.set()
                group.cancel_scope.cancel()

    anyio.run(main)
    assert [result.code for result in found if isinstance(result, Failure)] == ["cancelled"] * 2
    assert busy.taken == room


class Reader(Busy):
    """An engine that takes its time to encode."""

    slots = 8

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()

    def submit(
        self, request: Request, *, on_text: Any = None, cancelled: threading.Event, held: Any = None, **more: Any
    ) -> Future[Result]:
        self.taken += 1
        self.may_go_on.wait(60)
        return Future()


def test_what_a_request_waited_before_it_was_encoded_counts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    load = engine.load

    def slowly(*args: Any) -> Any:
        time.sleep(0.3)
        return load(*args)

    monkeypatch.setattr(engine, "hold", lambda digest: None)  # as where it isn't in memory
    monkeypatch.setattr(engine, "load", slowly)
    result = on_loop(lambda: Front(engine).generate(request("Hi")))
    assert isinstance(result, Completion) and result.usage.queue_ms >= 300


def test_who_listens_hears_on_the_loop_that_it_begins_and_nothing_where_it_never_does(engine: Engine) -> None:
    told: list[tuple[str, int]] = []
    result = on_loop(lambda: Front(engine).generate(request("Hi"), on_text=lambda text, n: told.append((text, n))))
    assert isinstance(result, Completion) and told
    assert "".join(text for text, _ in told) == result.text
    told.clear()
    cancelled = threading.Event()
    cancelled.set()
    on_loop(lambda: Front(engine).generate(request("Hi"), on_text=lambda *one: told.append(one), cancelled=cancelled))
    assert not told


def test_who_waits_for_an_encoder_and_is_cancelled_ends_though_there_is_none() -> None:
    reader, cancelled = Reader(), threading.Event()
    front = Front(cast(Engine, reader))

    async def main() -> Result:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for _ in range(ENCODERS):
                    group.start_soon(front.generate, request())
                while reader.taken < ENCODERS:
                    await anyio.lowlevel.checkpoint()
                threading.Timer(0.02, cancelled.set).start()
                result = await front.generate(request(), cancelled=cancelled)
                reader.may_go_on.set()
                group.cancel_scope.cancel()
        return result

    result = on_loop(main)
    assert isinstance(result, Failure) and result.code == "cancelled" and reader.taken == ENCODERS


def test_who_waits_for_a_load_that_another_began_ends_when_it_is_cancelled(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, begun, may_end, cancelled = engine.load, threading.Event(), threading.Event(), threading.Event()

    def slowly(*args: Any) -> Any:
        begun.set()
        may_end.wait(60)
        return load(*args)

    monkeypatch.setattr(engine, "hold", lambda digest: None)
    monkeypatch.setattr(engine, "load", slowly)
    front = Front(engine)

    async def main() -> list[Result]:
        results: list[Result] = []

        async def ask(cancelled: threading.Event | None = None) -> None:
            results.append(await front.generate(request(), cancelled=cancelled))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                while not begun.is_set():
                    await anyio.lowlevel.checkpoint()
                threading.Timer(0.02, cancelled.set).start()
                await ask(cancelled)
                may_end.set()
        return results

    second, first = on_loop(main)
    assert isinstance(second, Failure) and second.code == "cancelled" and isinstance(first, Completion)


def test_room_that_was_waited_for_in_vain_is_left_to_others(engine: Engine) -> None:
    """Those who leave, before and while they wait, hold no room: as many as there is find it afterwards."""
    front = Front(engine)
    room = engine.slots * (1 + WAITING_PER_SLOT)

    async def main() -> tuple[Result, ...]:
        cancelled = threading.Event()
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for _ in range(3 * engine.slots * (1 + WAITING_PER_SLOT)):
                    group.start_soon(lambda: front.generate(request(max_tokens=2), cancelled=cancelled))
                await anyio.wait_all_tasks_blocked()
                cancelled.set()
            return await front.generate_all(request(max_tokens=1), room + 1)

    results = anyio.run(main)
    assert len(results) == room + 1 and all(isinstance(result, Completion) for result in results)
