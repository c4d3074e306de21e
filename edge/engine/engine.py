"""The engine: requests in, completions out, many at a time. It may be called from any thread.

It knows requests and models; it doesn't know tasks, leases or pipes. A request's tokens and its grammar are made in the
caller's thread, which may take a while; then it waits for a slot, and `rounds` has the one thread that decodes.

Invariant: each submitted request's future gets exactly one result, whatever happens: a `Completion`, the `Weights` of
its options, or a `Failure` with what had been spent by then; a bug becomes an exception. Once a round, before its
calls, each request is asked whether it was cancelled or ran out of time, so a round is the longest that either takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

from edge.cpu import cpu_sets, default_threads
from edge.engine.embedding import Embedding, Vectors
from edge.engine.encoding import encode_request, encode_texts
from edge.engine.job import Completion, Job, OnText, Request, Result, Weights, failure_of
from edge.engine.lanes import Lanes
from edge.engine.llama import Model, build, gpu_free_bytes, offloads
from edge.engine.loaded import Loaded, Place
from edge.engine.memory import available_bytes, gpu_room
from edge.engine.pairs import encode_pairs
from edge.engine.rounds import Rounds
from edge.engine.shelf import Shelf
from edge.engine.statistics import Statistics
from edge.engine.tuning import UNTUNED, Tuning
from edge.slowness import warned
from gx.core.errors import BenchError, GxError
from gx.core.message import Counts, Message, ModelCard
from gx.core.protocol import Measured

__all__ = ["Completion", "Engine", "Request", "Result", "Weights", "failure_of"]

MOST_SLOTS = 256
"""llama.cpp's LLAMA_MAX_SEQ."""
DEFAULT_SLOTS = 32
"""So many rows of a decode keep a few cores busy; more gain little."""


class Engine:
    """Runs requests on models that it loads when they are first used.

    `slots` is how many run at a time in each lane, 256 at most; `cache_bytes` what their keys and values may take of
    the memory, per model, None a quarter of what is free, or half of what is free on a GPU; `threads` None takes the
    cores that the process may use, as far as a container's limit has time for them; `context_tokens` None takes the
    model's own up to 8,192. `tuning_of` says for a model, by its digest and the path of its file, how it was found to
    be the fastest; given threads count more.
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
        cache_bytes = most_bytes if cache_bytes is None else cache_bytes
        self._statistics = Statistics()
        self._shelf = Shelf(
            self._make_lanes,
            context_tokens=context_tokens,
            budget_bytes=room,
            is_gpu=room is not None,
            cache_bytes=cache_bytes,
            least_cache_bytes=cache_bytes // 4 if room is None else 0,  # to swap models on a GPU costs more
        )
        self._rounds = Rounds(self._shelf, self._statistics, slots=slots, threads=self._threads, clock=clock)

    def __repr__(self) -> str:
        return f"<Engine {self._rounds} {self._shelf}>"

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
        return self._rounds.measure()

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
        waited_s: float = 0.0,
    ) -> Future[Result]:
        """Encode a request, in the caller's thread, and queue it; its model is loaded, unless it was `held` for it.

        `on_text` is called on the engine's thread and must be quick; setting `cancelled` ends the request. It has
        `waited_s` by now, which counts as waiting for a slot.

        :raises BenchError: if the engine is closed.
        """
        cancelled, asked_s = cancelled or threading.Event(), self._clock() - waited_s
        job = Job(request, on_text=on_text, cancelled=cancelled, now_s=asked_s)
        try:
            loaded = held or self._shelf.take(request.model, gives_up=job.cancelled.is_set)
        except GxError as error:
            if not isinstance(error, BenchError):
                job.fail(error, self._clock())
            elif error.code == "cancelled":
                job.end(job.cancellation(self._clock()))
            else:
                raise
            return job.future
        try:
            encode_request(job, loaded)
        except BaseException as error:
            self._shelf.give_back(loaded)
            if not isinstance(error, GxError):
                raise
            job.fail(error, self._clock())
            return job.future
        self._rounds.queue(job, loaded)
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
        self._rounds.embed(embedding, loaded)
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
        self._rounds.embed(ranking, loaded)
        return ranking.future

    def close(self) -> None:
        """End the thread and what is under way, as `Rounds.close` says, and free the models."""
        self._rounds.close()
        self._shelf.close()

    @contextmanager
    def _taken(self, digest: str, cancelled: threading.Event) -> Iterator[Loaded]:
        """A model in use, also after the block, unless an error leaves it."""
        loaded = self._shelf.take(digest, gives_up=cancelled.is_set)
        try:
            yield loaded
        except BaseException:
            self._shelf.give_back(loaded)
            raise

    def _make_lanes(self, model: Model, context_tokens: int, cache_bytes: int) -> Lanes:
        tuning = self._tuning_of(model.digest, model.path)
        return Lanes(
            model,
            context_tokens=context_tokens,
            n_slots=self.slots,
            budget_tokens=cache_bytes // model.token_bytes,
            threads=self._given_threads or tuning.threads or self._threads,
            statistics=self._statistics,
            now=self._clock,
            tuning=tuning,
        )
