"""Files into documents, through a child process that reads them and may die of it. It knows no format itself.

Invariant: each file ends as a document or as one that is skipped, within the time that a file may take; what a file
does to its reader is never seen by the next one.
"""

from __future__ import annotations

import select
import signal
import subprocess
import sys
import time
from types import TracebackType

import msgspec

from edge.frames import HEADER_BYTES, Splitter
from edge.knowledge.child import Reply
from edge.knowledge.document import Document, Limits, Skipped
from gx.core.errors import BenchError

_READ_BYTES = 1 << 18
_START_S = 20.0
"""What the first file of a child is waited for beyond its own time: starting Python on a busy machine."""
_REPLY: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


class Extractor:
    """Reads files, one at a time, in one child process that is started when it is needed and replaced when it ends.

    For one thread at a time; `close` may come from another one and ends what is under way.
    """

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - a frozen value
        self._limits = limits
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Extractor(pid={self._child.pid if self._child is not None else None})"

    def extract(self, path: str) -> Document | Skipped:
        """Read a file. Blocking, for at most the limits' `wall_s` (and some seconds, if a child has to be started)."""
        try:
            name = path.encode()
        except UnicodeEncodeError:
            shown = path.encode("utf-8", "backslashreplace").decode()
            return Skipped(path=shown, reason="its name is not UTF-8: rename it")
        is_new = self._child is None
        child = self._child = self._child or self._start()
        assert child.stdin is not None
        try:
            child.stdin.write(len(name).to_bytes(HEADER_BYTES, "big") + name)
            child.stdin.flush()
        except OSError:
            return Skipped(path=path, reason=self._end())
        wall_s = self._limits.wall_s
        body = self._receive(child, wall_s + (_START_S if is_new else 0.0))
        if body is None:
            return Skipped(path=path, reason=self._end(f"reading it takes more than {wall_s:g} s"))
        reply = _REPLY.decode(body)
        if reply.is_last:
            self.close()
        return reply.document or reply.skipped or Skipped(path=path, reason="nothing came of it")

    def close(self) -> None:
        """End the child, if there is one. The next file starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None and not pipe.closed:
                    _close(pipe)

    def _start(self) -> subprocess.Popen[bytes]:
        limits = msgspec.json.encode(self._limits).decode()
        command = [sys.executable, "-P", "-B", "-m", "edge.knowledge.child", limits]
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, **streams)  # type: ignore[call-overload, no-any-return]

    def _receive(self, child: subprocess.Popen[bytes], wall_s: float) -> bytes | None:
        """The body of a reply; `None` if none came in time, or the child is gone."""
        assert child.stdout is not None
        ready = select.poll()
        ready.register(child.stdout, select.POLLIN)
        splitter, deadline = Splitter(), time.monotonic() + wall_s
        while (left_s := deadline - time.monotonic()) > 0:
            if not ready.poll(left_s * 1000):
                return None
            chunk = child.stdout.read1(_READ_BYTES)  # type: ignore[attr-defined]
            if not chunk:
                return None
            try:
                for body in splitter.feed(chunk):
                    return body
            except BenchError:
                return None
        return None

    def _end(self, otherwise: str = "its reader is gone") -> str:
        """End the child, and say of what it ended: by itself, or else for the reason given."""
        child = self._child
        try:
            status = child.wait(0.2) if child is not None else 0
        except subprocess.TimeoutExpired:
            status = None
        self.close()
        if status is None:
            return otherwise
        if status == -signal.SIGXCPU:
            return f"reading it takes more than {self._limits.cpu_s} s of processor time"
        how = f"exit status {status}" if status >= 0 else _name(-status)
        memory = ", for lack of memory perhaps" if status in (-signal.SIGABRT, -signal.SIGSEGV) else ""
        return f"its reader died of it ({how}){memory}"


def _name(number: int) -> str:
    return next((one.name for one in signal.Signals if one == number), f"signal {number}")


def _close(pipe: object) -> None:
    try:
        pipe.close()  # type: ignore[attr-defined]
    except OSError:
        return  # what was left to write has no reader
