"""The engine: requests in, completions out, many at a time, on one thread that owns every llama.cpp context.

It knows requests, in the order they came; it doesn't know tasks, leases or pipes. A request's tokens and its grammar
are made in the caller's thread; then it waits for a slot. The engine's thread takes rounds: it admits who fits, and
every running request gets on.

Invariant: each submitted request's future gets exactly one result, whatever happens: a `Completion`, the `Weights` of
its options, or a `Failure` with what had been spent by then; a bug becomes an exception. Between any two calls of
llama.cpp a request can be cancelled or run out of time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from edge.cpu import cpu_sets
from edge.engine.embedding import Embedding, Vectors, advance
from edge.engine.encoding import begin, encode_texts
from edge.engine.job import Completion, Job, OnText, Request, Result, Weights, failure_of
from edge.engine.lane import KEPT_S
from edge.engine.lanes import Lanes
from edge.engine.llama import Model, build, default_threads, gpu_free_bytes, offloads
from edge.engine.memory import available_bytes, gpu_room
from edge.engine.pairs import encode_pairs
from edge.engine.room import Wait
from edge.engine.shelf import Loaded, Place, Shelf
from edge.engine.statistics import Statistics
from edge.engine.tuning import UNTUNED, Tuning
from edge.slowness import warned
from gx.core.errors import BenchError, GxError
from gx.core.message import Counts, Message, ModelCard
from gx.core.protocol import Measured

T = TypeVar("T")
__all__ = ["Completion", "Engine", "Request", "Result", "Weights", "failure_of"]

MOST_SLOTS = 256
"""llama.cpp's LLAMA_MAX_SEQ."""
DEFAULT_SLOTS = 32
"""So many rows of a decode keep a few cores busy; more gain little."""


