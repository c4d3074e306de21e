"""Failures grouped by cause: those whose code and message are the same but for numbers, quotes and names in them."""

from __future__ import annotations

import re

MOST = 1000
"""Causes that are kept apart; what comes after is counted by its code alone."""
EXAMPLES = 50
"""Tasks that a cause remembers."""
_LONGEST = 200
_VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\b[0-9a-f]{12,}\b|\d[\d.,:]*")


class Cause:
    """Why tasks, or attempts of them, failed. `tasks` are places of the first of them, in the order of coming."""

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message
        self.failed = 0
        self.attempts = 0
        self.tasks: list[int] = []


class Causes:
    """Every cause so far, by its code and the shape of its message."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Cause] = {}

    def attempt(self, code: str, message: str) -> None:
        """An attempt failed; the task may be tried again."""
        self._cause(code, message).attempts += 1

    def failed(self, code: str, message: str, place: int) -> None:
        """The task at `place` failed for good."""
        cause = self._cause(code, message)
        cause.failed += 1
        if len(cause.tasks) < EXAMPLES:
            cause.tasks.append(place)

    def ranked(self) -> list[Cause]:
        """The causes, those that failed most tasks first."""
        return sorted(self._found.values(), key=lambda cause: (-cause.failed, -cause.attempts, cause.code))

    def _cause(self, code: str, message: str) -> Cause:
        key = code, shape_of(message)
        if key not in self._found and len(self._found) >= MOST:
            key = code, ""
        if (cause := self._found.get(key)) is None:
            cause = self._found[key] = Cause(code, message[:_LONGEST])
        return cause


def shape_of(message: str) -> str:
    """The message without what varies between two failures of one cause."""
    return _VARYING.sub("…", message[:_LONGEST])
