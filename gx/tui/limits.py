"""What a person typed as a run's limits, as numbers."""

from __future__ import annotations

from typing import NamedTuple

from gx.core.errors import UsageError
from gx.flow.scalars import seconds_of


class Limits(NamedTuple):
    """New limits; None leaves one as it is. `concurrency` 0 lifts that limit."""

    concurrency: int | None
    budget_tokens: int | None
    deadline_s: float | None


def limits_of(concurrency: str, budget: str, deadline: str) -> Limits:
    """The limits. :raises UsageError: naming what is no number, or no duration."""
    deadline_s = seconds_of(deadline.strip()) if deadline.strip() else None
    if deadline.strip() and deadline_s is None:
        raise UsageError(f"deadline: expected a duration such as 90s, 30m or 2h, got {deadline!r}")
    return Limits(_whole("at once", concurrency), _whole("budget", budget), deadline_s)


def _whole(name: str, text: str) -> int | None:
    bare = text.strip().replace(",", "").replace("_", "")
    if not bare:
        return None
    if not bare.isdecimal():
        raise UsageError(f"{name}: expected a whole number, got {text!r}")
    return int(bare)
