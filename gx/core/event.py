"""What happened, as immutable facts in the past tense.

A body is one of the classes in `gx.core.bodies`, all of which are here too; its tag ("task.queued") is its name in the
log for ever. Bodies evolve by fields with defaults, and a golden file pins the bytes of each. Content (inputs, prompts,
answers, recipes) is never in a body: it stands there by `Ref`, the digest of a blob, so that erasing the blob leaves
the chain of hashes whole.
"""

from __future__ import annotations

from typing import get_args

import msgspec

from gx.core.bodies.blob import Blob, Ref
from gx.core.bodies.memory import MemoryForgotten, MemoryModelled, MemoryWritten, Remembered
from gx.core.bodies.node import (
    BenchExited,
    BenchMeasured,
    BenchStarted,
    ContentErased,
    LogArchived,
    LogOpened,
    NodeStarted,
    NodeStopped,
)
from gx.core.bodies.notice import NoticeEnded, NoticeLeaves
from gx.core.bodies.rent import (
    BurstAllowed,
    CallMade,
    CapReached,
    ContainerEnded,
    ContainerReserved,
    ContainerSeen,
    ContainersRenewed,
    Egress,
    PlacementDecided,
    RentRefused,
)
from gx.core.bodies.rule import (
    BurstAsked,
    QuestionAnswered,
    QuestionAsked,
    RuleCleared,
    RuleFailed,
    RuleFired,
)
from gx.core.bodies.run import (
    ClockJumped,
    InputRow,
    InputsEnded,
    InputsRead,
    RunCancelled,
    RunChanged,
    RunContinued,
    RunCreated,
    RunFinished,
    RunInterrupted,
    RunPaused,
    RunResumed,
    RunStopped,
    StopAsked,
)
from gx.core.bodies.step import (
    StepContinued,
    StepGrouped,
    StepPaused,
    StepRouted,
    StepSkipped,
    StepUnfolded,
)
from gx.core.bodies.task import (
    AttemptFailed,
    AttemptLost,
    AttemptSuperseded,
    Kept,
    PromptPart,
    Recalled,
    Shortened,
    TaskCancelled,
    TaskFailed,
    TaskLeased,
    TaskPrepared,
    TaskQueued,
    TaskRetried,
    TaskSkipped,
    TaskSucceeded,
)
from gx.core.bodies.telemetry import TelemetryEnded, TelemetryLeaves
from gx.core.message import Value

__all__ = [
    "AFTERWARDS",
    "BODIES",
    "FORMAT",
    "AttemptFailed",
    "AttemptLost",
    "AttemptSuperseded",
    "BenchExited",
    "BenchMeasured",
    "BenchStarted",
    "Blob",
    "Body",
    "BurstAllowed",
    "BurstAsked",
    "CallMade",
    "CapReached",
    "ClockJumped",
    "ContainerEnded",
    "ContainerReserved",
    "ContainerSeen",
    "ContainersRenewed",
    "ContentErased",
    "Egress",
    "Event",
    "InputRow",
    "InputsEnded",
    "InputsRead",
    "Kept",
    "LogArchived",
    "LogOpened",
    "MemoryForgotten",
    "MemoryModelled",
    "MemoryWritten",
    "NodeStarted",
    "NodeStopped",
    "NoticeEnded",
    "NoticeLeaves",
    "PlacementDecided",
    "PromptPart",
    "QuestionAnswered",
    "QuestionAsked",
    "Recalled",
    "Ref",
    "Remembered",
    "RentRefused",
    "RuleCleared",
    "RuleFailed",
    "RuleFired",
    "RunCancelled",
    "RunChanged",
    "RunContinued",
    "RunCreated",
    "RunFinished",
    "RunInterrupted",
    "RunPaused",
    "RunResumed",
    "RunStopped",
    "Shortened",
    "StepContinued",
    "StepGrouped",
    "StepPaused",
    "StepRouted",
    "StepSkipped",
    "StepUnfolded",
    "StopAsked",
    "TaskCancelled",
    "TaskFailed",
    "TaskLeased",
    "TaskPrepared",
    "TaskQueued",
    "TaskRetried",
    "TaskSkipped",
    "TaskSucceeded",
    "TelemetryEnded",
    "TelemetryLeaves",
    "decode_body",
    "encode_body",
    "tag_of",
]

FORMAT = 1
"""The version of the log's format: of these bodies, of the tables and of the hash chain."""

Body = (
    LogOpened
    | LogArchived
    | NodeStarted
    | NodeStopped
    | BenchStarted
    | BenchExited
    | BenchMeasured
    | ClockJumped
    | RunCreated
    | RunResumed
    | RunInterrupted
    | RunCancelled
    | RunPaused
    | RunContinued
    | RunChanged
    | RunStopped
    | StopAsked
    | RunFinished
    | PlacementDecided
    | BurstAllowed
    | ContainerReserved
    | ContainersRenewed
    | ContainerSeen
    | ContainerEnded
    | RentRefused
    | CapReached
    | CallMade
    | InputsRead
    | InputsEnded
    | StepUnfolded
    | StepGrouped
    | StepSkipped
    | StepPaused
    | StepContinued
    | StepRouted
    | RuleFired
    | RuleCleared
    | RuleFailed
    | BurstAsked
    | NoticeLeaves
    | NoticeEnded
    | TelemetryLeaves
    | TelemetryEnded
    | QuestionAsked
    | QuestionAnswered
    | TaskQueued
    | TaskPrepared
    | TaskLeased
    | Egress
    | TaskSucceeded
    | AttemptFailed
    | AttemptLost
    | AttemptSuperseded
    | TaskRetried
    | TaskFailed
    | TaskCancelled
    | TaskSkipped
    | MemoryWritten
    | MemoryForgotten
    | MemoryModelled
    | ContentErased
)

BODIES: tuple[type[Value], ...] = get_args(Body)

AFTERWARDS = ("content.erased", "egress.notice", "notice.ended", "egress.telemetry", "telemetry.ended")
"""Events of a run that may come at any time after its end, and belong to none of its seconds; SQL has them alike."""

_DECODER: msgspec.json.Decoder[Body] = msgspec.json.Decoder(Body)
_ENCODER = msgspec.json.Encoder()


def encode_body(body: Body) -> bytes:
    """The JSON that stands in the log's `data` column."""
    return _ENCODER.encode(body)


def decode_body(data: bytes | str) -> Body:
    """The body that `encode_body` wrote. :raises msgspec.ValidationError: if it is none."""
    return _DECODER.decode(data)


def tag_of(body: Body | type[Value]) -> str:
    """The name of the body's kind in the log, such as "task.queued"."""
    return str(body.__struct_config__.tag)


class Event(Value, frozen=True, kw_only=True):
    """A body with what the log gave it: `seq` is dense, `ts` is wall-clock microseconds, `source` who wrote it."""

    seq: int
    ts: int
    source: str
    body: Body
