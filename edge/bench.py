"""The bench's process, `python -m edge.bench`: frames of `ToBench` on stdin, frames of `FromBench` on stdout.

It knows pipes: one event loop reads, writes, and has a task for each turn under way; the engine has a thread of its
own. It doesn't know tasks beyond their name and attempt, and it keeps nothing. While turns run, it tells now and then
what the engine has done; the last reading comes before the last result, and has all.

Invariant: stdout carries frames and nothing else. Whatever prints (a library, a GGML assertion) prints on stderr,
because file descriptor 1 is made to point there before anything is loaded.

The process lives exactly as long as its stdin: when that closes it exits at once, whatever it is doing.

Options: `--context N` tokens of a turn where a model doesn't say, `--threads N`, `--slots N` turns at a time.

For rehearsals only: `GX_BENCH_CRASH_ON=<text>` aborts the process, as a GGML assertion would, when a turn begins that
has a user message with that text in it.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from edge import frames
from gx.core.errors import BenchError, GxError
from gx.core.message import Failure, Turn
from gx.core.protocol import (
    Cancel,
    Count,
    Counted,
    Embed,
    Embedded,
    Execute,
    Finished,
    FromBench,
    Leave,
    Load,
    Loaded,
    Measured,
    Rank,
    Ranked,
    Ready,
    Refused,
    Signal,
    ToBench,
)

CRASH_VARIABLE = "GX_BENCH_CRASH_ON"
# Frames that may wait for a slow reader; signals and readings only take a quarter, so that no result waits for them.
_OUTGOING_FRAMES, _OUTGOING_SIGNALS = 256, 64
_READ_BYTES = 1 << 16
# A load may wait for another model to make way; so many do at a time, and nothing else waits for them.
_LOADS = 8
# The engine takes them in turn, a batch of each, so that one with few texts never waits for those with many.
_EMBEDDINGS = 32
_MEASURE_EVERY_S = 1.0
# The engine's thread is idle when it is asked for the last reading. If it isn't after all, the reading can wait.
_LAST_READING_S = 0.1
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class Bench:
    """Serves one desk. `incoming` and `outgoing` are pipes of its own."""

    def __init__(
        self, incoming: int, outgoing: int, *, context_tokens: int | None, threads: int | None, slots: int | None
    ) -> None:
        from edge.engine.engine import DEFAULT_SLOTS, Engine  # after stdout is safe, and not before: it loads llama.cpp
        from edge.engine.front import Front
        from edge.tunings import find as tuning_of

        self._incoming, self._outgoing = incoming, outgoing
        self._sha256s: dict[str, str] = {}  # of a model's file, where its digest is another
        self._engine = Engine(
            threads=threads,
            context_tokens=context_tokens,
            slots=slots or DEFAULT_SLOTS,
            tuning_of=lambda digest, path: tuning_of(self._sha256s.get(digest, digest), path),
        )
        self._front = Front(self._engine)
        self._to_write, self._written = anyio.create_memory_object_stream[bytes](_OUTGOING_FRAMES)
        self._cancelled: dict[tuple[str, int], threading.Event] = {}
        self._left: dict[int, threading.Event] = {}  # of each request that may be left: nobody waits for it
        self._asides, self._loads = anyio.CapacityLimiter(_LOADS), anyio.CapacityLimiter(_LOADS)
        self._embeddings = anyio.CapacityLimiter(_EMBEDDINGS)
        self._told = Measured()
        self._is_told = True  # all that was done until now

    async def serve(self) -> None:
        """Announce the bench, then do as the desk says until its pipe closes. :raises BenchError: on a bad frame."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write)
            tasks.start_soon(self._watch)
            await self._send(Ready(pid=os.getpid(), slots=self._engine.slots, engine=self._engine.build))
            splitter = frames.Splitter()
            while chunk := await self._read():
                for body in splitter.feed(chunk):
                    self._obey(frames.to_bench(body), tasks)
            os._exit(0)  # whatever is under way: nobody is there to hear of it

    def _obey(self, message: ToBench, tasks: TaskGroup) -> None:
        """Begin what a message asks for. Nothing here waits: what comes next must be seen."""
        match message:
            case Load():
                # Known at once, so that a turn right behind this message finds it; loaded beside the reader.
                if message.sha256 is not None:
                    self._sha256s[message.digest] = message.sha256
                self._engine.register(message.digest, message.path, message.context_tokens, message.adapters)
                tasks.start_soon(self._answer, message.request, lambda: self._load(message), self._loads)
            case Count():
                self._left[message.request] = threading.Event()
                tasks.start_soon(self._answer, message.request, lambda: self._count(message), self._asides)
            case Embed():
                self._left[message.request] = threading.Event()
                tasks.start_soon(self._answer, message.request, lambda: self._embed(message), self._embeddings)
            case Rank():
                self._left[message.request] = threading.Event()
                tasks.start_soon(self._answer, message.request, lambda: self._rank(message), self._embeddings)
            case Leave():
                if message.request in self._left:
                    self._left[message.request].set()
            case Execute(turn=turn):
                self._cancelled[turn.task, turn.attempt] = threading.Event()
                self._is_told = False
                tasks.start_soon(self._run, turn)
            case Cancel():
                event = self._cancelled.get((message.task, message.attempt))
                if event is not None:
                    event.set()

    def _load(self, message: Load) -> FromBench:
        return Loaded(request=message.request, card=self._engine.describe(message.digest))

    def _count(self, message: Count) -> FromBench:
        left = self._left[message.request]
        return Counted(request=message.request, tokens=self._engine.count(message.model, message.chats, cancelled=left))

    def _embed(self, message: Embed) -> FromBench:
        left = self._left[message.request]
        vectors = self._engine.embed(message.model, message.texts, cancelled=left).result()
        made = vectors.astype("<f4", copy=False)
        return Embedded(request=message.request, dimensions=made.shape[1], vectors=made.tobytes())

    def _rank(self, message: Rank) -> FromBench:
        left = self._left[message.request]
        scores = self._engine.rank(message.model, message.question, message.passages, cancelled=left).result()
        return Ranked(request=message.request, scores=tuple(scores[:, 0].tolist()))

    async def _answer(self, request: int, work: Callable[[], FromBench], limiter: anyio.CapacityLimiter) -> None:
        """Send what `work`, in a thread, returns, or why it failed."""
        from edge.engine.engine import failure_of

        try:
            answer = await anyio.to_thread.run_sync(work, limiter=limiter)
        except GxError as error:
            answer = Refused(request=request, failure=failure_of(error))
        except Exception as error:  # noqa: BLE001 - exceptions don't cross a process
            message = f"{type(error).__name__}: {error}"
            answer = Refused(request=request, failure=Failure(code="internal", message=message))
        self._left.pop(request, None)
        await self._send(answer)

    async def _run(self, turn: Turn) -> None:
        from edge.execute import execute

        _rehearse_crash(turn)
        cancelled = self._cancelled[turn.task, turn.attempt]
        outcome = await execute(turn, self._offer, front=self._front, cancelled=cancelled)
        self._cancelled.pop((turn.task, turn.attempt), None)
        if not self._cancelled:
            with anyio.move_on_after(_LAST_READING_S):
                await self._measure()
        await self._send(Finished(task=turn.task, attempt=turn.attempt, outcome=outcome))

    async def _watch(self) -> None:
        """Tell what the engine does, as long as it does something."""
        while True:
            await anyio.sleep(_MEASURE_EVERY_S)
            if not self._is_told:
                await self._measure()

    async def _measure(self) -> None:
        """Tell what was done so far, if it is news or somebody waits, and there is room."""
        reading = await asyncio.wrap_future(self._engine.measure())
        if reading != self._told or self._cancelled:
            if not self._has_room:
                return
            self._to_write.send_nowait(frames.frame(reading))
            self._told = reading
        self._is_told = not self._cancelled

    async def _send(self, message: FromBench) -> None:
        """Queue a message for the desk, waiting while it is far behind."""
        await self._to_write.send(frames.frame(message))

    def _offer(self, message: Signal) -> None:
        """Queue a preview where there is room; a desk that is behind misses some."""
        if self._has_room:
            self._to_write.send_nowait(frames.frame(message))

    @property
    def _has_room(self) -> bool:
        return self._to_write.statistics().current_buffer_used < _OUTGOING_SIGNALS

    async def _read(self) -> bytes:
        await anyio.wait_readable(self._incoming)
        return os.read(self._incoming, _READ_BYTES)

    async def _write(self) -> None:
        """Write what is queued, for ever. A desk that is gone ends the process."""
        os.set_blocking(self._outgoing, False)
        try:
            async for frame in self._written:
                left = memoryview(frame)
                while left:
                    try:
                        left = left[os.write(self._outgoing, left) :]
                    except BlockingIOError:
                        await anyio.wait_writable(self._outgoing)
        except OSError:
            os._exit(0)


