"""What may go wrong, as a value, and the counter that says when it is due.

Everything is asked for by ordinal (the 3rd delivery, the 1st start), never by chance, so that a rehearsal can be run
again. Ordinals count from 1 over the life of the plane. This file does nothing itself: it only says what is due.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import msgspec

Strike = Literal["kill", "preempt"]

# Modal's guide "Invoking deployed functions" (function-invocation-methods): results are kept for 7 days.
RESULTS_KEPT_S = 7 * 24 * 3600.0


class Lost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The replies to `rpc` numbered `nth` … `nth + times - 1` are lost after the work was done.

    The SDK repeats a call 3 times, so `times=4` is what makes a client see it. :raises ValueError: if `rpc` is
    FunctionGetInputs, since no one would ever tell that input's container of it again.
    """

    rpc: str
    nth: int = 1
    times: int = 1

    def __post_init__(self) -> None:
        if self.rpc == "FunctionGetInputs":
            raise ValueError("replies to FunctionGetInputs can't be lost here; use `kill` to lose an input")


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong. The default is that nothing does."""

    kill: tuple[int, ...] = ()  # deliveries of an input after which its container is killed
    preempt: tuple[int, ...] = ()  # deliveries of an input after which its container is preempted
    strike_after_s: float = 0.2  # how long after the delivery
    preempt_grace_s: float = 30.0  # between SIGINT and SIGKILL (Modal's guide "Preemption")
    lose: tuple[Lost, ...] = ()
    refuse: tuple[int, ...] = ()  # spawns that are refused with RESOURCE_EXHAUSTED
    slow_starts: dict[int, float] = {}  # start of a container -> seconds that it takes longer
    results_kept_s: float = RESULTS_KEPT_S


class FaultCounter:
    """Counts what happens and says which fault is due. `struck` tells what was done, for the report."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.struck: list[str] = []
        self._seen: Counter[str] = Counter()

    def delivery(self) -> Strike | None:
        """An input is handed to a container: what befalls that container."""
        n = self._next("delivery")
        strike: Strike | None = "kill" if n in self.faults.kill else "preempt" if n in self.faults.preempt else None
        if strike:
            self.struck.append(f"{strike} at delivery {n}")
        return strike

    def is_refused(self) -> bool:
        """A call is spawned: whether the quota refuses it."""
        n = self._next("spawn")
        if n in self.faults.refuse:
            self.struck.append(f"refused spawn {n}")
            return True
        return False

    def start_delay_s(self) -> float:
        """A container is started: how much longer that takes."""
        n = self._next("start")
        extra = self.faults.slow_starts.get(n, 0.0)
        if extra:
            self.struck.append(f"start {n} slower by {extra:g} s")
        return extra

    def is_lost(self, rpc: str) -> bool:
        """A reply is ready: whether it is lost."""
        n = self._next(f"reply:{rpc}")
        if any(lost.rpc == rpc and lost.nth <= n < lost.nth + lost.times for lost in self.faults.lose):
            self.struck.append(f"lost reply {n} of {rpc}")
            return True
        return False

    def _next(self, what: str) -> int:
        self._seen[what] += 1
        return self._seen[what]