class Engine:
    """Runs requests on models that it loads when they are first used.

    `slots` is how many run at a time in each lane, 256 at most; `cache_bytes` what their keys and values may take of
    the memory, per model, None a quarter of what is free, or half of what is free on a GPU; `threads` None takes the
    cores that the process may use; `context_tokens` None takes the model's own up to 8,192. `tuning_of` says for a
    model, by its digest and the path of its file, how it was found to be the fastest; given threads count more.
    """

    def __init__(
        self,
        *,
        threads: int | None = None,
        context_tokens: int | None = None,
        slots: int = DEFAULT_SLOTS,
        cache_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        tuning_of: Callable[[str, str], Tuning] = lambda digest, path: UNTUNED,
    ) -> None:
        if not 1 <= slots <= MOST_SLOTS:
            raise BenchError(f"expected 1 to {MOST_SLOTS} slots, got {slots}")
        self.slots, self.build = slots, build()
        self._threads, self._clock = threads or default_threads(), clock
        self._given_threads, self._tuning_of = threads, tuning_of
        room = gpu_room(gpu_free_bytes()) if offloads() else None
        most_bytes = available_bytes() // 4 if room is None else room // 2
        self._cache_bytes = most_bytes if cache_bytes is None else cache_bytes
        self._statistics = Statistics()
        self._shelf = Shelf(
            self._lanes,
            context_tokens=context_tokens,
            budget_bytes=room,
            is_gpu=room is not None,
            cache_bytes=self._cache_bytes,
            least_cache_bytes=self._cache_bytes // 4,
        )
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
        return f"<Engine {state}>"

    def register(
        self, digest: str, path: str, context_tokens: int | None = None, adapters: tuple[tuple[str, float], ...] = ()
    ) -> None:
        """Say where a model's file is, and its LoRA adapters, (path, strength) each; it is loaded when first used."""
        self._shelf.register(digest, Place(path=path, context_tokens=context_tokens, adapters=adapters))

    def describe(self, digest: str) -> ModelCard:
        """Load a model where it isn't, and describe it. :raises ModelError: if it can't be loaded."""
        with self._shelf.borrow(digest) as loaded:
            return warned(loaded.card, build=self.build, has=cpu_sets())

    def count(
        self, digest: str, chats: Sequence[tuple[Message, ...]], *, cancelled: threading.Event | None = None
    ) -> tuple[int, ...]:
        """The prompt tokens of each chat. Runs in the caller's thread, beside whatever is being decoded.

        :raises ModelError: if the model can't be loaded.
        :raises BenchError: (code "cancelled") if `cancelled` is set before there is room for it.
        :raises GxError: (code "template") if its chat template refuses a chat.
        """
        left = cancelled or threading.Event()
        with self._shelf.borrow(digest, gives_up=left.is_set) as loaded:
            return tuple(len(loaded.model.encode(chat)) for chat in chats)

    def statistics(self) -> Counts:
        """What was done so far; a reading may be a call behind."""
        return self._statistics.read()

    def measure(self) -> Future[Measured]:
        """A reading between two rounds: whoever has a result by now is counted in it.

        :raises BenchError: if the engine is closed.
        """
        future: Future[Measured] = Future()
        future.set_running_or_notify_cancel()  # nobody who stops waiting for it may disturb the engine's thread
        with self._changed:
            self._check_open()
            self._asked.append(future)
            self._changed.notify()
        return future

    def hold(self, digest: str) -> Loaded | None:
        """Keep a model in memory, if it is there now; `let_go` or `submit` ends that."""
        return self._shelf.take_nowait(digest)

    def load(self, digest: str, cancelled: threading.Event) -> Loaded:
        """`hold`, but load it where it isn't there: it takes seconds, and waits for room.

        :raises ModelError: if it can't be loaded. :raises BenchError: if the engine is closed, or it was cancelled.
        """
        return self._shelf.take(digest, gives_up=cancelled.is_set)

    def let_go(self, held: Loaded) -> None:
        """Keep it in memory no longer for this caller."""
        self._shelf.give_back(held)

    def submit(
        self,
        request: Request,
        *,
        on_text: OnText | None = None,
        cancelled: threading.Event | None = None,
        held: Loaded | None = None,
    ) -> Future[Result]:
        """Encode a request, in the caller's thread, and queue it; its model is loaded, unless it was `held` for it.

        `on_text` is called on the engine's thread and must be quick; setting `cancelled` ends the request.

        :raises BenchError: if the engine is closed.
        """
        job = Job(request, on_text=on_text, cancelled=cancelled or threading.Event(), now_s=self._clock())
        try:
            loaded = held or self._shelf.take(request.model, gives_up=job.cancelled.is_set)
        except GxError as error:
            if isinstance(error, BenchError) and error.code != "cancelled":
                raise
            job.fail(error, self._clock())
            return job.future
        try:
            begin(job, loaded)
        except BaseException as error:
            self._shelf.give_back(loaded)
            if not isinstance(error, GxError):
                raise
            job.fail(error, self._clock())
            return job.future
        self._queue(self._arrived, (job, loaded))
        return job.future

    def embed(
        self, digest: str, texts: Sequence[str], *, is_normalized: bool = True, cancelled: threading.Event | None = None
    ) -> Future[Vectors]:
        """The vectors of some texts, [n_texts, dimensions] float32.

        They are computed in batches, between the rounds of whatever is being written.

        :raises ModelError: if the model can't be loaded, or is no embedding model.
        :raises GxError: (code "context") if a text is longer than the model takes. :raises BenchError: if closed.
        """
        left = cancelled or threading.Event()
        with self._taken(digest, left) as loaded:
            tokens = encode_texts(texts, loaded)
        embedding = Embedding(tokens, is_normalized=is_normalized, cancelled=left)
        self._queue(self._embeddings, (embedding, loaded))
        return embedding.future

    def rank(
        self, digest: str, question: str, passages: Sequence[str], *, cancelled: threading.Event | None = None
    ) -> Future[Vectors]:
        """What a reranker gives for each passage, [n_passages, n_outputs] float32; the first output is its score.

        They are computed as vectors are. A larger score answers the question better; it is as the model's file has it.

        :raises ModelError: if the model can't be loaded, or is no reranker. :raises BenchError: if closed.
        :raises GxError: (code "question") if the question leaves no room for a passage.
        """
        left = cancelled or threading.Event()
        with self._taken(digest, left) as loaded:
            pairs = encode_pairs(question, passages, loaded)
        ranking = Embedding(pairs.tokens, is_normalized=False, cancelled=left, starts=pairs.starts)
        self._queue(self._embeddings, (ranking, loaded))
        return ranking.future

    @contextmanager
    def _taken(self, digest: str, cancelled: threading.Event) -> Iterator[Loaded]:
        """A model in use, also after the block, unless an error leaves it."""
        loaded = self._shelf.take(digest, gives_up=cancelled.is_set)
        try:
            yield loaded
        except BaseException:
            self._shelf.give_back(loaded)
            raise

    def _queue(self, queue: deque[tuple[T, Loaded]], item: tuple[T, Loaded]) -> None:
        """Hand something over to the engine's thread. :raises BenchError: if that has ended, and took its models."""
        with self._changed:
            if not self._is_closed:
                queue.append(item)
                self._changed.notify()
                return
        self._shelf.give_back(item[1])
        self._check_open()

    def _check_open(self) -> None:
        if self._is_closed:
            raise BenchError("the engine is closed")

    def close(self) -> None:
        """End the thread, failing what is queued or running as cancelled, and free the models."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()
        self._shelf.close()

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
            job.end(job.interruption(self._clock()) or failure_of(BenchError("the engine is closed")))
            self._shelf.give_back(loaded)
        for embedding, loaded in self._embeddings:
            embedding.future.set_exception(BenchError("the engine is closed"))
            self._shelf.give_back(loaded)

    def _round(self) -> None:
        """Take what arrived, admit who fits, and get everybody on."""
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
                    self._changed.wait_for(lambda: self._arrived or self._asked or self._is_closed, KEPT_S / 8)
            return
        began_s = time.perf_counter()
        busy = list(dict.fromkeys(self._running.values()))
        n_writing = sum(loaded.lanes.n_writing for loaded in busy)
        for loaded in busy:
            self._let_go(loaded.lanes.advance(n_writing))
        if self._embeddings:
            self._embed()
        self._statistics.add(busy_s=time.perf_counter() - began_s)

    def _tell(self) -> None:
        """Give a reading to those who asked for one."""
        while self._asked:
            running = set(self._running.values())
            reading = Measured(
                counts=self._statistics.read(),
                slots=self.slots,
                slots_busy=len(self._running),
                threads=max((loaded.lanes.threads for loaded in running), default=0),
                sequences=tuple(one for loaded in running for one in loaded.lanes.sequences()),
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
        first, model = waiting[0]
        served: list[Embedding] = []
        if not first.future.done():
            try:
                jobs = [one for one, loaded in waiting if loaded is model and not one.future.done()]
                served = advance(jobs, model.encoder(self._threads))
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
        kept = []
        for job, loaded in self._waiting:
            now_s = self._clock()
            result: Result | None = job.interruption(now_s)
            if result is None and job.writing.finish is not None:
                job.begin(0, now_s)
                result = job.result(now_s)
            if result is None:
                kept.append((job, loaded))
            else:
                job.end(result)
                self._shelf.give_back(loaded)
        self._waiting = kept

    def _admit(self) -> None:
        """Give slots to those who wait: first where one is kept for them, then in their order.

        Who finds none holds up those of the same size and model, and who waits for a lane, what would keep it waiting.
        """
        waiting, self._waiting = sorted(self._waiting, key=lambda one: not one[1].lanes.keeps(one[0])), []
        full, behind = set[tuple[Loaded, int]](), set[Loaded]()
        for job, loaded in waiting:
            kind = loaded, loaded.lanes.size(job)
            try:
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

    def _let_go(self, ended: Sequence[Job]) -> None:
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

    def _lanes(self, model: Model, context_tokens: int) -> Lanes:
        tuning = self._tuning_of(model.digest, model.path)
        return Lanes(
            model,
            context_tokens=context_tokens,
            n_slots=self.slots,
            budget_tokens=self._shelf.cache_of(model.digest) // model.token_bytes,
            threads=self._given_threads or tuning.threads or self._threads,
            statistics=self._statistics,
            now=self._clock,
            tuning=tuning,
        )
