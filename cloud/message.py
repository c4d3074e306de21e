"""What crosses between the desk and a rented bench: one job in, one report out, both msgpack.

They are bytes to Modal, so no class of ours is ever unpickled, and a failure is a value that arrives like an answer.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from edge.frames import unpack_outcome
from gx.core.errors import BenchError
from gx.core.message import Outcome, Turn, Value

MODELS = "models"
"""The folder of a container's home where the volume with the models is mounted."""


class Weights(Value, frozen=True, kw_only=True):
    """The files of a model on the volume, by their SHA-256, and what the bench is told of it.

    `digest` is the one that turns name; `adapters` are (SHA-256, strength).
    """

    digest: str
    sha256: str
    context_tokens: int | None = None
    adapters: tuple[tuple[str, float], ...] = ()


class Job(Value, frozen=True, kw_only=True):
    """An attempt to run. `claim` is what at most one call may take; `driver` names the lease that pays for it."""

    turn: Turn
    weights: Weights
    claim: str
    driver: str


class Seat(Value, frozen=True, kw_only=True):
    """The container that speaks, by wall-clock seconds of its own: since when it is up, and what time it is there."""

    container: str
    began_at: float
    now: float


class Done(Value, frozen=True, kw_only=True, tag="done"):
    """The attempt ended, after `ms` milliseconds on the bench, in what `edge.frames.pack_outcome` made `packed` of."""

    packed: bytes
    ms: float

    @property
    def outcome(self) -> Outcome:
        """How it ended. :raises BenchError: if that can't be read."""
        return unpack_outcome(self.packed)


class Lost(Value, frozen=True, kw_only=True, tag="lost"):
    """The bench died under the attempt, or none came up. `alone` says that nothing else ran beside it.

    `is_suspect` says whether that may be the attempt's fault, `is_model` that the container can't use the model,
    `is_claimed` that its call had the attempt's claim.
    """

    reason: str
    alone: bool = False
    is_suspect: bool = True
    is_model: bool = False
    is_claimed: bool = False


class Taken(Value, frozen=True, kw_only=True, tag="taken"):
    """Another call had claimed the attempt before."""

    call: str


class Unpaid(Value, frozen=True, kw_only=True, tag="unpaid"):
    """Nobody vouches for the cost any more: the driver's lease ended, and nothing was run."""


class Report(Value, frozen=True, kw_only=True):
    """The answer to a job."""

    seat: Seat
    reply: Done | Lost | Taken | Unpaid

    @property
    def is_claimed(self) -> bool:
        """Whether the attempt has its call, this one or one that it names: another one will not run it any more."""
        reply = self.reply
        return isinstance(reply, Done | Taken) or (isinstance(reply, Lost) and reply.is_claimed)


class Board(Protocol):
    """What containers and drivers know in common."""

    async def claim(self, key: str, call: str) -> str:
        """The call that has the claim: the first one that asked."""

    async def paid_until(self, driver: str) -> float:
        """Until when a driver vouches for the cost, in wall-clock seconds; 0 if it never did."""

    async def say(self, key: str, value: bytes) -> None:
        """Leave word for the driver, in place of what stood there."""


_JOB = msgspec.msgpack.Decoder(Job)
_REPORT = msgspec.msgpack.Decoder(Report)
_SEAT = msgspec.msgpack.Decoder(Seat)
_ENCODER = msgspec.msgpack.Encoder()


def pack(value: Job | Report | Seat) -> bytes:
    """The bytes that travel."""
    return _ENCODER.encode(value)


def read_job(payload: bytes) -> Job:
    """The job that `pack` wrote. :raises msgspec.DecodeError: if it is none."""
    return _JOB.decode(payload)


def read_report(payload: bytes) -> Report:
    """The report that `pack` wrote. :raises msgspec.DecodeError: if it is none."""
    return _REPORT.decode(payload)


def read_seat(payload: bytes) -> Seat:
    """The seat that `pack` wrote. :raises msgspec.DecodeError: if it is none."""
    return _SEAT.decode(payload)


def outcome_of(payload: bytes) -> tuple[Outcome, float] | None:
    """What a report says that an attempt came to, and its ms; `None` if it came to nothing, or can't be read."""
    try:
        reply = read_report(payload).reply
        return (reply.outcome, reply.ms) if isinstance(reply, Done) else None
    except (msgspec.MsgspecError, BenchError):
        return None


def owner_of(payload: bytes) -> str | None:
    """The call that has the claim of the attempt, if a report says that it is another one."""
    try:
        reply = read_report(payload).reply
    except (msgspec.MsgspecError, BenchError):
        return None
    return reply.call if isinstance(reply, Taken) else None


def is_claimed(payload: bytes) -> bool:
    """Whether a report says that the attempt has its call; not if it can't be read."""
    try:
        return read_report(payload).is_claimed
    except msgspec.MsgspecError:
        return False
