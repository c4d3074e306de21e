"""What happened to a run: its life, its limits, its input."""

from __future__ import annotations

from gx.core.bodies.blob import Ref
from gx.core.message import Value
from gx.core.terms import Terms


class RunCreated(Value, frozen=True, kw_only=True, tag="run.created"):
    """`recipe` is a blob of the recipe's text, `params` one of its parameters, `asked` one of all that was asked for.

    Instants are wall-clock seconds. A run that `is_detached` goes on without a client. Beside others it gets tokens in
    proportion to its `priority`.
    """

    run: str
    name: str
    fingerprint: str
    recipe: Ref
    params: Ref
    file: str = ""
    inputs: str = ""
    is_streamed: bool = False
    fresh: bool = False
    started_at: float = 0.0
    deadline_at: float | None = None
    budget_tokens: int | None = None
    asked: Ref | None = None
    is_detached: bool = False
    priority: float = 1.0
    burst: Terms | None = None
    by: str = ""


class RunResumed(Value, frozen=True, kw_only=True, tag="run.resumed"):
    """A client came back to an unfinished run that wasn't live. A limit that is given replaces the run's own."""

    run: str
    deadline_at: float | None = None
    budget_tokens: int | None = None
    is_detached: bool = False
    by: str = ""


class RunInterrupted(Value, frozen=True, kw_only=True, tag="run.interrupted"):
    """Its client went away or asked to stop; what was finished stays, the rest waits for a resumption."""

    run: str
    reason: str
    by: str = ""


class RunCancelled(Value, frozen=True, kw_only=True, tag="run.cancelled"):
    """Somebody gave the run up: nothing resumes it. What was finished stays."""

    run: str
    reason: str
    by: str = ""


class RunPaused(Value, frozen=True, kw_only=True, tag="run.paused"):
    """Nothing new begins until the run is continued; what is running ends."""

    run: str
    by: str = ""


class RunContinued(Value, frozen=True, kw_only=True, tag="run.continued"):
    """A paused run goes on."""

    run: str
    by: str = ""


class RunChanged(Value, frozen=True, kw_only=True, tag="run.changed"):
    """Somebody changed a live run. `None` leaves a thing as it is; `concurrency` 0 lifts that limit. One that
    `is_detached` needs no client from now on.
    """

    run: str
    concurrency: int | None = None
    priority: float | None = None
    deadline_at: float | None = None
    budget_tokens: int | None = None
    is_detached: bool = False
    by: str = ""


class RunStopped(Value, frozen=True, kw_only=True, tag="run.stopped"):
    """A limit was reached: `limit` is "budget" (of tokens), "cap" (of dollars), "deadline" or "rule". The rest waits
    for a resumption, if need be with another limit.
    """

    run: str
    limit: str
    reason: str


class StopAsked(Value, frozen=True, kw_only=True, tag="stop.asked"):
    """The run is to stop once what is running has ended: a rule says so, or a person who was asked."""

    run: str
    reason: str
    by: str = ""


class ClockJumped(Value, frozen=True, kw_only=True, tag="clock.jumped"):
    """The wall clock moved against the monotonic one (a laptop slept): the run's deadline and timers move with it."""

    run: str
    by_s: float


class RunFinished(Value, frozen=True, kw_only=True, tag="run.finished"):
    """Every task reached its end."""

    run: str
    succeeded: int
    failed: int
    skipped: int = 0
    cancelled: int = 0


class InputRow(Value, frozen=True, kw_only=True):
    """A row that was read. `item` is its content; `error` says why it can't be used, with its line."""

    index: int
    id: str
    item: Ref | None = None
    error: str | None = None
    is_batch: bool = False


class InputsRead(Value, frozen=True, kw_only=True, tag="inputs.read"):
    run: str
    rows: tuple[InputRow, ...]


class InputsEnded(Value, frozen=True, kw_only=True, tag="inputs.ended"):
    run: str
    rows: int
