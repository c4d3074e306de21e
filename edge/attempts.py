"""The attempts that are under way on a bench: since when each is, and how fast they end.

It reads no clock: it is given instants. It doesn't know how an attempt travels, or who is told of its end.

Invariant: each attempt that begins ends once, with an outcome or with its bench; and the seconds that count as busy are
those in which at least one is under way.
"""

from __future__ import annotations

from edge.throughput import Throughput
from gx.core.message import Answer, Calls
from gx.core.ports import AttemptEnded
from gx.core.protocol import Finished
from gx.core.task import Rate


class Attempts:
    """The attempts of one worker."""

    def __init__(self) -> None:
        self._begun: dict[tuple[str, int], tuple[float, str]] = {}  # since when, and of which model
        self._throughput = Throughput()

    def __repr__(self) -> str:
        return f"<Attempts: {len(self._begun)} under way>"

    @property
    def are_under_way(self) -> bool:
        """Whether there is any."""
        return bool(self._begun)

    @property
    def models(self) -> set[str]:
        """Those that they use, by their digests."""
        return {model for _, model in self._begun.values()}

    def has(self, task: str, attempt: int) -> bool:
        """Whether that one is under way."""
        return (task, attempt) in self._begun

    def begin(self, task: str, attempt: int, model: str, now_s: float) -> None:
        """It was submitted."""
        self._begun[task, attempt] = now_s, model
        self._throughput.begin(now_s)

    def end(self, message: Finished, now_s: float) -> AttemptEnded | None:
        """The bench says how one ended: what to tell the desk, or `None` where it isn't under way."""
        begun = self._begun.pop((message.task, message.attempt), None)
        if begun is None:
            return None
        begun_s, _ = begun
        outcome = message.outcome
        usage = outcome.usage if isinstance(outcome, Answer | Calls) else None
        self._throughput.end(usage, now_s, is_idle=not self._begun)
        return AttemptEnded(task=message.task, attempt=message.attempt, outcome=outcome, ms=(now_s - begun_s) * 1000)

    def lose_all(self) -> None:
        """The bench is gone, and all of them with it."""
        self._begun.clear()
        self._throughput.reset()

    def rate(self) -> Rate:
        """Tokens per second of late, in and out counted over the same busy seconds."""
        return self._throughput.rate()
