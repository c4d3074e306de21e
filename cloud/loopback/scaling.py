"""When a pool starts and stops containers: one pure function, and the values that it reads.

It knows counts and seconds; it doesn't know processes. The rules are the loopback's reading of Modal's guide "Scaling
out": containers for what is queued and running, never below `min_containers` nor above `max_containers`, and a
container that has been idle for `scaledown_window_s` goes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

# Modal's guide "Scaling out": the default of scaledown_window.
SCALEDOWN_WINDOW_S = 60.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """An autoscaler's settings. `max_containers=None` leaves it to the account's limit."""

    min_containers: int = 0
    max_containers: int | None = None
    buffer_containers: int = 0
    scaledown_window_s: float = SCALEDOWN_WINDOW_S
    inputs_per_container: int = 1


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """A container as the autoscaler sees it. `idle_since_s` is `None` while it loads or works."""

    task_id: str
    held: int = 0
    idle_since_s: float | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`start` so many, `stop` these, and look again at `again_at_s` (`None`: only when something happens)."""

    start: int = 0
    stop: tuple[str, ...] = ()
    again_at_s: float | None = None


def decide(limits: Limits, seats: Sequence[Seat], queued: int, room: int, now_s: float) -> Verdict:
    """What to start and stop now. `seats` are those not yet told to go; `room` is what the account still allows."""
    load = queued + sum(seat.held for seat in seats)
    wanted = -(-load // max(1, limits.inputs_per_container)) + (limits.buffer_containers if load else 0)
    ceiling = len(seats) + max(0, room) if limits.max_containers is None else limits.max_containers
    wanted = min(max(wanted, limits.min_containers), ceiling)
    if wanted > len(seats):
        return Verdict(start=min(wanted - len(seats), max(0, room)))
    idle = sorted((seat.idle_since_s, seat.task_id) for seat in seats if seat.idle_since_s is not None)
    spare, again_at_s = len(seats) - wanted, None
    stop: list[str] = []
    for since_s, task_id in idle[:spare]:
        if now_s - since_s >= limits.scaledown_window_s or len(seats) - len(stop) > ceiling:
            stop.append(task_id)
        else:
            again_at_s = since_s + limits.scaledown_window_s
            break
    return Verdict(stop=tuple(stop), again_at_s=again_at_s)
