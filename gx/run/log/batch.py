"""What one caller gave to the log, and how it is answered: in its own asyncio loop, or in a plain thread.

It knows callers and nothing of files. The invariant: each caller gets one answer, its events or an error of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from gx.core.errors import LogError
from gx.core.event import Blob, Body, Event, encode_body


class Batch:
    """What one caller gave: encoded in its own thread, answered in its own loop (`None`: a plain thread)."""

    def __init__(self, bodies: Sequence[Body], blobs: Sequence[Blob], source: str) -> None:
        if "\n" in source:
            raise ValueError(f"source: expected one line, got {source!r}")
        self.bodies, self.blobs, self.source = bodies, blobs, source
        self.data = [encode_body(body).decode() for body in bodies]
        self.size = sum(map(len, self.data)) + sum(len(blob.content) for blob in blobs)
        self.events: list[Event] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.answer: asyncio.Future[list[Event]] | Future[list[Event]] = Future()


def settle(group: list[Batch], error: LogError | None) -> None:
    """Answer every caller; those of one loop in one call."""
    loops: dict[asyncio.AbstractEventLoop, list[Batch]] = {}
    for batch in group:
        if batch.loop is None:
            _answer([batch], error)
        else:
            loops.setdefault(batch.loop, []).append(batch)
    for loop, batches in loops.items():
        call_in(loop, _answer, batches, error)


def _answer(batches: list[Batch], error: LogError | None) -> None:
    for batch in batches:
        if batch.answer.done():
            continue
        if error is None:
            batch.answer.set_result(batch.events)
        else:
            batch.answer.set_exception(LogError(error.message, hint=error.hint, code=error.code))


def let_in(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(function, *args)
