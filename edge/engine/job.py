"""A request on its way through the engine: what it asks for, what it has taken so far, and how it ends.

It knows instants that it is given, and reads no clock. Invariant: its future gets exactly one result.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal

import msgspec

from edge.engine.llama import Rows, Wanted
from edge.engine.scoring import Scoring
from edge.engine.shapes import Shape
from edge.engine.writing import Writing
from gx.core.errors import BenchError, GxError
from gx.core.message import Failure, Message, Sampling, TokenLogprob, Usage, Value
from gx.core.protocol import SlotNow

OnText = Callable[[str, int], None]
"""Gets the text that became certain, and the number of tokens of the answer so far; first as the request begins."""
PACE_S = 0.25
"""What a sequence takes to show a pace: one that has just begun got what its schema forces all at once."""


class Request(Value, frozen=True, kw_only=True):
    """What to write, and on which model (its digest). `timeout_s` counts from when the engine begins it.

    The answer continues `opening`, which counts as its beginning and isn't given back. With `options`, nothing is
    written: each of them is weighed as the continuation, and where they `are_whole`, as all of it. An answer that
    `ignores_end` goes on to `max_tokens`, so that measurements do equal work. Where a `conversation` `goes_on`, its
    next request will begin as this one does, and comes at once: its slot is kept for it.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    output_schema: dict[str, Any] | None = None
    constraint: Shape | None = None
    opening: str = ""
    options: tuple[str, ...] = ()
    are_whole: bool = False
    timeout_s: float | None = None
    ignores_end: bool = False
    conversation: str | None = None
    goes_on: bool = False


class Completion(Value, frozen=True, kw_only=True):
    """What was written. With a schema or a constraint all of `text` fits it, and `finish` is "stop".

    `logprobs`, where the sampling asks for them, are of every token that was written, also of a stop string's.
    """

    text: str
    finish: Literal["stop", "length"]
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()


class Weights(Value, frozen=True, kw_only=True):
    """How likely each option is after the prompt, and after what all options begin with.

    Natural logarithms of probabilities, in the order of the options.
    """

    log_likelihoods: tuple[float, ...]
    usage: Usage


Result = Completion | Weights | Failure
CANCELLED = Failure(code="cancelled", message="the turn was cancelled", retryable=False)


def failure_of(error: GxError, usage: Usage = Usage()) -> Failure:  # noqa: B008 - a frozen value
    """An error as the value that crosses processes. Only the engine's own trouble (`BenchError`) is worth a retry."""
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    return Failure(code=error.code, message=message, retryable=isinstance(error, BenchError), usage=usage)


