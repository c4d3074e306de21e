"""What leaves this machine, said before it leaves.

A turn that may not leave is of another type: nobody can take it for one that may. What leaves is an `egress` event,
committed with the lease, before the job is handed over: the names of the fields that the prompt was made from, how many
bytes it has, and their digest; never what is in them.
"""

from __future__ import annotations

import msgspec

from gx.core import event as e
from gx.core.errors import GxError
from gx.core.ids import digest
from gx.core.message import Turn
from gx.core.view import RunState, TaskState
from gx.flow import privacy
from gx.flow.memories import NAME
from gx.flow.plan import Plan
from gx.run.labels import agent_of

_ENCODER = msgspec.msgpack.Encoder()


class PrivateTurn(Turn, frozen=True, kw_only=True):
    """A turn that was made from something private. It has the bytes and the key of one that wasn't."""

    @classmethod
    def of(cls, turn: Turn) -> PrivateTurn:
        """The same turn, which stays here."""
        return cls(**{name: getattr(turn, name) for name in Turn.__struct_fields__})


class PrivateError(GxError):
    """Something private was about to leave."""

    code = "private"


def leaving(turn: Turn, fields: tuple[str, ...], *, run: str, task: str, attempt: int, to: str) -> e.Egress:
    """The event of a turn that goes to `to`. `turn` is the attempt's own, as it is packed.

    :raises PrivateError: if it is private.
    """
    if isinstance(turn, PrivateTurn):
        raise PrivateError(f"task {task} is private and may not leave for {to}", hint="it waits for this machine")
    packed = _ENCODER.encode(turn)
    return e.Egress(run=run, task=task, attempt=attempt, to=to, fields=fields, bytes=len(packed), digest=digest(packed))


def fields(plan: Plan, run: RunState, task: TaskState) -> tuple[str, ...]:
    """The names of what the task's turn was made from, such as `item.text`: no less than it read.

    Of what the memory gave, each is named, as `memories.` and its uid.
    """
    step = plan.step(task.step)
    read = privacy.reads(plan, step, agent_of(plan, run, task), level=task.level)
    return (*read, *(f"{NAME}.{one.uid}" for one in task.found or ()))
