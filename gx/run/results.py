"""The results of a run for those who want them: any number of watchers, each at its own pace.

It knows which tasks' results there are, in the order of their coming, and nothing of how they travel. A result is read
from the log when a watcher takes it, so that a slow one costs no memory; but it holds up its run, which gets no new
grants while too many results wait for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import anyio

from gx.core.view import TaskState
from gx.run.record import Record

CREDITS = 1024
"""Results that a watcher may leave untaken before its run gets no new grants (DESIGN §6)."""
CHUNK = 256
CHUNK_BYTES = 16 << 20
"""The most content of what is handed over at a time, unless one result has more: `history.export.PAGE_BYTES`."""

Read = Callable[[Sequence[str], bool], list[Record]]
"""Brings the records of the first of some tasks, of one at the least, with their rows or without."""


class Results:
    """The results so far. `read` brings the records of tasks, `on_room` is called as credits return."""

    def __init__(self, read: Read) -> None:
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
        return any(watcher.reach() - watcher.taken > CREDITS for watcher in self._watchers)

    def add(self, tasks: Iterable[str]) -> None:
        """These tasks ended."""
        self._tasks.extend(tasks)
        self._tell()

    def end(self) -> None:
        """Nothing more will come."""
        self._is_over = True
        self._tell()

    @contextmanager
    def watch(
        self, rows: Sequence[TaskState] | None = None, *, with_input: bool = True
    ) -> Iterator[AsyncIterator[list[Record]]]:
        """All results from the first on, until the run is over; as long as the block lasts, its pace counts.

        They come as the tasks end, or in the order of `rows`, which are those tasks, more of which may be added: a
        result then waits for those before it. What was yielded counts as taken with the next step. Records come with
        the rows that they are about, or, where nobody looks at these, without.
        """
        watcher = _Watcher(self._tasks) if rows is None else _InOrder(rows)
        self._watchers.add(watcher)
        try:
            yield self._chunks(watcher, with_input)
        finally:
            self._watchers.discard(watcher)
            self.on_room()

    async def ended(self) -> None:
        """Wait until nothing more will come."""
        while not self._is_over:
            await self._news.wait()

    async def _chunks(self, watcher: _Watcher, with_input: bool) -> AsyncIterator[list[Record]]:
        while True:
            if chunk := watcher.next(is_over=self._is_over):
                records = self._read(chunk, with_input)
                yield records
                was_slow = self.is_slow
                watcher.taken += len(records)
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
    """How far somebody is, who takes results as they come."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self._tasks = tasks
        self.taken = 0

    def reach(self) -> int:
        """How many results there are for it, those that it has among them."""
        return len(self._tasks)

    def next(self, *, is_over: bool) -> Sequence[str]:
        """The next ones that it may take."""
        return self._tasks[self.taken : self.taken + CHUNK]


class _InOrder(_Watcher):
    """How far somebody is, who takes results in the order of the rows. When the run is over, nothing is waited for."""

    def __init__(self, rows: Sequence[TaskState]) -> None:
        super().__init__(())
        self._rows = rows
        self._ended: list[str] = []
        self._seen = 0

    def reach(self) -> int:
        self._look(is_over=False)
        return len(self._ended)

    def next(self, *, is_over: bool) -> Sequence[str]:
        self._look(is_over=is_over)
        return self._ended[self.taken : self.taken + CHUNK]

    def _look(self, *, is_over: bool) -> None:
        while self._seen < len(self._rows) and (self._rows[self._seen].status.is_terminal or is_over):
            if self._rows[self._seen].status.is_terminal:
                self._ended.append(self._rows[self._seen].id)
            self._seen += 1
