"""The thread that owns every llama.cpp context. It takes rounds: it admits who fits, then every lane takes one.

It knows jobs with their models, in the order they came; it doesn't know who asked for them. Other threads hand work
over in `queue` and `embed`; all that is below the line runs in the thread itself.

Invariant: whoever was handed over ends with exactly one result, whatever happens, and then its model is given back. A
bug becomes an exception in the futures of those it struck, and the thread lives on.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from edge.engine.embedding import Embedding, advance
from edge.engine.job import Job, Result
from edge.engine.lane import KEPT_S, MOVING_S
from edge.engine.loaded import Loaded
from edge.engine.room import Wait
from edge.engine.shelf import Shelf
from edge.engine.statistics import Statistics
from gx.core.errors import BenchError
from gx.core.protocol import Measured

T = TypeVar("T")


def _closed() -> BenchError:
    return BenchError("the engine is closed")


class Rounds:
    """A running thread. `threads` are what an encoder gets, `slots` is told in readings; `shelf` gets models back."""

    def __init__(
        self, shelf: Shelf, statistics: Statistics, *, slots: int, threads: int, clock: Callable[[], float]
    ) -> None:
        self._shelf, self._statistics = shelf, statistics
        self._slots, self._threads, self._clock = slots, threads, clock
        self._arrived: deque[tuple[Job, Loaded]] = deque()
        self._waiting: list[tuple[Job, Loaded]] = []
        self._running: dict[Job, Loaded] = {}
        self._embeddings: deque[tuple[Embedding, Loaded]] = deque()
        self._asked: deque[Future[Measured]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._running)} running, {len(self._waiting)} waiting"
        return f"<Rounds {state}>"

    @property
    def is_idle(self) -> bool:
        """Whether nobody runs, and nobody waits for a slot."""
        return not (self._running or self._waiting or self._arrived)

    def queue(self, job: Job, loaded: Loaded) -> None:
        """A job that was encoded waits for a slot from here on. :raises BenchError: if this is closed."""
        self._enqueue(self._arrived, (job, loaded))

    def embed(self, embedding: Embedding, loaded: Loaded) -> None:
        """Texts wait for their vectors from here on. :raises BenchError: if this is closed."""
        self._enqueue(self._embeddings, (embedding, loaded))

    def measure(self) -> Future[Measured]:
        """A reading between two rounds: whoever has a result by now is counted in it.

        :raises BenchError: if this is closed.
        """
        future: Future[Measured] = Future()
        future.set_running_or_notify_cancel()  # nobody who stops waiting for it may disturb this thread
        with self._changed:
            if self._is_closed:
                raise _closed()
            self._asked.append(future)
            self._changed.notify()
        return future

    def close(self) -> None:
        """End the thread. What is queued or running ends as cancelled, texts that wait to be embedded with an error."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _enqueue(self, queue: deque[tuple[T, Loaded]], item: tuple[T, Loaded]) -> None:
        with self._changed:
            if not self._is_closed:
                queue.append(item)
                self._changed.notify()
                return
        self._shelf.give_back(item[1])
        raise _closed()

    # ── the engine's thread ──────────────────────────────────────────────────────────────────────────────────────

    def _serve(self) -> None:
        """The thread's whole life."""
        while not self._is_closed:
            try:
                self._round()
            except Exception as error:  # noqa: BLE001 - the futures' owners get it, and this thread lives on
                self._fail_all(error)
        self._tell()
        gone = [*self._running.items(), *self._waiting, *self._arrived]
        for loaded in dict.fromkeys(self._running.values()):
            loaded.lanes.close()
        for job, loaded in gone:
            job.cancelled.set()
            job.end(job.cancellation(self._clock()))
            self._shelf.give_back(loaded)
        for embedding, loaded in self._embeddings:
            embedding.future.set_exception(_closed())
            self._shelf.give_back(loaded)

    def _round(self) -> None:
        """Take what arrived, dismiss who needs no slot any more, admit who fits, and have each lane take its round."""
        with self._changed:
            if not self._running and not self._embeddings:
                self._changed.wait_for(
                    lambda: self._arrived or self._waiting or self._embeddings or self._asked or self._is_closed
                )
            while self._arrived:
                self._waiting.append(self._arrived.popleft())
        if self._is_closed:
            return
        self._tell()
        self._dismiss()
        self._admit()
        if not self._running and not self._embeddings:
            if self._waiting:  # for a slot that is kept
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._arrived or self._embeddings or self._asked or self._is_closed, KEPT_S / 8
                    )
            return
        began_s = time.perf_counter()
        busy = list(dict.fromkeys(self._running.values()))
        n_writing = sum(loaded.lanes.n_writing for loaded in busy)
        for loaded in busy:
            self._book(loaded.lanes.advance(n_writing))
        if self._embeddings:
            self._embed()
        self._statistics.add(busy_s=time.perf_counter() - began_s)

    def _tell(self) -> None:
        """Give a reading to those who asked for one."""
        while self._asked:
            running = set(self._running.values())
            reading = Measured(
                counts=self._statistics.read(),
                slots=self._slots,
                slots_busy=len(self._running),
                threads=max((loaded.lanes.threads for loaded in running), default=0),
                sequences=tuple(one for loaded in running for one in loaded.lanes.slots_now()),
            )
            self._asked.popleft().set_result(reading)

    def _embed(self) -> None:
        """One batch for the first of those who want vectors, and for those of its model that fit in; who had a part and
        isn't done goes behind the others, so that one with few texts soon has them.
        """
        with self._changed:
            waiting = list(self._embeddings)
        for embedding, _ in waiting:
            if embedding.cancelled.is_set():
                embedding.fail(BenchError("the texts' embedding was cancelled", code="cancelled"))
        first, its = waiting[0]
        served: list[Embedding] = []
        if not first.future.done():
            try:
                jobs = [one for one, loaded in waiting if loaded is its and not one.future.done()]
                served = advance(jobs, its.encoder(self._threads))
            except Exception as error:  # noqa: BLE001 - the future's owner gets it
                first.fail(error)
        with self._changed:
            left = [pair for pair in self._embeddings if not pair[0].future.done()]
            self._embeddings.clear()
            self._embeddings.extend(sorted(left, key=lambda pair: pair[0] in served))
        for embedding, loaded in waiting:
            if embedding.future.done():
                self._shelf.give_back(loaded)

    def _dismiss(self) -> None:
        """End those who wait and were cancelled, and those whose answer was settled before the model was asked."""
        waiting, self._waiting = self._waiting, []
        for job, loaded in waiting:
            try:
                result = self._settled(job)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this job's alone
                job.fail(error, self._clock())
            else:
                if result is None:
                    self._waiting.append((job, loaded))
                    continue
                job.end(result)
            self._shelf.give_back(loaded)

    def _settled(self, job: Job) -> Result | None:
        """What a job ends with that needs no slot any more."""
        now_s = self._clock()
        interruption = job.interruption(now_s)
        if interruption is not None or job.answer.finish is None:
            return interruption
        job.begin(0, now_s)
        job.tell()
        return job.result(now_s)

    def _admit(self) -> None:
        """Give slots to those who wait: first where one is kept for them, then in their order.

        One that finds none makes later ones of its size and model wait, too; past one that waits for a lane come only
        those of its model that end sooner than what it waits for. What makes the others wait for long is left to the
        next round: a lane that is made, or sequences that are moved.
        """
        waiting, self._waiting = sorted(self._waiting, key=lambda one: not one[1].lanes.keeps(one[0])), []
        full, behind = set[tuple[Loaded, int]](), set[Loaded]()
        began_s = time.perf_counter()
        for place, (job, loaded) in enumerate(waiting):
            if self._running and time.perf_counter() - began_s > MOVING_S:
                self._waiting += waiting[place:]
                return
            try:
                kind = loaded, loaded.lanes.size(job)
                wait = Wait() if kind in full else loaded.lanes.admit(job, is_behind=loaded in behind)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this job's alone
                job.fail(error, self._clock())
                self._shelf.give_back(loaded)
                continue
            if wait is None:
                self._running[job] = loaded
                self._statistics.add(requests=1)
                continue
            full.add(kind)
            if wait.for_lane:
                behind.add(loaded)
            self._waiting.append((job, loaded))

    def _book(self, ended: Sequence[Job]) -> None:
        for job in ended:
            self._statistics.ended(job.usage)
            self._shelf.give_back(self._running.pop(job))

    def _fail_all(self, error: BaseException) -> None:
        """Something that nobody foresaw: whoever runs gets the error, and the lanes begin anew."""
        running, self._running = self._running, {}
        for job in running:
            job.fail(error, self._clock())
        for loaded in set(running.values()):
            loaded.lanes.close()
        for loaded in running.values():
            self._shelf.give_back(loaded)
