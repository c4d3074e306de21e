"""The bench's process, `python -m edge.bench`: frames of `ToBench` on stdin, frames of `FromBench` on stdout.

It knows pipes and threads: a reader, a writer, the engine's own thread, one for loading and counting, and one for
each turn under way. It doesn't know tasks beyond their name and attempt, and it keeps nothing.

Invariant: stdout carries frames and nothing else. Whatever prints (a library, a GGML assertion) prints on stderr,
because file descriptor 1 is made to point there before anything is loaded.

The process lives exactly as long as its stdin: when that closes it exits at once, whatever it is doing.

Options: `--context N` tokens of a turn where a model doesn't say, `--threads N`, `--slots 1`.

For rehearsals only: `GX_BENCH_CRASH_ON=<text>` aborts the process, as a GGML assertion would, when a turn begins that
has a user message with that text in it.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from edge import frames
from gx.core.errors import BenchError, GxError
from gx.core.message import (
    Cancel,
    Count,
    Counted,
    Execute,
    Failure,
    Finished,
    FromBench,
    Load,
    Loaded,
    Ready,
    Refused,
    Signal,
    Turn,
)

CRASH_VARIABLE = "GX_BENCH_CRASH_ON"
SIGNAL_INTERVAL_S = 0.1
# Frames that may wait for a slow reader; signals only take a quarter, so that a result never waits behind previews.
_OUTGOING_FRAMES, _OUTGOING_SIGNALS = 256, 64
_READ_BYTES = 1 << 16
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class Bench:
    """Serves one desk. `incoming` and `outgoing` are file descriptors of its own."""

    def __init__(self, incoming: int, outgoing: int, *, context_tokens: int | None, threads: int | None) -> None:
        from edge.engine.engine import Engine  # after stdout is safe, and not before: it loads llama.cpp

        self._incoming, self._outgoing = incoming, outgoing
        self._engine = Engine(threads=threads, context_tokens=context_tokens)
        self._to_write: queue.Queue[bytes] = queue.Queue(_OUTGOING_FRAMES)
        self._cancelled: dict[tuple[str, int], threading.Event] = {}
        # A few more turns than slots may be here, so that the next one is ready when one ends.
        self._turns = ThreadPoolExecutor(self._engine.slots + 3, thread_name_prefix="turn")
        self._asides = ThreadPoolExecutor(1, thread_name_prefix="aside")

    def serve(self) -> None:
        """Announce the bench, then do as the desk says until its pipe closes. :raises BenchError: on a bad frame."""
        threading.Thread(target=self._write, name="writer", daemon=True).start()
        self._send(Ready(pid=os.getpid(), slots=self._engine.slots, engine=self._engine.build))
        splitter = frames.Splitter()
        while chunk := os.read(self._incoming, _READ_BYTES):
            for body in splitter.feed(chunk):
                self._obey(frames.to_bench(body))

    def _obey(self, message: Load | Count | Execute | Cancel) -> None:
        """Begin what a message asks for. Nothing here waits: the reader must see what comes next."""
        match message:
            case Load():
                # Known at once, so that a turn right behind this message finds it; loaded beside the reader.
                self._engine.register(message.digest, message.path, message.context_tokens)
                _start(self._asides, lambda: self._answer(message.request, lambda: self._load(message)))
            case Count():
                _start(self._asides, lambda: self._answer(message.request, lambda: self._count(message)))
            case Execute(turn=turn):
                self._cancelled[turn.task, turn.attempt] = threading.Event()
                _start(self._turns, lambda: self._run(turn))
            case Cancel():
                event = self._cancelled.get((message.task, message.attempt))
                if event is not None:
                    event.set()

    def _load(self, message: Load) -> FromBench:
        return Loaded(request=message.request, card=self._engine.describe(message.digest))

    def _count(self, message: Count) -> FromBench:
        return Counted(request=message.request, tokens=self._engine.count(message.model, message.chats))

    def _answer(self, request: int, work: Callable[[], FromBench]) -> None:
        """Send what `work` returns, or why it failed."""
        from edge.engine.engine import failure_of

        try:
            answer = work()
        except GxError as error:
            answer = Refused(request=request, failure=failure_of(error))
        except Exception as error:  # noqa: BLE001 - exceptions don't cross a process
            message = f"{type(error).__name__}: {error}"
            answer = Refused(request=request, failure=Failure(code="internal", message=message))
        self._send(answer)

    def _run(self, turn: Turn) -> None:
        from edge.execute import execute

        _rehearse_crash(turn)
        preview = _Preview(self._offer)
        cancelled = self._cancelled[turn.task, turn.attempt]
        outcome = execute(turn, preview.add, engine=self._engine, cancelled=cancelled)
        self._cancelled.pop((turn.task, turn.attempt), None)
        self._send(Finished(task=turn.task, attempt=turn.attempt, outcome=outcome))

    def _send(self, message: FromBench) -> None:
        """Queue a message for the desk, waiting while it is far behind."""
        self._to_write.put(frames.frame(message))

    def _offer(self, message: Signal) -> bool:
        """Queue a preview where there is room, and say whether there was."""
        if self._to_write.qsize() >= _OUTGOING_SIGNALS:
            return False
        try:
            self._to_write.put_nowait(frames.frame(message))
        except queue.Full:
            return False
        return True

    def _write(self) -> None:
        """The writer thread's whole life. A desk that is gone ends the process."""
        try:
            while True:
                left = memoryview(self._to_write.get())
                while left:
                    left = left[os.write(self._outgoing, left) :]
        except OSError:
            os._exit(0)


class _Preview:
    """Coalesces the text of one turn: a signal at most every `SIGNAL_INTERVAL_S`, later where the desk is behind."""

    def __init__(self, offer: Callable[[Signal], bool]) -> None:
        self._offer, self._held, self._due_s = offer, "", 0.0

    def add(self, signal: Signal) -> None:
        self._held += signal.text
        now_s = time.monotonic()
        if now_s < self._due_s or not self._held:
            return
        self._due_s = now_s + SIGNAL_INTERVAL_S
        merged = Signal(task=signal.task, attempt=signal.attempt, text=self._held, tokens_out=signal.tokens_out)
        if self._offer(merged):
            self._held = ""


def _start(pool: ThreadPoolExecutor, work: Callable[[], None]) -> None:
    """Run `work` in a pool. If it raises, an answer is lost, and the desk is owed the truth: the process ends."""

    def run() -> None:
        try:
            work()
        except BaseException:  # noqa: BLE001 - told on stderr, and by the exit
            traceback.print_exc()
            os._exit(70)  # EX_SOFTWARE of <sysexits.h>

    pool.submit(run)


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
    parser.add_argument("--slots", type=int, choices=[1], default=1, help="turns that run at once")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a bench on this process's stdin and stdout, and never return."""
    options = _parse(sys.argv[1:] if argv is None else argv)
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the desk decides what it means
    incoming, outgoing = _private_pipes()
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # an assertion should end the process, not start a debugger
    try:
        Bench(incoming, outgoing, context_tokens=options.context, threads=options.threads).serve()
    except BenchError as error:
        os.write(2, f"bench: {error.message}\n".encode())
        os._exit(2)
    except OSError:
        pass  # the pipe is gone, which is how a bench is told to go
    os._exit(0)  # not sys.exit: threads in the middle of a decode aren't waited for


if __name__ == "__main__":
    main()