class Job:
    """One request, asked at `now_s`. It is encoded, it waits, it begins, it advances, and it ends."""

    answer: Writing | Scoring
    need_tokens: int

    def __init__(self, request: Request, *, on_text: OnText | None, cancelled: threading.Event, now_s: float) -> None:
        self.request, self.on_text, self.cancelled = request, on_text, cancelled
        self.future: Future[Result] = Future()
        self.future.set_running_or_notify_cancel()  # from here on only `cancelled` ends it: one who sets, one way
        self.is_prefilled = False
        self.usage = Usage()
        self._queued_s = now_s
        self._begun_s: float | None = None
        self._prefilled_s = now_s

    def count_prompt(self, n_tokens: int) -> None:
        """The prompt has that many tokens."""
        self.usage = Usage(tokens_in=n_tokens)

    def encoded(self, answer: Writing | Scoring) -> None:
        """What it will come to: an answer to write, or options to weigh. `need_tokens` is the most that it may take."""
        self.answer, self.need_tokens = answer, self.usage.tokens_in + answer.limit_tokens

    def begin(self, cached_tokens: int, now_s: float) -> None:
        """It got a slot, whose cache holds that many tokens of its prompt. Its time runs from here on."""
        self._begun_s = now_s
        self.usage = msgspec.structs.replace(self.usage, queue_ms=(now_s - self._queued_s) * 1000)
        self.reuse(cached_tokens)

    def reuse(self, cached_tokens: int) -> None:
        """That many tokens of the prompt are in the cache, and needn't be computed."""
        self.usage = msgspec.structs.replace(self.usage, tokens_cached=min(cached_tokens, self.usage.tokens_in))

    @property
    def writes(self) -> bool:
        """Whether it is at its answer, a token a round: prompts and options are runs of tokens, decoded at once."""
        return self.is_prefilled and isinstance(self.answer, Writing)

    @property
    def weighs(self) -> bool:
        """Whether it is past its prompt and weighs options: of these, the logits of all tokens are wanted."""
        return self.is_prefilled and isinstance(self.answer, Scoring)

    def wanted(self, *, is_last: bool) -> Wanted:
        """Of which tokens of the next call it wants the logits; `is_last`: they are all that is pending."""
        if self.weighs:
            return "all"
        return "last" if is_last else "none"

    def advance(self, rows: Rows, best: Sequence[int], now_s: float) -> list[int]:
        """Go on by the logits that it wanted, [n_rows, n_vocab]; what is to be decoded next.

        `best` are the rows' likeliest tokens, [n_rows]. :raises GxError: if it can't go on.
        """
        if not self.is_prefilled:
            self.is_prefilled, self._prefilled_s = True, now_s
        if isinstance(self.answer, Scoring):
            return self.answer.advance(rows)
        tokens = self.answer.advance(rows[-1], best[-1])
        self.tell()
        return tokens

    def tell(self) -> None:
        """Give whoever listens the text that is new; as it begins there is none, but what a shape forces at once."""
        if self.on_text is not None:
            text = self.answer.fresh_text() if isinstance(self.answer, Writing) else ""
            self.on_text(text, self.answer.tokens_out)

    def slot_now(self, held_tokens: int, now_s: float) -> SlotNow:
        """How it stands; its slot's cache holds so many tokens of it."""
        begun_s, computed = self._begun_s, held_tokens - self.usage.tokens_cached
        if self.writes:
            begun_s, computed = self._prefilled_s, self.answer.tokens_out - 1  # the prefill gave the first one
        seconds = 0.0 if begun_s is None else now_s - begun_s
        return SlotNow(
            conversation=self.request.conversation or "",
            tokens=held_tokens,
            prompt_tokens=self.usage.tokens_in,
            tokens_out=self.answer.tokens_out,
            is_prefill=not self.writes,
            tokens_per_s=round(computed / seconds, 1) if seconds >= PACE_S and computed > 0 else None,
        )

    def interruption(self, now_s: float) -> Failure | None:
        """Why it must end now, if it must."""
        if self.cancelled.is_set():
            return self.cancellation(now_s)
        timeout_s = self.request.timeout_s
        if timeout_s is None or self._begun_s is None or now_s - self._begun_s < timeout_s:
            return None
        usage = self.settle_usage(now_s)
        done = f"{usage.tokens_out} tokens of the answer" if usage.tokens_out else "none of the answer"
        return Failure(
            code="timeout",
            message=f"the turn ran longer than {timeout_s:g} s: {usage.tokens_in} prompt tokens, and {done}, were done",
            usage=usage,
        )

    def cancellation(self, now_s: float) -> Failure:
        """Its end, where nobody wants it any more."""
        return msgspec.structs.replace(CANCELLED, usage=self.settle_usage(now_s))

    def result(self, now_s: float) -> Result:
        """What was written, as its result."""
        answer, usage = self.answer, self.settle_usage(now_s)
        if isinstance(answer, Scoring):
            return Weights(log_likelihoods=tuple(answer.log_likelihoods.tolist()), usage=usage)
        truncation = answer.truncation(self.request.sampling.max_tokens)
        if truncation is not None:
            return msgspec.structs.replace(truncation, usage=usage)
        return Completion(
            text=answer.text, finish=answer.finish or "length", usage=usage, logprobs=tuple(answer.logprobs)
        )

    def end(self, result: Result) -> None:
        """Give the result, once."""
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: BaseException, now_s: float) -> None:
        """Give an error as the result; one that nobody foresaw, as an exception."""
        if isinstance(error, GxError):
            self.end(failure_of(error, self.settle_usage(now_s)))
        elif not self.future.done():
            self.future.set_exception(error)

    def settle_usage(self, now_s: float) -> Usage:
        """Bring `usage` up to date, and give it. Until the first row of logits time is prefill, after it decode."""
        if self._begun_s is None:
            self.usage = msgspec.structs.replace(self.usage, queue_ms=(now_s - self._queued_s) * 1000)
            return self.usage
        prefilled_s = self._prefilled_s if self.is_prefilled else now_s
        self.usage = msgspec.structs.replace(
            self.usage,
            tokens_out=self.answer.tokens_out,
            prefill_ms=(prefilled_s - self._begun_s) * 1000,
            decode_ms=(now_s - prefilled_s) * 1000,
        )
        return self.usage
