"""Why nothing can be rented for now, and when that is tried again.

It knows reasons and instants, and neither runs nor landlords. Each reason is told once in a row. What only a person can
mend is not tried again; all else is, after a while that doubles as long as nothing comes of it.
"""

from __future__ import annotations

from math import inf

LEAST_S = 30.0
MOST_S = 600.0
FOR_GOOD = frozenset(
    {"cloud.token", "cloud.sdk", "cloud.gpu", "cloud.model", "cloud.missing", "cloud.stale", "cloud.offline"}
)
"""Codes of errors that pass only when somebody does something, and says so by new terms."""


class Refusals:
    """Those of one run. `reason` is why nothing is rented now; empty where something may be."""

    def __init__(self, told: str = "") -> None:
        self.reason, self._told = "", told
        self._wait_s = LEAST_S
        self._until: float | None = None

    def __repr__(self) -> str:
        return f"<Refusals: {self.reason or 'none'}>"

    def is_new(self, reason: str) -> bool:
        """Whether that is another reason than the last one; it is the last one from now on."""
        is_new, self._told = reason != self._told, reason
        return is_new

    def rest(self, reason: str, code: str = "") -> None:
        """Rent nothing for a while, or for good. A further reason doesn't put off the end of a while."""
        if code in FOR_GOOD:
            self.reason, self._until = reason, inf
        elif not self.reason:
            self.reason, self._until = reason, None

    def look(self, now: float) -> None:
        """Time passes: once it was long enough, there is no reason any more."""
        if not self.reason:
            return
        if self._until is None:
            self._until, self._wait_s = now + self._wait_s, min(MOST_S, 2 * self._wait_s)
        elif now >= self._until:
            self.reason, self._until = "", None

    def seen(self) -> None:
        """A container is up: what is refused from now on is news. Whether it works, its answers tell."""
        self._told = ""

    def answered(self) -> None:
        """A container did what it was given."""
        self._wait_s = LEAST_S

    def forget(self) -> None:
        """New terms are a new try."""
        self.reason = self._told = ""
        self._wait_s, self._until = LEAST_S, None
