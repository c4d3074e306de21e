"""A client's stdin in the node: bytes that arrive on the event loop, read by the thread that makes rows of them.

Invariant: the reader sees the end of the input only if the client said that it ended. Where the client went away
before, reading fails, so that half an input is never taken for a whole one.
"""

from __future__ import annotations

import io
import queue

import anyio

AHEAD = 16
"""Chunks that may wait for the reader; beyond that the client waits."""
_POLL_S = 0.01


class Upload(io.RawIOBase):
    """A stream that one client writes and one thread reads."""

    def __init__(self) -> None:
        self._chunks: queue.Queue[bytes | OSError | None] = queue.Queue(AHEAD)
        self._rest = b""
        self._is_ended = self._is_unwanted = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Wait for the next bytes. :raises OSError: if the client went away before the input's end."""
        while not self._rest and not self._is_ended:
            got = self._chunks.get()
            if isinstance(got, OSError):
                self._chunks.put(got)
                raise got
            self._rest, self._is_ended = got or b"", got is None
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    async def write_on(self, chunk: bytes | OSError | None) -> bool:
        """Hand on some bytes, `None` for the end, or why there are no more; whether they are wanted.

        It waits while the reader is behind.
        """
        while not self._is_unwanted:
            try:
                self._chunks.put_nowait(chunk)
            except queue.Full:
                await anyio.sleep(_POLL_S)
            else:
                return True
        return False

    def refuse(self) -> None:
        """The run is over: nobody reads on."""
        self._is_unwanted = True
