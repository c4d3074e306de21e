"""The engine: requests in, completions out, on one thread that owns every llama.cpp context.

It knows requests, in the order they came; it doesn't know tasks, leases or pipes. At present it runs one sequence at
a time. Its interface is the one that many at a time will have: `submit` gives a future, and text comes by a callback.

Invariant: each submitted request's future gets exactly one result, whatever happens: a `Completion`, or a `Failure`
with what had been spent by then. Between any two tokens a request can be cancelled or run out of time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal

import msgspec

from edge.engine.llama import Tokens, build, default_threads
from edge.engine.sequence import Writing
from edge.engine.shelf import Loaded, Place, Shelf
from gx.core.errors import BenchError, GxError
from gx.core.message import Failure, Message, ModelCard, Sampling, Usage, Value

# An answer with less room than this isn't worth a prompt: the turn is refused instead of cut.
LEAST_ANSWER_TOKENS = 16

OnText = Callable[[str, int], None]  # the text that became certain, and the tokens of the answer so far


class Request(Value, frozen=True, kw_only=True):
    """What to write, and on which model (its digest). `timeout_s` counts from when the engine begins it."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    output_schema: dict[str, Any] | None = None
    timeout_s: float | None = None


class Completion(Value, frozen=True, kw_only=True):
    """What was written. With an output schema `text` is a whole document that fits it, and `finish` is "stop"."""

    text: str
    finish: Literal["stop", "length"]
    usage: Usage


Result = Completion | Failure


def failure_of(error: GxError, usage: Usage = Usage()) -> Failure:  # noqa: B008 - a frozen value
    """An error as the value that crosses processes. Only the engine's own trouble (`BenchError`) is worth a retry."""
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    return Failure(code=error.code, message=message, retryable=isinstance(error, BenchError), usage=usage)


