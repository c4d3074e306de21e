"""What happened to the memory: what was written into it, what was forgotten, and by which model it is embedded.

No such event belongs to a run, though a run may have caused it: a memory outlives the run, its archiving and erasing.
"""

from __future__ import annotations

from gx.core.bodies.blob import Ref
from gx.core.memory import Kind
from gx.core.message import Label, Value


class Remembered(Value, frozen=True, kw_only=True):
    """A memory as the log has it: `body` and `heading` are blobs. The rest is as in `gx.core.memory.Memory`.

    One with a `uid` that is there already takes its place.
    """

    uid: str
    namespace: str
    kind: Kind
    body: Ref
    at: float
    label: Label = Label.private
    by: str = ""
    path: str = ""
    ordinal: int | None = None
    heading: Ref | None = None
    page: int | None = None
    run: str = ""
    task: str = ""
    sha256: str = ""


class MemoryWritten(Value, frozen=True, kw_only=True, tag="memory.written"):
    memories: tuple[Remembered, ...]
    by: str = ""


class MemoryForgotten(Value, frozen=True, kw_only=True, tag="memory.forgotten"):
    """These memories are gone for good; what they said is erased from the log as soon as nobody writes it."""

    uids: tuple[str, ...]
    by: str = ""


class MemoryModelled(Value, frozen=True, kw_only=True, tag="memory.modelled"):
    """From now on the workspace's memories are embedded by that model, and vectors of any other are void.

    `name` is its source, such as "minilm"; `model` is the SHA-256 of its file.
    """

    name: str
    model: str
    dimensions: int
    by: str = ""
