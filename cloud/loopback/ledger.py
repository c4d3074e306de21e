"""What would have been billed: for each container its hardware, when it was asked for, when it served, when it went.

It knows seconds, not prices: dollars are `cloud.cost`'s. Times are seconds since the plane started.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Stay(msgspec.Struct, kw_only=True):
    """One container from request to exit. `gpu` is empty without one; 0 cores or MiB are Modal's default.

    `None`: not yet.

    `busy_s` is the time in which it held at least one input.
    """

    task_id: str
    app: str
    function: str
    gpu: str
    gpu_count: int
    cpu_cores: float
    memory_mib: int
    asked_at_s: float
    serving_at_s: float | None = None
    ended_at_s: float | None = None
    reason: str = ""
    inputs: int = 0
    busy_s: float = 0.0
    busy_since_s: float | None = None

    def billed_s(self, now_s: float) -> float:
        """Seconds on the bill so far: cold start, loading and idle tail included."""
        return (now_s if self.ended_at_s is None else self.ended_at_s) - self.asked_at_s

    def loading_s(self, now_s: float) -> float:
        """Seconds until it asked for its first input; all of them if it never did."""
        end_s = self.serving_at_s if self.serving_at_s is not None else self.ended_at_s
        return (now_s if end_s is None else end_s) - self.asked_at_s

    def worked_s(self, now_s: float) -> float:
        return self.busy_s + (now_s - self.busy_since_s if self.busy_since_s is not None else 0.0)


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """The seconds of all containers on one kind of hardware: `billed_s = loading_s + busy_s + idle_s`."""

    gpu: str
    containers: int
    inputs: int
    billed_s: float
    gpu_s: float
    loading_s: float
    busy_s: float
    idle_s: float


class Ledger:
    """The stays of all containers, by task id, in the order in which they were asked for."""

    def __init__(self) -> None:
        self.stays: dict[str, Stay] = {}

    def open(self, stay: Stay) -> None:
        self.stays[stay.task_id] = stay

    def served(self, task_id: str, now_s: float) -> None:
        """It asked for its first input; later ones change nothing."""
        stay = self.stays[task_id]
        if stay.serving_at_s is None:
            stay.serving_at_s = now_s

    def took(self, task_id: str, now_s: float) -> None:
        """It was given an input."""
        stay = self.stays[task_id]
        stay.inputs += 1
        if stay.busy_since_s is None:
            stay.busy_since_s = now_s

    def rested(self, task_id: str, now_s: float) -> None:
        """It holds no input any more."""
        stay = self.stays[task_id]
        if stay.busy_since_s is not None:
            stay.busy_s += now_s - stay.busy_since_s
            stay.busy_since_s = None

    def close(self, task_id: str, reason: str, now_s: float) -> None:
        """Its process is gone."""
        self.rested(task_id, now_s)
        stay = self.stays[task_id]
        stay.ended_at_s, stay.reason = now_s, reason


def bills(stays: Iterable[Stay], now_s: float) -> tuple[Bill, ...]:
    """The stays added up, one bill a GPU type, in the order of their names."""
    by_gpu: dict[str, list[Stay]] = {}
    for stay in stays:
        by_gpu.setdefault(stay.gpu, []).append(stay)
    return tuple(_bill(gpu, by_gpu[gpu], now_s) for gpu in sorted(by_gpu))


def _bill(gpu: str, stays: list[Stay], now_s: float) -> Bill:
    billed_s = sum(stay.billed_s(now_s) for stay in stays)
    loading_s = sum(stay.loading_s(now_s) for stay in stays)
    busy_s = sum(stay.worked_s(now_s) for stay in stays)
    return Bill(
        gpu=gpu,
        containers=len(stays),
        inputs=sum(stay.inputs for stay in stays),
        billed_s=billed_s,
        gpu_s=sum(stay.billed_s(now_s) * stay.gpu_count for stay in stays),
        loading_s=loading_s,
        busy_s=busy_s,
        idle_s=max(0.0, billed_s - loading_s - busy_s),
    )
