"""Which containers don't work, and which tasks no container can do, by what was answered. Pure.

A container that could not do a task may be broken, and so may the task be. A container that does another one afterwards
is not, so the task is to blame; one that does none is, and no task that it touched. Where nobody knows which one it
was, a task is to blame that failed `MOST_TRIES` times with others done before each. Containers as such don't work where
none ever did, where none did since two of them failed, or where one failed as many times in a row as it holds inputs:
it answers sooner than those that work, and would be given all there is.
"""

from __future__ import annotations

MOST_TRIES = 3


class Failing:
    """Of one run's containers, each of which `holds` so many inputs at once.

    A container is named by what is known of it: where nobody knows which one it was, by its call; where it is not known
    that it failed at all, as of an input that took too long, by nothing.
    """

    def __init__(self, holds: int) -> None:
        self._holds = holds
        self.has_worked = False
        """Whether a container ever did what it was given."""
        self._failed_since = set[str]()
        """The containers that failed since any of them worked."""
        self._in_a_row: dict[str, list[str]] = {}
        """The tasks that a container could not do since it worked itself; without a name, since any did."""
        self._undoable = set[str]()
        self._n_worked = 0
        self._tries: dict[str, tuple[int, int]] = {}
        """How often a task failed with others done since the time before, and how many had been done by then."""

    def __repr__(self) -> str:
        return f"<Failing: {len(self._failed_since)} since one worked, {len(self._undoable)} tasks to blame>"

    def worked(self, container: str) -> None:
        """A container did what it was given."""
        self.has_worked = True
        self._n_worked += 1
        self._failed_since.clear()
        self._in_a_row.pop("", None)
        self._undoable.update(self._in_a_row.pop(container, ()))

    def failed(self, container: str, task: str) -> bool:
        """A container could not do a task; whether containers as such don't work."""
        if container:
            self._failed_since.add(container)
        n_tries, n_worked = self._tries.get(task, (0, 0))
        if self._n_worked > n_worked:
            self._tries[task] = n_tries + 1, self._n_worked
        in_a_row = self._in_a_row.setdefault(container, [])
        in_a_row.append(task)
        return not self.has_worked or len(self._failed_since) > 1 or len(in_a_row) >= self._holds

    def is_undoable(self, task: str) -> bool:
        """Whether a task is to blame where it fails again: a container could not do it and did others afterwards, or it
        failed too often.
        """
        return task in self._undoable or self._tries.get(task, (0, 0))[0] >= MOST_TRIES
