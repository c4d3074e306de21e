"""One bench process, from exec to exit: its pipes, its last words, and how it ended.

It knows a child process and frames; it doesn't know attempts or models. It is started by exec and never by fork, in a
session of its own, so that a Ctrl-C in the terminal reaches the desk alone.

Invariant: once `talk` returns, the process is gone and `reason` says how in words.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence

import anyio
from anyio.abc import Process

from edge import frames
from edge.ended import in_words
from gx.core.errors import BenchError
from gx.core.extras import installing
from gx.core.protocol import FromBench, ToBench

EXIT_S = 2.0
_TAIL_BYTES = 4096
# Whoever inherited its stderr could keep that open for ever.
_LAST_WORDS_S = 1.0
_ENGINE_HINT = installing("edge")
_START_HINT = "`gx doctor` tries the engine; one that is killed may be short of memory"


class BenchProcess:
    """A bench that was started. `reason` is `None` as long as it runs."""

    def __init__(self, process: Process) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise BenchError("a bench needs three pipes, and this one was started without")
        self._process = process
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        # Unbounded, but what goes in is bounded by the leases of its worker.
        self._to_send, self._outgoing = anyio.create_memory_object_stream[bytes](math.inf)
        self._tail = bytearray()
        self._is_silent = anyio.Event()
        self._why: str | None = None
        self.reason: str | None = None

    @classmethod
    async def start(cls, options: Sequence[str], env: Mapping[str, str]) -> BenchProcess:
        """Start `python -m edge.bench` with exactly this environment. :raises BenchError: if it can't be executed."""
        # -P: a folder named `edge` where the user happens to stand must not be taken for ours.
        command = [sys.executable, "-P", "-m", "edge.bench", *options]
        try:
            process = await anyio.open_process(command, env=dict(env), start_new_session=True)
        except OSError as error:
            raise BenchError(f"the bench can't be started: {command[0]}: {error.strerror or error}") from error
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: ToBench) -> None:
        """Queue a message; it never blocks. To a bench that is gone it goes nowhere."""
        try:
            self._to_send.send_nowait(frames.frame(message))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return

    async def talk(self, on_message: Callable[[FromBench], None]) -> None:
        """Carry messages both ways until the process is gone; then set `reason`. Cancelled, it kills the process."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_tail)
                tasks.start_soon(self._write)
                await self._read(on_message)
                with anyio.move_on_after(_LAST_WORDS_S):
                    await self._is_silent.wait()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(EXIT_S):
                    await self._process.wait()
                self._kill()
                self.reason = self._why or in_words(await self._process.wait(), self.last_words())
                self._to_send.close()
                self._outgoing.close()
                await self._process.aclose()

    def kill(self, why: str) -> None:
        """End it now, for a reason that is more telling than the signal."""
        self._why = self._why or why
        self._kill()

    async def stop(self) -> None:
        """Close its stdin, which is how it is told to go; kill it if it doesn't within `EXIT_S`."""
        with anyio.move_on_after(EXIT_S, shield=True):
            await self._stdin.aclose()
            await self._process.wait()
        self._kill()

    def last_words(self) -> str:
        """The last line that it wrote to stderr, for people: of a traceback, what went wrong."""
        lines = self._tail.decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    @property
    def lacks_engine(self) -> bool:
        """Whether it ended because something isn't installed, so that no other one would start."""
        return "No module named" in self.last_words()

    def start_error(self, what: str, times: int) -> BenchError:
        """Why it never became ready, the last of so many in a row, with its last words."""
        words = self.last_words()
        if self.lacks_engine:
            return BenchError(f"the engine is not installed: {words}", hint=_ENGINE_HINT)
        told = f"; its last words: {words}" if words and words not in what else ""
        often = f", {times} times in a row; the last" if times > 1 else ""
        return BenchError(f"the bench did not start{often}: {what}{told}", hint=_START_HINT)

    async def _read(self, on_message: Callable[[FromBench], None]) -> None:
        splitter = frames.Splitter()
        try:
            async for chunk in self._stdout:
                for body in splitter.feed(chunk):
                    on_message(frames.from_bench(body))
        except anyio.BrokenResourceError:
            return
        except BenchError as error:
            self.kill(f"killed, because of what it wrote: {error.message}")

    async def _write(self) -> None:
        try:
            async for body in self._outgoing:
                await self._stdin.send(body)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            return  # it is gone, or told to go; the reader finds out how

    async def _keep_tail(self) -> None:
        try:
            async for chunk in self._stderr:
                self._tail += chunk
                del self._tail[:-_TAIL_BYTES]
        except anyio.BrokenResourceError:
            pass
        self._is_silent.set()

    def _kill(self) -> None:
        if self._process.returncode is None:
            try:
                self._process.kill()
            except ProcessLookupError:
                return
