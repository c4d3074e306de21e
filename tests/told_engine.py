"""An engine for tests of whoever awaits one: it computes nothing, and answers when it is told to."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import anyio
import anyio.to_thread

from edge.engine.engine import Request, Result, Weights
from gx.core.errors import BenchError
from gx.core.message import Usage

SPENT = Usage(tokens_in=10, tokens_out=1, prefill_ms=60, decode_ms=40)


def weights(*logs: float) -> Weights:
    return Weights(log_likelihoods=logs, usage=SPENT)


class ToldEngine:
    """An engine that answers when it is told to: `answers` by the last words of a chat, or nothing at all."""

    slots = 8

    def __init__(self, **answers: Result | BenchError) -> None:
        self.answers = answers
        self.asked: list[Request] = []
        self.pending: list[tuple[str, Future[Result], threading.Event]] = []
        self.is_asked = threading.Event()

    def hold(self, digest: str) -> str:
        """Its models are always there."""
        return digest

    def let_go(self, held: str) -> None:
        """They stay."""

    def submit(
        self, request: Request, *, on_text: Any = None, cancelled: threading.Event, held: Any = None, **more: Any
    ) -> Future[Result]:
        future: Future[Result] = Future()
        text = request.messages[-1].content
        answer = self.answers.get(text)
        if answer is None:
            self.pending.append((text, future, cancelled))
        elif not isinstance(answer, BenchError):
            future.set_result(answer)
        self.asked.append(request)
        self.is_asked.set()
        if isinstance(answer, BenchError):
            raise answer
        return future

    def settle(self) -> None:
        """Answer all that is pending."""
        for _, future, _ in self.pending:
            future.set_result(weights(-1.0, -2.0))
        self.pending.clear()

    def count(self, text: str) -> int:
        return sum(request.messages[-1].content == text for request in self.asked)


async def asked(engine: ToldEngine, n: int) -> None:
    """Until so many requests were made."""
    with anyio.fail_after(60):
        while len(engine.asked) < n:
            engine.is_asked.clear()
            await anyio.to_thread.run_sync(engine.is_asked.wait, 0.05)
