"""Frames: how messages travel between a desk and a bench over a pipe.

A frame is the length of its body (4 bytes, big-endian) and the body: msgpack of one member of `ToBench` or `FromBench`.
This file knows bytes; it doesn't know processes, sockets or what a message is for.

`Answer.value` is raw JSON, which msgspec would copy verbatim into the msgpack and so break it: here it travels as a
msgpack byte string, and comes out as the same bytes that went in.

Invariant: decoding what was encoded gives an equal message, however the pipe cut the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from gx.core.errors import BenchError
from gx.core.message import Answer, Outcome
from gx.core.protocol import Finished, FromBench, ToBench

HEADER_BYTES = 4
# No turn or answer is near this: a longer frame means that something else was written to the pipe.
MAX_BODY_BYTES = 64 * 1024 * 1024

_ENCODER = msgspec.msgpack.Encoder()
_TO_BENCH: msgspec.msgpack.Decoder[ToBench] = msgspec.msgpack.Decoder(ToBench)
_FROM_BENCH: msgspec.msgpack.Decoder[FromBench] = msgspec.msgpack.Decoder(FromBench)
_OUTCOME: msgspec.msgpack.Decoder[Outcome] = msgspec.msgpack.Decoder(Outcome)
_BYTES: msgspec.msgpack.Decoder[bytes] = msgspec.msgpack.Decoder(bytes)


def frame(message: ToBench | FromBench) -> bytes:
    """The frame of a message. :raises BenchError: if its body can't be written, or is longer than `MAX_BODY_BYTES`."""
    if isinstance(message, Finished):
        message = msgspec.structs.replace(message, outcome=_shielded(message.outcome))
    try:
        body = _ENCODER.encode(message)
    except (OverflowError, RecursionError) as error:
        raise BenchError(f"a message can't be sent: {error}") from error
    if len(body) > MAX_BODY_BYTES:
        most = f"at most {MAX_BODY_BYTES} are allowed"
        raise BenchError(f"a message of {len(body)} bytes is too long to send; {most}", code="too_long")
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def to_bench(body: bytes) -> ToBench:
    """Decode what a desk sent. :raises BenchError: if the body isn't such a message."""
    try:
        return _TO_BENCH.decode(body)
    except msgspec.MsgspecError as error:
        raise BenchError(f"the desk sent what this bench can't read: {error}") from error


def from_bench(body: bytes) -> FromBench:
    """Decode what a bench sent. :raises BenchError: if the body isn't such a message."""
    try:
        message = _FROM_BENCH.decode(body)
        if isinstance(message, Finished):
            return msgspec.structs.replace(message, outcome=_unshielded(message.outcome))
    except msgspec.MsgspecError as error:
        raise BenchError(f"the bench sent what this desk can't read: {error}") from error
    return message


def pack_outcome(outcome: Outcome) -> bytes:
    """The msgpack of an outcome alone, for a carrier that isn't a pipe."""
    return _ENCODER.encode(_shielded(outcome))


def unpack_outcome(body: bytes) -> Outcome:
    """Decode what `pack_outcome` made. :raises BenchError: if it didn't make it."""
    try:
        return _unshielded(_OUTCOME.decode(body))
    except msgspec.MsgspecError as error:
        raise BenchError(f"an outcome that can't be read: {error}") from error


class Splitter:
    """Cuts a stream of bytes back into bodies. It holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield each body that `chunk` completes. :raises BenchError: if a length can't be one of ours."""
        self._held += chunk
        while len(self._held) >= HEADER_BYTES:
            length = int.from_bytes(self._held[:HEADER_BYTES], "big")
            if length > MAX_BODY_BYTES:
                raise BenchError(f"a frame claims {length} bytes; at most {MAX_BODY_BYTES} can be: these aren't frames")
            end = HEADER_BYTES + length
            if len(self._held) < end:
                return
            body = bytes(self._held[HEADER_BYTES:end])
            del self._held[:end]
            yield body


def _shielded(outcome: Outcome) -> Outcome:
    if not isinstance(outcome, Answer):
        return outcome
    return msgspec.structs.replace(outcome, value=msgspec.Raw(_ENCODER.encode(bytes(outcome.value))))


def _unshielded(outcome: Outcome) -> Outcome:
    if not isinstance(outcome, Answer):
        return outcome
    return msgspec.structs.replace(outcome, value=msgspec.Raw(_BYTES.decode(outcome.value)))
