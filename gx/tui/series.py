"""Amounts over time in so many buckets, however long the time: when they run out, two become one."""

from __future__ import annotations

MOST = 512
"""Buckets that are kept; a power of two, and more than any screen is wide."""


class Series:
    """`ended` and `tokens` are amounts a bucket, `backlog` is the level at its end; a bucket is `width_s` seconds.

    Time starts with the first mark and never goes back: an earlier mark counts in the last bucket.
    """

    def __init__(self) -> None:
        self.began_s: float | None = None
        self.width_s = 1.0
        self.ended = [0]
        self.tokens = [0]
        self.backlog = [0]

    def mark(self, at_s: float, backlog: int, ended: int = 0, tokens: int = 0) -> None:
        """Count what happened at an instant (wall-clock seconds), after which `backlog` tasks waited."""
        if self.began_s is None:
            self.began_s = at_s
        place = int((at_s - self.began_s) / self.width_s)
        while place >= MOST:
            self._halve()
            place = int((at_s - self.began_s) / self.width_s)
        self._reach(place)
        self.ended[-1] += ended
        self.tokens[-1] += tokens
        self.backlog[-1] = backlog

    def rates(self, amounts: list[int]) -> list[float]:
        """Amounts a bucket as amounts a second."""
        return [amount / self.width_s for amount in amounts]

    @property
    def span_s(self) -> float:
        """The time that the buckets cover."""
        return len(self.ended) * self.width_s

    def _reach(self, place: int) -> None:
        while len(self.ended) <= place:
            self.ended.append(0)
            self.tokens.append(0)
            self.backlog.append(self.backlog[-1])

    def _halve(self) -> None:
        self.ended = _pairs(self.ended)
        self.tokens = _pairs(self.tokens)
        self.backlog = [*self.backlog[1::2], *(self.backlog[-1:] if len(self.backlog) % 2 else [])]
        self.width_s *= 2


def _pairs(amounts: list[int]) -> list[int]:
    return [sum(amounts[n : n + 2]) for n in range(0, len(amounts), 2)]
