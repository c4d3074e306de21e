"""Bytes to lines, whatever their encoding says of itself, in constant memory.

Lines end in LF or CRLF. A byte order mark of UTF-8 is dropped and UTF-16 becomes UTF-8; nothing else is decoded here,
so that one bad byte costs one line and not the input.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

CHUNK_BYTES = 1 << 20
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


class Line(NamedTuple):
    """A line without its end. `number` counts from 1; `content` is `None` for one that was too long to hold."""

    number: int
    content: bytes | None
    size: int


def lines(stream: BinaryIO, max_bytes: int) -> Iterator[Line]:
    """The lines of `stream`, which `utf8` made. One over `max_bytes` is measured and let go."""
    number = 0
    while piece := stream.readline(max_bytes + 2):
        number += 1
        content = piece.removesuffix(b"\n").removesuffix(b"\r")
        if len(content) <= max_bytes:
            yield Line(number, content, len(content))
            continue
        size = len(piece)
        while not piece.endswith(b"\n") and (piece := stream.readline(CHUNK_BYTES)):
            size += len(piece)
        yield Line(number, None, size - piece.endswith(b"\n"))


def utf8(stream: BinaryIO) -> BinaryIO:
    """The same bytes without a byte order mark, and as UTF-8 if they were UTF-16."""
    head = stream.readline(4)  # stops at a line's end: a slow pipe is not waited for longer than need be
    codec = _UTF16.get(head[:2])
    if codec is None:
        return rejoined(head.removeprefix(codecs.BOM_UTF8), stream)
    return cast(BinaryIO, io.BufferedReader(_FromUtf16(head[2:], stream, codec), CHUNK_BYTES))


def rejoined(head: bytes, stream: BinaryIO) -> BinaryIO:
    """A stream that begins with `head`, which was read too early."""
    return cast(BinaryIO, io.BufferedReader(_Joined(head, stream), CHUNK_BYTES))


class _Joined(io.RawIOBase):
    """`head`, then the rest of a stream, as it comes."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._ready, self._stream, self._is_ended = head, stream, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        while not self._ready and not self._is_ended:
            self._ready = self._more(len(buffer))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _more(self, size: int) -> bytes:
        """The next bytes, at most about `size`; sets `_is_ended` when there are none."""
        chunk = read_some(self._stream, size)
        self._is_ended = not chunk
        return chunk


class _FromUtf16(_Joined):
    """UTF-16 as UTF-8. Half a surrogate pair becomes bytes that aren't UTF-8, so that its line fails alone."""

    def __init__(self, head: bytes, stream: BinaryIO, codec: str) -> None:
        super().__init__(b"", stream)
        self._decoder = codecs.getincrementaldecoder(codec)("surrogatepass")
        self._ready = self._decoder.decode(head).encode("utf-8", "surrogatepass")

    def _more(self, size: int) -> bytes:
        chunk = super()._more(size)
        try:
            return self._decoder.decode(chunk, final=not chunk).encode("utf-8", "surrogatepass")
        except UnicodeDecodeError:  # the input ends within a character
            return b"\xff"


def read_some(stream: BinaryIO, size: int) -> bytes:
    """What there is of the next `size` bytes, at least one of them; empty at the end."""
    read1 = getattr(stream, "read1", None)
    return cast(bytes, read1(size) if read1 is not None else stream.read(size) or b"")
