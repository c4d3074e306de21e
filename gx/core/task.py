"""A task's life: its statuses, its leases, and its place in the plan.

queued → prepared → leased → succeeded | failed | cancelled | skipped; a retry or a lost lease goes back to prepared
with attempt + 1. The attempt is the fencing token: an event that names an older one changes nothing.
"""

from __future__ import annotations

from enum import Enum

from gx.core.message import Value


class Status(str, Enum):
    """Where a task stands."""

    queued = "queued"  # made by the plan; nothing is rendered yet
    prepared = "prepared"  # rendered, with its key; it waits for a worker
    leased = "leased"  # one worker has the right to run the present attempt
    waiting = "waiting"  # its calls are being done, or a person is being asked; it holds no slot
    succeeded = "succeeded"  # it has its result
    failed = "failed"  # its attempts are used up, or the failure was not worth another
    cancelled = "cancelled"  # somebody asked for that
    skipped = "skipped"  # its `when` was false

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can happen to the task any more."""
        return self in _TERMINAL


_TERMINAL = frozenset({Status.succeeded, Status.failed, Status.cancelled, Status.skipped})


class EdgeLease(Value, frozen=True, kw_only=True, tag="edge"):
    """Bound to one bench process of one node: void when either ends."""

    epoch: int
    incarnation: int


class CloudLease(Value, frozen=True, kw_only=True, tag="cloud"):
    """Bound to the call that the cloud gave: reattached after a restart, never expired by the clock alone."""

    call: str
    gpu: str


Lease = EdgeLease | CloudLease


class Rate(Value, frozen=True, kw_only=True):
    """What a worker does per second, measured over `tasks` finished tasks; zero tasks means it is an assumption."""

    tokens_in_per_s: float
    tokens_out_per_s: float
    tasks: int = 0


class Quote(Value, frozen=True, kw_only=True):
    """What a worker costs: dollars per second of one container, the start-up time, where the price is from and when."""

    usd_per_s: float = 0.0
    cold_start_s: float = 0.0
    source: str = ""
    date: str = ""


class Offer(Value, frozen=True, kw_only=True):
    """One kind of container that may be rented: what it does a second, what it costs, and how long it takes to begin.

    `tokens_per_s` are prompts and answers together; with `tasks` 0 that is an assumption. It idles `window_s` before it
    ends. A start that takes longer than `start_limit_s` is given up, and so is an input that takes longer than
    `timeout_s`. `reserve_usd` is the most that one of them can cost before anybody can stop it. `source` and `date`
    are the price's.
    """

    gpu: str
    tokens_per_s: float
    tasks: int = 0
    usd_per_s: float
    cold_start_s: float = 0.0
    window_s: float = 0.0
    reserve_usd: float = 0.0
    start_limit_s: float = 0.0
    timeout_s: float = 0.0
    source: str = ""
    date: str = ""


class Capacity(Value, frozen=True, kw_only=True):
    """How many attempts a worker may hold (`leases`), and how many of them run at once (`slots`)."""

    slots: int
    leases: int
