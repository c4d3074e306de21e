"""A client's stdin in the node: bytes that arrive on the event loop, read by the thread that makes rows of them.

Invariant: the reader sees the end of the input only if the client said that it ended. Where the client went away
before, or nobody wants the input any more, reading fails, so that half an input is never taken for a whole one. And
nobody waits for ever for somebody who won't come.
"""

from __future__ import annotations

import contextlib
import io
import queue
from collections.abc import AsyncIterator

import anyio
from starlette.requests import ClientDisconnect

from gx.core.errors import UsageError

AHEAD = 16
"""Chunks that may wait for the reader; beyond that the client waits."""
UNCLAIMED_S = 30.0
"""How long an input may wait for a run to claim it, and a run for its input."""
MOST = 64
"""Inputs that may wait for their runs."""
_POLL_S = 0.01


class Upload(io.RawIOBase):
    """A stream that one client writes and one thread reads, once a run has claimed it."""

    def __init__(self, *, unclaimed_s: float = UNCLAIMED_S) -> None:
        self._chunks: queue.Queue[bytes | OSError | None] = queue.Queue(AHEAD)
        self._rest = b""
        self._is_ended = self._is_unwanted = self._is_claimed = False
        self._broken: OSError | None = None
        self._unclaimed_s = unclaimed_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Wait for the next bytes. :raises OSError: if the client went away before the end, or the input is refused."""
        while not self._rest and not self._is_ended:
            got = self._broken or self._chunks.get()
            if self._is_unwanted:
                got = OSError(0, "nobody reads on")
            if isinstance(got, OSError):
                self._broken = got
                raise got
            self._rest, self._is_ended = got or b"", got is None
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    async def write_on(self, chunk: bytes | OSError | None) -> bool:
        """Hand on some bytes, `None` for the end, or why there are no more; whether they are wanted.

        It waits while the reader is behind, and a while for somebody to claim the input.
        """
        gives_up_at = anyio.current_time() + self._unclaimed_s
        while not self._is_unwanted and (self._is_claimed or anyio.current_time() < gives_up_at):
            try:
                self._chunks.put_nowait(chunk)
            except queue.Full:
                await anyio.sleep(_POLL_S)
            else:
                return True
        return False

    def claim(self) -> None:
        """A run takes the input."""
        self._is_claimed = True

    def refuse(self) -> None:
        """Nobody reads on: the run is over, or there is none. A reader that waits is let go."""
        self._is_unwanted = True
        with contextlib.suppress(queue.Full):
            self._chunks.put_nowait(b"")


class Uploads:
    """Inputs that were sent and not claimed yet, by the tokens of their submissions; either may come first."""

    def __init__(self) -> None:
        self._unclaimed: dict[str, Upload] = {}
        self._news = anyio.Event()

    def __contains__(self, token: str) -> bool:
        return token in self._unclaimed

    async def claim(self, token: str) -> Upload:
        """The input that is sent with that token. :raises UsageError: if none comes."""
        with anyio.move_on_after(UNCLAIMED_S):
            while token not in self._unclaimed:
                await self._news.wait()
            upload = self._unclaimed.pop(token)
            upload.claim()
            return upload
        raise UsageError("the input is stdin, and none was sent", hint="PUT /v1/inputs/{token} first")

    async def receive(self, token: str, chunks: AsyncIterator[bytes]) -> None:
        """Take an input to its end, or as long as it is wanted. One that is sent again takes the place of the first."""
        if (earlier := self._unclaimed.pop(token, None)) is not None:
            earlier.refuse()
        upload = self._unclaimed[token] = Upload()
        while len(self._unclaimed) > MOST:
            self._unclaimed.pop(next(iter(self._unclaimed))).refuse()
        news, self._news = self._news, anyio.Event()
        news.set()
        if not await _hand_on(upload, chunks):
            if self._unclaimed.get(token) is upload:  # half of it is no input
                del self._unclaimed[token]
            upload.refuse()


async def _hand_on(upload: Upload, chunks: AsyncIterator[bytes]) -> bool:
    """Write it to its end; whether all of it was wanted."""
    try:
        async for chunk in chunks:
            if chunk and not await upload.write_on(chunk):
                return False
        return await upload.write_on(None)
    except ClientDisconnect:
        return await upload.write_on(ConnectionError(0, "the client that sent it went away"))
