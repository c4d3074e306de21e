"""A worker that is brought up when it is wanted, and what it has been given: the bench here, or one that is rented.

It knows attempts by name, and nothing of runs or of what follows from an event. When a worker fails, its station is
told why and waits until the next one is wanted.

Invariant: an attempt is held from the moment it was submitted until its worker answered for it, or its bench was gone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import cast

import anyio

from gx.core.errors import GxError, ours
from gx.core.message import Turn
from gx.core.ports import AttemptEnded, AttemptGone, BenchDown, BenchUp, RentedWorker, Worker, WorkerEvent
from gx.core.task import Lease

MakeWorker = Callable[[], AbstractAsyncContextManager[Worker]]


class Station:
    """One worker's place. `name` is what its events carry; `on_news` is called when there is something in `inbox`.

    `on_failure` is told why no worker can be kept up.
    """

    def __init__(
        self, name: str, make: MakeWorker, *, on_news: Callable[[], None], on_failure: Callable[[GxError], None]
    ) -> None:
        self.name = name
        self._make, self._on_news, self._on_failure = make, on_news, on_failure
        self.worker: Worker | None = None
        self.inbox: list[WorkerEvent] = []
        self.incarnation = 0
        self.hung: set[int] = set()
        """The incarnations that were ended because an attempt in them did not."""
        self._held: set[tuple[str, int]] = set()
        self._is_wanted, self._is_settled = anyio.Event(), anyio.Event()

    def __repr__(self) -> str:
        return f"<Station {self.name}, {'up' if self.worker is not None else 'down'}, {len(self._held)} held>"

    def want(self) -> None:
        """Bring a worker up, where there is none."""
        self._is_wanted.set()

    async def settled(self) -> Worker | None:
        """The worker, once it is up; `None` if it can't be brought up."""
        self.want()
        await self._is_settled.wait()
        return self.worker

    async def serve(self) -> None:
        """Bring up the worker when it is wanted, and take its events; another one, if it fails."""
        while True:
            await self._is_wanted.wait()
            try:
                async with self._make() as worker:
                    self.worker = worker
                    self._is_settled.set()
                    self._on_news()
                    while True:
                        got = await worker.events()
                        self.inbox.extend(got)  # whoever reads it takes the list away
                        self._on_news()
            except Exception as error:  # noqa: BLE001 - a bug there too is that worker's, and its runs'
                why, self.worker = ours(error), None
                if not isinstance(error, GxError):
                    self._bury(why.message)
                self._held.clear()
                self.hung.clear()
                self._is_settled.set()
                self._on_failure(why)
            self._is_wanted, self._is_settled = anyio.Event(), anyio.Event()

    def _bury(self, reason: str) -> None:
        """Tell of the end of a bench whose worker couldn't any more, so that what is bound to it is void."""
        told = [event for event in self.inbox if isinstance(event, BenchUp | BenchDown)]
        is_up = isinstance(told[-1], BenchUp) if told else self.incarnation > 0
        if is_up:
            incarnation = told[-1].incarnation if told else self.incarnation
            self.inbox.append(BenchDown(incarnation=incarnation, reason=reason, is_expected=True))
            self._on_news()

    @property
    def leases(self) -> int | None:
        """How many attempts its worker may hold; `None` without one."""
        return None if self.worker is None else self.worker.capacity().leases

    @property
    def n_held(self) -> int:
        """How many attempts its worker holds."""
        return len(self._held)

    @property
    def room(self) -> int:
        """How many more of them there may be, whoever is said to have them."""
        return (self.leases or 0) - len(self._held)

    def lease(self) -> Lease | None:
        """The binding of a lease granted now; `None` while nothing can be granted, or an end is yet to be heard of."""
        is_over = self.worker is None or any(isinstance(event, BenchDown) for event in self.inbox)
        return None if is_over else cast("Worker", self.worker).lease()

    def submit(self, turn: Turn) -> None:
        """Hand an attempt to the worker, which must be up."""
        if self.worker is not None:
            self._held.add((turn.task, turn.attempt))
            self.worker.submit(turn)

    def hold(self, task: str, attempt: int) -> None:
        """The worker has an attempt that was submitted before this process began."""
        self._held.add((task, attempt))

    def cancel(self, task: str, attempt: int) -> None:
        """End an attempt; unknown ones are ignored."""
        if self.worker is not None:
            self.worker.cancel(task, attempt)

    def recall(self, task: str, attempt: int, reason: str) -> None:
        """Have an attempt back from a worker that is rented; unknown ones are ignored."""
        if self.worker is not None:
            cast("RentedWorker", self.worker).recall(task, attempt, reason)

    def restart(self, reason: str) -> None:
        """End the bench, because an attempt in it does not end."""
        if self.worker is not None:
            self.hung.add(self.incarnation)
            self.worker.restart(reason)

    def heard(self, event: WorkerEvent) -> None:
        """Note what an event says of what is held."""
        if isinstance(event, AttemptEnded | AttemptGone):
            self._held.discard((event.task, event.attempt))
        elif isinstance(event, BenchUp):
            self.incarnation = event.incarnation
        elif isinstance(event, BenchDown):
            self.incarnation = 0
            self._held.clear()
