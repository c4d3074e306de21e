"""The results of a run for those who want them: any number of watchers, each at its own pace.

It knows which tasks' results there are, in the order of their coming, and nothing of how they travel. A result is read
from the log when a watcher takes it, so that a slow one costs no memory; but it holds up its run, which gets no new
grants while too many results wait for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import anyio

from gx.run.record import Record

CREDITS = 1024
"""Results that a watcher may leave untaken before its run gets no new grants (DESIGN §6)."""
CHUNK = 256


class Results:
    """The results so far. `read` brings the records of some tasks, `on_room` is called as credits return."""

    def __init__(self, read: Callable[[Sequence[str]], list[Record]]) -> None:
        self._read = read
        self._tasks: list[str] = []
        self._watchers = set[_Watcher]()
        self._is_over = False
        self._news = anyio.Event()
        self.on_room: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def is_slow(self) -> bool:
        """Whether a watcher has let its credits run out."""
        return any(len(self._tasks) - watcher.taken > CREDITS for watcher in self._watchers)

    def add(self, tasks: Iterable[str]) -> None:
        """These tasks ended."""
        self._tasks.extend(tasks)
        self._tell()

    def end(self) -> None:
        """Nothing more will come."""
        self._is_over = True
        self._tell()

    @contextmanager
    def watch(self) -> Iterator[AsyncIterator[list[Record]]]:
        """All results from the first on, until the run is over; as long as the block lasts, its pace counts.

        What was yielded counts as taken with the next step.
        """
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            yield self._chunks(watcher)
        finally:
            self._watchers.discard(watcher)
            self.on_room()

    async def ended(self) -> None:
        """Wait until nothing more will come."""
        while not self._is_over:
            await self._news.wait()

    async def _chunks(self, watcher: _Watcher) -> AsyncIterator[list[Record]]:
        while True:
            if chunk := self._tasks[watcher.taken : watcher.taken + CHUNK]:
                yield self._read(chunk)
                was_slow = self.is_slow
                watcher.taken += len(chunk)
                if was_slow and not self.is_slow:
                    self.on_room()
            elif self._is_over:
                return
            else:
                await self._news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()


class _Watcher:
    """How far somebody is."""

    def __init__(self) -> None:
        self.taken = 0
