"""How fast a run is lately, from how it stood before: tokens a second, and when it will be done."""

from __future__ import annotations

from collections import deque

from gx.node.client import Progress

WINDOW_S = 15.0
"""Paces are of this much of the past."""
LEAST_S = 1.0


class Tempo:
    """Remembers how a run stood."""

    def __init__(self) -> None:
        self._seen: deque[Progress] = deque()

    def saw(self, now: Progress) -> None:
        """The run stands so."""
        self._seen.append(now)
        while self._seen[0].elapsed_s < now.elapsed_s - WINDOW_S and len(self._seen) > 2:
            self._seen.popleft()

    def tokens_per_s(self) -> float | None:
        """Tokens written a second; `None` until there is something to measure."""
        return self._per_s("tokens_out")

    def left_s(self, now: Progress) -> float | None:
        """Seconds until all that is known is done, at this pace; `None` while more may come, or nothing gets done."""
        pace = self._per_s("done")
        if not pace or not now.is_total_final:
            return None
        return (now.total - now.done) / pace

    def _per_s(self, name: str) -> float | None:
        if len(self._seen) < 2:
            return None
        first, last = self._seen[0], self._seen[-1]
        seconds = last.elapsed_s - first.elapsed_s
        reused = last.reused - first.reused if name == "done" else 0
        return None if seconds < LEAST_S else (getattr(last, name) - getattr(first, name) - reused) / seconds
