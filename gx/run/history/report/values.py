"""What a report says of a run, as values: amounts, never rows, so that a run of any length has a small one.

Seconds of the run (`at_s`, `start_s`, `end_s`) are those while it went on: see `gx.run.history.report.clock`. No field
is left out when it is written as JSON.
"""

from __future__ import annotations

from typing import Any, Literal

from gx.core.message import Value
from gx.core.terms import REHEARSAL
from gx.run.history.spent import Spent

Unit = Literal["s", "tokens"]


class Counts(Value, frozen=True, kw_only=True):
    """Tasks by how they ended; `cached` of the succeeded ones were answered from the log."""

    tasks: int
    succeeded: int
    failed: int
    cancelled: int
    skipped: int
    cached: int

    @property
    def left(self) -> int:
        """Tasks that have not ended."""
        return self.tasks - self.succeeded - self.failed - self.cancelled - self.skipped


class Step(Value, frozen=True, kw_only=True):
    """A step's tasks, its tokens, and the seconds that its answers took; `None` where it computed none."""

    step: str
    counts: Counts
    tok_in: int
    tok_out: int
    p50_s: float | None
    p99_s: float | None


class Moment(Value, frozen=True, kw_only=True):
    """What happened from `at_s` on, until the next moment: tasks that ended, and tokens of attempts that did."""

    at_s: float
    succeeded: int
    failed: int
    others: int
    tok_in: int
    tok_out: int


class Bin(Value, frozen=True, kw_only=True):
    """How many values are at least `start` and less than `stop`; `None` is no bound."""

    start: float
    stop: float | None
    count: int


class Spread(Value, frozen=True, kw_only=True):
    """How values are spread: percentiles, the largest, and a histogram whose bins follow each other without a gap."""

    unit: Unit
    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    most: float
    bins: tuple[Bin, ...]


class Busy(Value, frozen=True, kw_only=True):
    """What a worker had to do: `levels` are attempts at once, as means over the moments of the report."""

    worker: str
    attempts: int
    levels: tuple[float, ...]


class Rented(Value, frozen=True, kw_only=True):
    """A container from its reservation to its end, or to when it was last seen; `None` while nobody has seen it."""

    container: str
    gpu: str
    start_s: float
    end_s: float | None
    usd: float
    has_ended: bool
    is_rehearsal: bool


class Cause(Value, frozen=True, kw_only=True):
    """Why tasks failed for good, or attempts before them. `shape` is the message without what varies.

    `message` is that of the first one, and `None`, as is the shape, where contents are withheld. `examples` are tasks.
    """

    code: str
    shape: str | None
    message: str | None
    tasks: int
    attempts: int
    examples: tuple[str, ...]


class Decision(Value, frozen=True, kw_only=True):
    """What was decided, or happened to the run as a whole, in words; `at` is µs since 1970."""

    seq: int
    at: int
    text: str


class Row(Value, frozen=True, kw_only=True):
    """A row's record as it is printed, with its input: JSON text, maybe cut."""

    id: str
    status: str
    input: str
    answer: str


class Departure(Value, frozen=True, kw_only=True):
    """Turns that were sent to `destination`, and their bytes. A rehearsal's went to processes on this machine."""

    destination: str
    turns: int
    bytes: int

    @property
    def has_left(self) -> bool:
        """Whether they left this machine."""
        return self.destination != REHEARSAL


class Report(Value, frozen=True, kw_only=True):
    """All of it, as of the event `seq`. `began` is µs since 1970, `seconds` the time while the run went on, to
    its last event.

    `away_s` is the time between while it didn't. `is_withheld` says that contents are left out, since the run has
    private ones. `decisions_left_out` stand between the first of them and the last.
    """

    run: str
    name: str
    status: str
    standing: str
    by: str
    file: str
    seq: int
    began: int
    seconds: float
    away_s: float
    resumed: int
    counts: Counts
    tok_in: int
    tok_out: int
    usd: float
    usd_rehearsed: float
    cap_usd: float | None
    moment_s: float
    moments: tuple[Moment, ...]
    latency: Spread | None
    tokens_in: Spread | None
    tokens_out: Spread | None
    workers: tuple[Busy, ...]
    containers: tuple[Rented, ...]
    containers_left_out: int
    steps: tuple[Step, ...]
    cost_by_gpu: tuple[Spent, ...]
    cost_by_model: tuple[Spent, ...]
    causes: tuple[Cause, ...]
    causes_left_out: int
    decisions: tuple[Decision, ...]
    decisions_left_out: int
    departures: tuple[Departure, ...]
    is_withheld: bool
    rows: tuple[Row, ...]
    recipe: str
    params: dict[str, Any]
