"""How many threads a call gets, learnt from how long calls take. Pure: it is told seconds, and reads no clock.

The threads of a call meet after each of some hundred operations. Where something else keeps a core busy, all of them
wait for the one that shares it, and one thread fewer is faster: on two cores, one of them busy, 64 requests took 80 s
on two threads and 55 s on one. So where the threads got less of the processor than they were given, one fewer is tried;
and while there are fewer than there may be, one more is tried now and then. A trial plays calls of the same kind and
size in turn with both numbers, and the faster number stays.

Invariants: the number is between 1 and `most`; while the processor is ours, and so many threads are used, nothing is
tried.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable

ENOUGH = 0.85
"""Threads that got this share of the processor were disturbed by nobody."""
BETTER = 0.95
"""A number of threads must take at most this share of the other one's time to take its place."""
PAIRS = 3
"""Pairs of calls that decide a trial."""
LONGEST_TRIAL = 32
"""Calls after which a trial ends, however few pairs of a kind there were."""
LONG_S = 0.25
"""A longer call counts as several: its seconds divided by this."""
LONG_TRIAL_S = 1.0
"""Seconds after which one pair is enough."""
SOONEST, LATEST = 8, 512
"""Calls of at most LONG_S between two trials: each that changes nothing doubles them."""


class Pace:
    """The number of threads for the calls of one model, `most` at first."""

    def __init__(self, most: int) -> None:
        self.threads, self._most = most, most
        self._trial: _Trial | None = None
        self._calls, self._wait = 0.0, SOONEST
        self._share = 1.0

    def __repr__(self) -> str:
        return f"<Pace {self.threads} of {self._most}>"

    def next(self, kind: Hashable) -> int:
        """The threads for the next call, of a `kind` whose calls take equally long for each token."""
        return self.threads if self._trial is None else self._trial.next(kind)

    def took(self, kind: Hashable, n_threads: int, n_tokens: int, *, seconds: float, cpu_seconds: float) -> None:
        """A call ended: it took `seconds`, in which the process got `cpu_seconds` of processor."""
        if self._trial is not None:
            self._trial.took(kind, n_threads, n_tokens, seconds)
            if self._trial.is_over:
                self._settle(self._trial)
            return
        calls = max(1.0, seconds / LONG_S)
        if seconds > 0:
            self._share += (1 - 0.75**calls) * (min(1.0, cpu_seconds / seconds / n_threads) - self._share)
        self._calls += calls
        if self._calls < self._wait:
            return
        if self._share < ENOUGH and self.threads > 1:
            self._trial = _Trial(self.threads, self.threads - self._step)
        elif self.threads < self._most:
            self._trial = _Trial(self.threads, min(self._most, self.threads + self._step))

    @property
    def _step(self) -> int:
        return max(1, self.threads // 8)

    def _settle(self, trial: _Trial) -> None:
        is_better = trial.ratio() <= BETTER
        if is_better:
            self.threads = trial.candidate
        self._wait = SOONEST if is_better else min(LATEST, 2 * self._wait)
        self._calls, self._share, self._trial = 0.0, 1.0, None


class _Trial:
    """Two numbers of threads, tried in turn on each kind of call."""

    def __init__(self, current: int, candidate: int) -> None:
        self.current, self.candidate = current, candidate
        self._seconds: defaultdict[Hashable, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
        self._calls, self._took_s = 0, 0.0

    def next(self, kind: Hashable) -> int:
        current, candidate = self._seconds[kind]
        return self.candidate if len(candidate) < len(current) else self.current

    def took(self, kind: Hashable, n_threads: int, n_tokens: int, seconds: float) -> None:
        """A call of so many tokens took so long."""
        self._seconds[kind][n_threads == self.candidate].append(seconds / n_tokens)
        self._calls += 1
        self._took_s += seconds

    @property
    def is_over(self) -> bool:
        pairs = sum(min(map(len, both)) for both in self._seconds.values())
        enough = 1 if self._took_s >= LONG_TRIAL_S else PAIRS
        return pairs >= enough or self._calls >= LONGEST_TRIAL

    def ratio(self) -> float:
        """The candidate's time by the other's, over the kinds that both have played; 1 where there are none."""
        paired = [(sum(a) / len(a), sum(b) / len(b)) for a, b in self._seconds.values() if sum(a) and b]
        return sum(b / a for a, b in paired) / len(paired) if paired else 1.0