class Engine:
    """Runs requests on models that it loads when they are first used, at most two at a time in memory.

    `threads` None takes the cores that the process may use; `context_tokens` None takes the model's own up to 8,192.
    """

    def __init__(
        self,
        *,
        threads: int | None = None,
        context_tokens: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots, self.build = 1, build()
        self._clock = clock
        self._shelf = Shelf(threads=threads or default_threads(), context_tokens=context_tokens)
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    def register(self, digest: str, path: str, context_tokens: int | None = None) -> None:
        """Say where a model's file is; it is loaded when it is first used."""
        self._shelf.register(digest, Place(path=path, context_tokens=context_tokens))

    def describe(self, digest: str) -> ModelCard:
        """Load a model where it isn't, and describe it. :raises ModelError: if it can't be loaded."""
        with self._shelf.borrow(digest) as loaded:
            return loaded.card

    def count(self, digest: str, chats: Sequence[tuple[Message, ...]]) -> tuple[int, ...]:
        """The prompt tokens of each chat. Runs in the caller's thread, beside whatever is being decoded.

        :raises ModelError: if the model can't be loaded.
        :raises GxError: (code "template") if its chat template refuses a chat.
        """
        with self._shelf.borrow(digest) as loaded:
            return tuple(len(loaded.model.encode(chat)) for chat in chats)

    def submit(
        self, request: Request, *, on_text: OnText | None = None, cancelled: threading.Event | None = None
    ) -> Future[Result]:
        """Queue a request. `on_text` is called on the engine's thread and must be quick; setting `cancelled` ends it.

        :raises BenchError: if the engine is closed.
        """
        job = _Job(request, on_text, cancelled or threading.Event(), self._clock())
        with self._changed:
            if self._is_closed.is_set():
                raise BenchError("the engine is closed")
            self._waiting.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """End the thread, failing what is queued or running as cancelled, and free the models."""
        with self._changed:
            self._is_closed.set()
            self._changed.notify()
        self._thread.join()
        self._shelf.close()

    def _serve(self) -> None:
        """The engine thread's whole life."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed.is_set())
                if not self._waiting:
                    return
                job = self._waiting.popleft()
            try:
                job.future.set_result(self._run(job))
            except BaseException as error:  # noqa: BLE001 - the future's owner gets it, and this thread lives on
                job.future.set_exception(error)

    def _run(self, job: _Job) -> Result:
        try:
            with self._shelf.borrow(job.request.model) as loaded:
                job.begin(self._clock())  # from here on, its time runs: loading a model isn't its fault
                try:
                    return self._interruption(job) or self._write(job, loaded)
                except BaseException:
                    loaded.context.clear()  # whatever went wrong, the next request begins from what is known
                    raise
        except GxError as error:
            return failure_of(error, job.usage)

    def _write(self, job: _Job, loaded: Loaded) -> Result:
        """Write one answer: prefill what the cache doesn't hold, then draw and decode until it is over."""
        request, model, context = job.request, loaded.model, loaded.context
        if not request.messages:
            raise GxError("a turn needs at least one message, and this one has none", code="empty")
        prompt = model.encode(request.messages)
        job.usage = msgspec.structs.replace(job.usage, tokens_in=len(prompt))
        writing = Writing(
            prompt,
            limit_tokens=_limit(prompt, request.sampling.max_tokens, context.context_tokens),
            sampling=request.sampling,
            constraint=None if request.output_schema is None else loaded.grammars.constraint(request.output_schema),
            piece=model.piece,
            eog=model.eog,
        )
        kept = context.reuse(writing.pending) if writing.finish is None else 0
        job.usage = msgspec.structs.replace(job.usage, tokens_cached=min(kept, len(prompt)))
        fresh = writing.pending[kept:]
        while writing.finish is None:
            row = context.decode(fresh, lambda: self._interruption(job) is not None)
            job.mark(writing.tokens_out, self._clock())
            stopped = self._interruption(job)
            if stopped is not None or row is None:
                return stopped or failure_of(BenchError("a decode stopped though nothing had asked for it"), job.usage)
            writing.advance(row)
            fresh = writing.pending
            if job.on_text is not None:
                job.on_text(writing.fresh_text(), writing.tokens_out)
            self._answer_cancelled()
        job.mark(writing.tokens_out, self._clock())
        truncation = writing.truncation(request.sampling.max_tokens)
        if truncation is not None:
            return msgspec.structs.replace(truncation, usage=job.usage)
        return Completion(text=writing.text, finish=writing.finish, usage=job.usage)

    def _interruption(self, job: _Job) -> Failure | None:
        """Why a job must end now, if it must."""
        if job.cancelled.is_set() or self._is_closed.is_set():
            return job.cancellation()
        timeout_s = job.request.timeout_s
        if timeout_s is None or self._clock() - job.begun_s < timeout_s:
            return None
        usage = job.usage
        done = f"{usage.tokens_out} tokens of the answer" if usage.tokens_out else "none of the answer"
        return Failure(
            code="timeout",
            message=f"the turn ran longer than {timeout_s:g} s: {usage.tokens_in} prompt tokens, and {done}, were done",
            usage=usage,
        )

    def _answer_cancelled(self) -> None:
        """Let go of queued requests that were cancelled: they needn't wait for the running one."""
        if not self._waiting:
            return
        with self._changed:
            gone = [job for job in self._waiting if job.cancelled.is_set()]
            for job in gone:
                self._waiting.remove(job)
        for job in gone:
            job.future.set_result(job.cancellation())


class _Job:
    """A request on its way, and what it has taken so far."""

    def __init__(self, request: Request, on_text: OnText | None, cancelled: threading.Event, now_s: float) -> None:
        self.request, self.on_text, self.cancelled = request, on_text, cancelled
        self.future: Future[Result] = Future()
        self.usage = Usage()
        self.queued_s = self.begun_s = self.prefilled_s = now_s

    def begin(self, now_s: float) -> None:
        self.begun_s = now_s
        self.usage = Usage(queue_ms=(now_s - self.queued_s) * 1000)

    def mark(self, tokens_out: int, now_s: float) -> None:
        """Note the answer's length. Time until the first row of logits is prefill, time after it is decode."""
        if not self.usage.prefill_ms:
            self.prefilled_s = now_s
        self.usage = msgspec.structs.replace(
            self.usage,
            tokens_out=tokens_out,
            prefill_ms=(self.prefilled_s - self.begun_s) * 1000,
            decode_ms=(now_s - self.prefilled_s) * 1000,
        )

    def cancellation(self) -> Failure:
        return Failure(code="cancelled", message="the turn was cancelled", retryable=False, usage=self.usage)


def _limit(prompt: Tokens, max_tokens: int, context_tokens: int) -> int:
    """How long the answer may get. :raises GxError: (code "context") if it has too little room."""
    left = context_tokens - len(prompt)
    if max_tokens <= left:
        return max_tokens
    if left >= LEAST_ANSWER_TOKENS:
        return left
    raise GxError(
        f"the prompt doesn't fit: {len(prompt)} prompt tokens and max_tokens {max_tokens} are more than the context of "
        f"{context_tokens} tokens",
        code="context",
        hint="shorten the prompt, split the input, or give the model a longer context",
    )