def _rehearse_crash(turn: Turn) -> None:
    poison = os.environ.get(CRASH_VARIABLE)
    if poison and any(m.role == "user" and poison in m.content for m in turn.messages):
        os.abort()


def _private_pipes() -> tuple[int, int]:
    """Take stdin and stdout for frames, and leave their places to /dev/null and stderr."""
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return incoming, outgoing


def _die_with_parent() -> None:
    """On Linux, have the kernel end this process when the thread that started it ends; elsewhere the pipe must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m edge.bench", description="The engine's process of gx.")
    parser.add_argument("--context", type=int, help="tokens of a turn, prompt and answer, where a model doesn't say")
    parser.add_argument("--threads", type=int, help="threads that compute (default: the cores it may use)")
    parser.add_argument("--slots", type=int, help="turns that run at once")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a bench on this process's stdin and stdout, and never return."""
    options = _parse(sys.argv[1:] if argv is None else argv)
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the desk decides what it means
    incoming, outgoing = _private_pipes()
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # an assertion should end the process, not start a debugger
    bench = Bench(incoming, outgoing, context_tokens=options.context, threads=options.threads, slots=options.slots)
    try:
        anyio.run(bench.serve)
    except* BenchError as group:
        os.write(2, f"bench: {_first(group)}\n".encode())
        os._exit(2)
    except* OSError:
        os._exit(0)  # the pipe is gone, which is how a bench is told to go
    except* BaseException:  # noqa: BLE001 - an answer is lost, and the desk is owed the truth: the process ends
        traceback.print_exc()
        os._exit(70)  # EX_SOFTWARE of <sysexits.h>


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    main()
