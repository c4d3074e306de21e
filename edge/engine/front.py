"""The engine for an event loop: requests awaited, text as it comes, and nothing that blocks.

It knows loops and threads, and never looks at a request's messages. Encoding a prompt and compiling a grammar take
milliseconds, and loading a model seconds, so they run in threads. Text reaches the loop a few times a second, whatever
the engine's pace; while the loop is behind, what comes is joined.

Invariant: each request that was begun ends in the engine too, also when whoever awaits it is cancelled; and one that
waits is not begun any more once its `cancelled` is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial

import anyio
import anyio.to_thread
import msgspec

from edge.engine.engine import Engine
from edge.engine.job import CANCELLED, OnText, Request, Result, failure_of
from edge.engine.loaded import Loaded
from gx.core.errors import BenchError, GxError, ModelError

TEXT_EVERY_S = 0.1
"""How often text is brought to the loop: faster than anyone reads, and seldom enough to cost nothing."""
WAITING_PER_SLOT = 4
"""Requests that may be encoded and wait, beside those that run; further ones wait as they came."""
ENCODERS = 2
LOOK_EVERY_S = 0.05
"""How often those who wait are looked after: an event of threads can't wake a loop, so it has to be asked."""


class Front:
    """Awaits what an engine does. It belongs to the loop that it is first used on."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._room = anyio.Semaphore(engine.slots * (1 + WAITING_PER_SLOT))
        self._loaders: defaultdict[str, anyio.CapacityLimiter] = defaultdict(lambda: anyio.CapacityLimiter(1))
        self._encoders = anyio.CapacityLimiter(ENCODERS)
        self._waiting: dict[anyio.CancelScope, threading.Event] = {}
        self._looks: asyncio.TimerHandle | None = None

    async def generate(
        self, request: Request, *, on_text: OnText | None = None, cancelled: threading.Event | None = None
    ) -> Result:
        """Run a request. `on_text` is called on the loop, first as the engine begins it, most often without text yet;
        setting `cancelled` ends it as the failure "cancelled".

        A full queue makes it wait, and whoever calls it, too. Cancelling the caller ends the request as well.

        :raises BenchError: if the engine is closed.
        """
        cancelled, asked_s = cancelled or threading.Event(), time.monotonic()
        feed = None if on_text is None else _Feed(asyncio.get_running_loop(), on_text)
        with self.until(cancelled) as wait:
            await self._room.acquire()
        if wait.cancelled_caught:
            return CANCELLED
        held: Loaded | None = None
        try:
            held = self.engine.hold(request.model)
            if held is None:
                load = partial(self.engine.load, request.model, cancelled)
                with self.until(cancelled) as wait:  # for whoever loads it; who has begun to looks for itself
                    held = await anyio.to_thread.run_sync(load, limiter=self._loaders[request.model])
                if wait.cancelled_caught:
                    return CANCELLED
            submit = partial(self._submit, request, feed, cancelled, held, asked_s)
            with self.until(cancelled) as wait:  # for an encoder; one that has begun isn't interrupted
                future = await anyio.to_thread.run_sync(submit, limiter=self._encoders)
            if wait.cancelled_caught:
                self.engine.let_go(held)
                return CANCELLED
            held = None
            result = await asyncio.wrap_future(future)
        except ModelError as error:
            return failure_of(error)
        except BaseException as error:
            cancelled.set()
            if held is not None and isinstance(error, asyncio.CancelledError):  # submit was not begun
                self.engine.let_go(held)
            if isinstance(error, BenchError) and error.code == "cancelled":
                return CANCELLED
            raise
        finally:
            self._room.release()
        if feed is not None:
            feed.finish()
        return result

    def _submit(
        self, request: Request, feed: _Feed | None, cancelled: threading.Event, held: Loaded, asked_s: float
    ) -> Future[Result]:
        """Encode and queue a request, in a thread; all that it waited for counts, a model that was loaded too."""
        on_text, waited_s = None if feed is None else feed.push, time.monotonic() - asked_s
        return self.engine.submit(request, on_text=on_text, cancelled=cancelled, held=held, waited_s=waited_s)

    async def generate_all(
        self, request: Request, n: int, *, cancelled: threading.Event | None = None
    ) -> tuple[Result, ...]:
        """`n` answers to one request, drawn with the seeds `seed`, `seed` + 1 and so on, in that order.

        Each is what `generate` gives for its seed. The prompt is computed once and copied, unless it is shorter than
        `COPY_WORTH_TOKENS`; `n` may be more than the slots, and the rest wait. `cancelled`, once set, ends all of them,
        and so does cancelling the caller.

        :raises GxError: (code "sampling") if `n` is below 1, or above 1 where nothing is drawn, since all would be
            equal: at temperature 0, or where options are weighed. :raises BenchError: if the engine is closed.
        """
        _check_draws(request, n)
        cancelled = cancelled or threading.Event()
        results: dict[int, Result] = {}
        errors: list[BenchError] = []

        async def draw(seed: int) -> None:
            sampling = msgspec.structs.replace(request.sampling, seed=seed)
            try:
                results[seed] = await self.generate(
                    msgspec.structs.replace(request, sampling=sampling), cancelled=cancelled
                )
            except BenchError as error:
                errors.append(error)

        seeds = range(request.sampling.seed, request.sampling.seed + n)
        async with anyio.create_task_group() as group:
            for seed in seeds:
                group.start_soon(draw, seed)
        if errors:
            raise errors[0]
        return tuple(results[seed] for seed in seeds)

    @contextlib.contextmanager
    def until(self, cancelled: threading.Event, timeout_s: float | None = None) -> Iterator[anyio.CancelScope]:
        """What is awaited within ends soon after `cancelled` is set, or after so many seconds.

        Where that happened, the scope's `cancelled_caught` is true.
        """
        with anyio.move_on_after(timeout_s) as scope:
            if cancelled.is_set():
                scope.cancel()
            self._waiting[scope] = cancelled
            if self._looks is None:
                self._looks = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)
            try:
                yield scope
            finally:
                del self._waiting[scope]
                if not self._waiting and self._looks is not None:
                    self._looks.cancel()
                    self._looks = None

    def _look(self) -> None:
        for scope, cancelled in self._waiting.items():
            if cancelled.is_set():
                scope.cancel()
        self._looks = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)


def _check_draws(request: Request, n: int) -> None:
    if n < 1:
        raise GxError(f"expected at least 1 answer to be asked for, got {n}", code="sampling")
    if n > 1 and (request.options or request.sampling.temperature == 0):
        why = "weighed options are" if request.options else "at temperature 0 they are"
        raise GxError(
            f"{n} answers to one request need something to be drawn, and {why} all equal",
            code="sampling",
            hint="ask for one" if request.options else "raise the temperature, or ask for one",
        )


class _Feed:
    """Brings one answer's text from the engine's thread to the loop, joined."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_text: OnText) -> None:
        self._loop, self._on_text = loop, on_text
        self._lock = threading.Lock()
        self._held, self._tokens_out, self._due_s = "", 0, 0.0
        self._has_begun = self._is_told = False
        self._error: Exception | None = None

    def push(self, text: str, tokens_out: int) -> None:
        """Called by the engine's thread."""
        with self._lock:
            self._held += text
            self._tokens_out = tokens_out
        now_s = time.monotonic()
        if not self._has_begun or (text and now_s >= self._due_s):
            self._has_begun = True
            self._due_s = now_s + TEXT_EVERY_S if text else 0.0
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
                self._loop.call_soon_threadsafe(self.flush)

    def flush(self) -> None:
        """Called on the loop. Who listens gets nothing more once they failed."""
        with self._lock:
            text, self._held = self._held, ""
        if (text or not self._is_told) and self._error is None:
            self._is_told = True
            try:
                self._on_text(text, self._tokens_out)
            except Exception as error:  # noqa: BLE001  it is the request's, and a callback of the loop can't raise it
                self._error = error

    def finish(self) -> None:
        """Bring the rest. Raises what the listener raised, now or before."""
        self._is_told = True  # what has ended doesn't begin any more
        self.flush()
        if self._error is not None:
            raise self._error
