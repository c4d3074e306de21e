"""One run on its way to one collector: what its events made is read from the log, packed, written down, and posted.

The log is the queue: no more is read than may wait here, and what a collector doesn't take stays there. What leaves is
an event before it does; from these events whoever comes next knows what has arrived.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice

import anyio
import anyio.to_thread

from gx.core import event as e
from gx.core.bodies.telemetry import Sort
from gx.core.errors import LogError
from gx.core.ids import digest
from gx.flow.plan import Plan
from gx.otel.collector import Collector, Receiver, destination
from gx.otel.measuring import Measures
from gx.otel.tracing import Tracer
from gx.otel.values import Span
from gx.run.log import EventLog

BATCH = 512
"""Spans of one request, as in OpenTelemetry's own batches."""
MOST_WAITING = 4 * BATCH
PAGE = 2000
"""Events that are read at a time."""
METRICS_EVERY_S = 15.0

_ABOUT_SENDING = (e.TelemetryLeaves, e.TelemetryEnded, e.NoticeLeaves, e.NoticeEnded)
"""Events that change nothing of what is told: else what is sent would be news that is to be sent."""

_SORTS: tuple[Sort, ...] = ("traces", "metrics")

Commit = Callable[[list[e.Body]], Awaitable[None]]


class Delivery:
    """Brings what the events of `run` make; `arrived` counts spans.

    What events up to `after` made had arrived at this collector before; `monotonic` paces the metrics.
    """

    def __init__(
        self,
        run: str,
        plan: Plan,
        collector: Collector,
        log: EventLog,
        *,
        commit: Commit,
        monotonic: Callable[[], float],
        after: int = -1,
    ) -> None:
        self._run, self._log, self._commit, self._monotonic = run, log, commit, monotonic
        self._collector, self._resource = collector, collector.resource(run)
        self._tracer = Tracer(plan)
        self._measures = Measures(self._tracer)
        self._waiting = deque[Span]()
        self._seen, self._upto = -1, after
        self._is_closed: dict[Sort, bool] = {sort: collector.receiver(sort) is None for sort in _SORTS}
        self._errors: dict[Sort, str] = {}
        self._measured, self._metrics_at = 0, monotonic()
        self._dropped = self.arrived = 0

    @property
    def to(self) -> str:
        """Where it goes, as it is written down."""
        return self._collector.to

    @property
    def error(self) -> str:
        """Why something did not arrive, so far."""
        return "; ".join(f"{sort}: {error}" for sort, error in self._errors.items())

    def ended(self) -> e.TelemetryEnded:
        """How it stands, once no more is sent."""
        return e.TelemetryEnded(
            run=self._run,
            to=self.to,
            arrived=self.arrived,
            left=self._dropped + len(self._waiting),
            upto=self._upto,
            error=self.error,
        )

    async def advance(self, *, is_last: bool = False) -> bool:
        """Read what is new and send what is due, all of it if it `is_last`. False: the collector takes nothing now."""
        while True:
            is_more = await anyio.to_thread.run_sync(self._read)
            while self._waiting:
                batch = list(islice(self._waiting, BATCH))
                if not await self._send_spans(batch):
                    return False
                for _ in batch:
                    self._waiting.popleft()
                is_whole = not self._waiting or self._waiting[0].seq > batch[-1].seq
                if is_whole and not self._is_closed["traces"]:
                    self._upto = batch[-1].seq
            if not is_more:
                return await self._send_metrics(is_last=is_last)

    async def count_left(self) -> None:
        """Give up: what is not sent is counted, to the last event."""
        self._is_closed = dict.fromkeys(self._is_closed, True)
        self._dropped += len(self._waiting)
        self._waiting.clear()
        while await anyio.to_thread.run_sync(self._read):
            self._dropped += len(self._waiting)
            self._waiting.clear()
        self._dropped += len(self._waiting)
        self._waiting.clear()
        if self._dropped and not self._errors and self._collector.traces is not None:
            self._errors["traces"] = "the time to send it was over"

    def _read(self) -> bool:
        """Fold the next events, unless enough is waiting; whether there may be more."""
        if len(self._waiting) >= MOST_WAITING:
            return True
        count = 0
        try:
            for event in islice(self._log.read(run=self._run, after=self._seen, batch=PAGE), PAGE):
                count, self._seen = count + 1, event.seq
                if isinstance(event.body, _ABOUT_SENDING):
                    continue
                spans = self._tracer.take(event)
                self._measures.take(event, spans)
                self._waiting.extend(span for span in spans if span.seq > self._upto)
        except LogError:  # it is opened again, or closed: whoever writes to it is told
            return False
        return count == PAGE

    async def _send_spans(self, batch: list[Span]) -> bool:
        """Whether these are done with: they arrived, or never will."""
        if self._is_closed["traces"]:
            self._dropped += len(batch) * (self._collector.traces is not None)
            return True
        from gx.otel import otlp

        fields = {name for span in batch for name in span.attributes}
        body = await anyio.to_thread.run_sync(otlp.traces, batch, self._resource)
        is_done, rejected = await self._send("traces", body, len(batch), fields, batch[-1].seq)
        if is_done:
            self.arrived, self._dropped = self.arrived + len(batch) - rejected, self._dropped + rejected
        return is_done

    async def _send_metrics(self, *, is_last: bool) -> bool:
        now = self._measures.now
        is_due = is_last or self._monotonic() >= self._metrics_at
        if self._is_closed["metrics"] or not is_due or now == self._measured:
            return True
        body, names = await anyio.to_thread.run_sync(self._measure)
        is_done, _ = await self._send("metrics", body, len(names), names, self._seen)
        if is_done:
            self._measured, self._metrics_at = now, self._monotonic() + METRICS_EVERY_S
        return is_done

    def _measure(self) -> tuple[bytes, set[str]]:
        """The metrics as they leave, and their names."""
        from gx.otel import otlp

        made = self._measures.metrics()
        body = otlp.metrics(made, self._resource, start=self._measures.began, at=self._measures.now)
        return body, {metric.name for metric in made}

    async def _send(self, sort: Sort, body: bytes, count: int, fields: set[str], upto: int) -> tuple[bool, int]:
        """Whether it is done with, and how many of it did not arrive."""
        from gx.otel import otlp
        from gx.otel.post import packed, post

        receiver = self._collector.receiver(sort)
        assert receiver is not None
        leaving = packed(body, receiver)
        with anyio.CancelScope(shield=True):  # what is written must be folded
            await self._commit([self._leaves(sort, receiver, leaving, count, fields, upto)])
        answer = await post(receiver, leaving)
        if answer.error:
            self._errors[sort] = answer.error
            self._is_closed[sort] = not answer.may_help
            return self._is_closed[sort], count
        rejected = min(otlp.rejected(sort, answer.answer), count)
        self._errors.pop(sort, None)
        if rejected:
            self._errors[sort] = f"{rejected} of {count} were rejected"
        return True, rejected

    def _leaves(
        self, sort: Sort, receiver: Receiver, body: bytes, count: int, fields: set[str], upto: int
    ) -> e.TelemetryLeaves:
        return e.TelemetryLeaves(
            run=self._run,
            sort=sort,
            to=destination(receiver),
            count=count,
            fields=tuple(sorted(fields)),
            bytes=len(body),
            digest=digest(body),
            after=self._upto,
            upto=upto,
        )


class RunTelemetry:
    """How a live run is told of, as its clients hear of it. `delivery` is None until it has begun."""

    def __init__(self, run: str) -> None:
        self._run = run
        self.delivery: Delivery | None = None

    @property
    def notes(self) -> list[str]:
        """What a person should know of it, in a sentence: nothing while all goes well."""
        if self.delivery is None or not self.delivery.error:
            return []
        again = f"what is missing can be sent later: gx export {self._run} --to otlp"
        return [f"OpenTelemetry: not all arrived at {self.delivery.to} ({self.delivery.error}); {again}"]
