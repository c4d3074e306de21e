"""How fast a worker is: tokens per second, from the turns that ended lately.

It knows usages and instants that it is given; it reads no clock. Tokens in and tokens out are counted over the same
seconds, those in which at least one turn was under way, so it measures turns that run side by side as well.

Invariant: a rate is positive; until a turn has ended it is an assumption, and says so by `tasks` 0.
"""

from __future__ import annotations

from gx.core.message import Usage
from gx.core.task import Rate

# A small model on two laptop cores, where nothing has been measured yet.
ASSUMED = Rate(tokens_in_per_s=400.0, tokens_out_per_s=60.0, tasks=0)
# What is ten turns old counts for a third: recent enough to notice a busy machine, long enough to be steady.
_KEPT = 0.9
_LEAST_PER_S = 0.001


class Throughput:
    """Decayed sums over the turns that ended."""

    def __init__(self) -> None:
        self._tokens_in = self._tokens_out = self._busy_s = 0.0
        self._tasks = 0
        self._since_s: float | None = None  # when the busy time that isn't counted yet began; None while idle

    def begin(self, now_s: float) -> None:
        """A turn was submitted."""
        if self._since_s is None:
            self._since_s = now_s

    def end(self, usage: Usage | None, now_s: float, *, is_idle: bool) -> None:
        """A turn ended; `usage` is `None` if it isn't to count. `is_idle`: no other turn is under way."""
        if usage is not None and self._since_s is not None:
            self._tokens_in = self._tokens_in * _KEPT + usage.tokens_in
            self._tokens_out = self._tokens_out * _KEPT + usage.tokens_out
            self._busy_s = self._busy_s * _KEPT + (now_s - self._since_s)
            self._tasks += 1
        self._since_s = None if is_idle else now_s

    def reset(self) -> None:
        """The bench is gone, and with it what was under way; what was measured stays."""
        self._since_s = None

    def rate(self) -> Rate:
        """Tokens per busy second, in and out."""
        if self._busy_s <= 0:
            return ASSUMED
        return Rate(
            tokens_in_per_s=max(_LEAST_PER_S, self._tokens_in / self._busy_s),
            tokens_out_per_s=max(_LEAST_PER_S, self._tokens_out / self._busy_s),
            tasks=self._tasks,
        )
