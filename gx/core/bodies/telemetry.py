"""What was sent to a collector of traces and metrics that the user named."""

from __future__ import annotations

from typing import Literal

from gx.core.message import Value

Sort = Literal["traces", "metrics"]


class TelemetryLeaves(Value, frozen=True, kw_only=True, tag="egress.telemetry"):
    """Spans or metrics of a run leave this machine for `to`, a scheme and a host: `bytes` of them, with that digest.

    Committed before they leave, and again before each further try. `count` is how many there are, `fields` the names of
    what is in them: ids, names and figures, and no content. Everything that the run's events up to the `seq` `after`
    made had arrived by then; this is from events up to `upto`.
    """

    run: str
    sort: Sort
    to: str
    count: int
    fields: tuple[str, ...]
    bytes: int
    digest: str
    after: int = -1
    upto: int = -1


class TelemetryEnded(Value, frozen=True, kw_only=True, tag="telemetry.ended"):
    """Nothing more of the run is sent for now: `arrived` spans did arrive, `left` did not, and `error` says why.

    Everything that events up to the `seq` `upto` made has arrived. The run goes on, or ended, either way.
    """

    run: str
    to: str
    arrived: int
    left: int
    upto: int
    error: str = ""
