"""Implementations of the ports for tests: a worker that answers at once, a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import msgspec

from gx.core.message import Answer, Message, ModelCard, Outcome, Turn, Usage
from gx.core.ports import AttemptEnded, BenchDown, BenchUp, WorkerEvent
from gx.core.task import Capacity, EdgeLease, Lease, Quote, Rate


def echo(turn: Turn) -> Outcome:
    """An answer that repeats the last message."""
    value = msgspec.Raw(msgspec.json.encode(turn.messages[-1].content))
    return Answer(value=value, usage=Usage(tokens_in=10, tokens_out=2))


class ScriptedWorker:
    """A worker whose `answer` says what each turn ends in; `None` leaves it running until it is cancelled or lost."""

    name = "edge"

    def __init__(
        self,
        answer: Callable[[Turn], Outcome | None] = echo,
        *,
        leases: int = 4,
        context: int = 2048,
        keeps_turns: bool = True,
    ) -> None:
        self.answer, self.leases, self.context, self.keeps_turns = answer, leases, context, keeps_turns
        self.epoch = self.incarnation = 1
        self.submitted: list[Turn] = []
        self.cancelled: list[tuple[str, int]] = []
        self.running: dict[str, Turn] = {}
        self.most_at_once = 0
        self._events: list[WorkerEvent] = []
        self._news = anyio.Event()

    async def __aenter__(self) -> ScriptedWorker:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        self._say(BenchUp(incarnation=self.incarnation, pid=1, slots=self.leases, engine="scripted"))

    async def aclose(self) -> None:
        self.running.clear()

    def capacity(self) -> Capacity:
        return Capacity(slots=self.leases, leases=self.leases)

    def lease(self) -> Lease | None:
        return EdgeLease(epoch=self.epoch, incarnation=self.incarnation)

    async def describe(self, model: str) -> ModelCard:
        return ModelCard(digest=model, path="", context_tokens=self.context)

    async def count(self, model: str, chats: Sequence[tuple[Message, ...]]) -> list[int]:
        return [sum(len(m.content) for m in chat) // 4 for chat in chats]

    def submit(self, turn: Turn) -> None:
        if self.keeps_turns:
            self.submitted.append(turn)
        self.running[turn.task] = turn
        self.most_at_once = max(self.most_at_once, len(self.running))
        if (outcome := self.answer(turn)) is not None:
            self.end(turn.task, outcome)

    def end(self, task: str, outcome: Outcome) -> None:
        """End a running attempt."""
        turn = self.running.pop(task)
        self._say(AttemptEnded(task=task, attempt=turn.attempt, outcome=outcome, ms=1.0))

    def die(self, reason: str = "killed by signal 9 (SIGKILL)") -> None:
        """The bench dies under what is running, and another one comes up."""
        self.running.clear()
        self._say(BenchDown(incarnation=self.incarnation, reason=reason))
        self.incarnation += 1
        self._say(BenchUp(incarnation=self.incarnation, pid=2, slots=self.leases, engine="scripted"))

    def cancel(self, task: str, attempt: int) -> None:
        from gx.core.message import Failure

        self.cancelled.append((task, attempt))
        if task in self.running:
            self.end(task, Failure(code="cancelled", message="cancelled"))

    def restart(self, reason: str) -> None:
        self.die(reason)

    async def events(self) -> list[WorkerEvent]:
        while not self._events:
            self._news = anyio.Event()
            await self._news.wait()
        got, self._events = self._events, []
        return got

    def rate(self) -> Rate:
        return Rate(tokens_in_per_s=0.0, tokens_out_per_s=0.0)

    def quote(self) -> Quote:
        return Quote()

    def _say(self, event: WorkerEvent) -> None:
        self._events.append(event)
        self._news.set()


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.time = now
        self.slept_s = 0.0

    def now(self) -> float:
        return self.time + self.slept_s

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        """The machine sleeps: the wall clock goes on, the monotonic one does not."""
        self.slept_s += seconds
