"""Implementations of the ports for tests: workers that answer at once, a landlord, a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import msgspec

from gx.core.errors import BenchError, GxError
from gx.core.memory import Draft, Found, Hit, Memory, Query, Written
from gx.core.message import Answer, Failure, Message, ModelCard, Outcome, Turn, Usage
from gx.core.ports import AttemptEnded, AttemptGone, BenchDown, BenchUp, CallMade, ContainerSeen, WorkerEvent
from gx.core.protocol import Signal
from gx.core.task import Capacity, CloudLease, EdgeLease, Lease, Offer, Quote, Rate


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
        self.begins = True
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
        elif self.begins:
            self._say(Signal(task=turn.task, attempt=turn.attempt))

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


class ScriptedMemory:
    """A memory that gives these for every question, the best first, and keeps what was asked; or that fails."""

    def __init__(self, *memories: Memory, failure: GxError | None = None, notes: tuple[str, ...] = ()) -> None:
        self.memories, self.failure, self.notes = memories, failure, notes
        self.asked: list[Query] = []

    async def search(self, query: Query) -> Found:
        self.asked.append(query)
        await anyio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        hits = [
            Hit(memory=one, score=1.0 / number, by_text=1.0 / number, by_vector=0.0)
            for number, one in enumerate(self.memories[: query.k], 1)
        ]
        return Found(hits=tuple(hits), notes=self.notes)

    async def write(self, drafts: Sequence[Draft], *, by: str) -> Written:
        raise AssertionError("what a run remembers is written with its results")


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


class ScriptedRenter:
    """Containers for a run whose `answer` says what each turn ends in; `None` leaves it running there.

    Calls outlive it, as they do at a landlord's: they are kept in `calls`, which the next one of the same landlord has.
    `makes_calls` False has everything wait, as where a landlord takes no more calls for now; where it `is_unsure`,
    calls may have been made of what waits.
    """

    name = "cloud"

    def __init__(self, landlord: ScriptedLandlord, gpu: str) -> None:
        self._landlord, self.gpu = landlord, gpu
        self.containers, self.until = 0, 0.0
        self.is_clear, self.is_unsure, self.calls_made = True, False, 0
        self.waiting: dict[tuple[str, int], Turn] = {}
        self.open: dict[tuple[str, int], str] = {}
        self.cancelled: list[tuple[str, int]] = []
        self._events: list[WorkerEvent] = []
        self._news = anyio.Event()

    async def start(self) -> None:
        """Nothing is to be brought up."""

    async def aclose(self) -> None:
        """What is under way ends, as the landlord's calls are cancelled, unless whoever rents was killed."""
        for call in () if self._landlord.outlives_drivers else self.open.values():
            self._landlord.calls.pop(call, None)

    def capacity(self) -> Capacity:
        fitting = self.containers * self._landlord.inputs
        return Capacity(slots=fitting, leases=fitting)

    def lease(self) -> Lease | None:
        is_paid = self.until > self._landlord.clock.now()
        return CloudLease(call="", gpu=self.gpu) if self.containers and is_paid else None

    async def describe(self, model: str) -> ModelCard:
        raise BenchError("not asked of containers")

    async def count(self, model: str, chats: Sequence[tuple[Message, ...]]) -> list[int]:
        raise BenchError("not asked of containers")

    def submit(self, turn: Turn) -> None:
        self._landlord.submitted.append(turn)
        self.waiting[turn.task, turn.attempt] = turn
        self.begin()

    def begin(self) -> None:
        """Make calls for what waits, if that may be."""
        while self.waiting and self._landlord.makes_calls and self.lease() is not None:
            name = next(iter(self.waiting))
            turn = self.waiting.pop(name)
            call = self._landlord.call_for(turn)
            self.open[name] = call
            self.calls_made += 1
            self.say(CallMade(task=turn.task, attempt=turn.attempt, call=call))
            if (outcome := self._landlord.answer(turn)) is not None:
                self.end(turn.task, outcome)

    def end(self, task: str, outcome: Outcome, *, container: str = "", began_at: float | None = None) -> None:
        """End what runs of a task, in a container that is seen then."""
        name = next(one for one in self.open if one[0] == task)
        self._landlord.calls.pop(self.open.pop(name))
        self.seen(container or f"{self.gpu}-1", began_at)
        self.say(AttemptEnded(task=task, attempt=name[1], outcome=outcome, ms=1.0))

    def lose(self, task: str, *, is_suspect: bool = True, alone: bool = False, is_home: bool = False) -> None:
        """What runs of a task is gone."""
        name = next(one for one in self.open if one[0] == task)
        self._landlord.calls.pop(self.open.pop(name))
        self.say(
            AttemptGone(
                task=task, attempt=name[1], reason="it died", is_suspect=is_suspect, alone=alone, is_home=is_home
            )
        )

    def ended_late(self, task: str, attempt: int, outcome: Outcome) -> None:
        """An attempt that was recalled had an answer all the same."""
        self.say(AttemptEnded(task=task, attempt=attempt, outcome=outcome, ms=1.0))

    def seen(self, container: str, began_at: float | None = None) -> None:
        """A container, which began just now or then, gave an answer just now."""
        now = self._landlord.clock.now()
        began_at = now if began_at is None else began_at
        self.say(ContainerSeen(container=container, gpu=self.gpu, began_at=began_at, seen_at=now))

    def cancel(self, task: str, attempt: int) -> None:
        name = (task, attempt)
        self.cancelled.append(name)
        call = self.open.pop(name, None)
        if call is not None:
            self._landlord.calls.pop(call, None)
        if call is not None or self.waiting.pop(name, None) is not None:
            self.say(AttemptEnded(task=task, attempt=attempt, outcome=Failure(code="cancelled", message="cancelled")))

    def restart(self, reason: str) -> None:
        raise AssertionError("containers keep their own time")

    async def events(self) -> list[WorkerEvent]:
        while not self._events:
            self._news = anyio.Event()
            await self._news.wait()
        if self._landlord.failure is not None:
            raise self._landlord.failure
        got, self._events = self._events, []
        return got

    def rate(self) -> Rate:
        return Rate(tokens_in_per_s=0.0, tokens_out_per_s=0.0)

    def quote(self) -> Quote:
        return Quote()

    def scale(self, containers: int) -> None:
        self.containers = containers
        self.begin()

    def vouch(self, until: float) -> None:
        self.until = until
        self.begin()

    def reattach(self, task: str, attempt: int, call: str) -> None:
        self._landlord.reattached.append(call)
        if call in self._landlord.calls:
            self.open[task, attempt] = call
        else:
            self.say(AttemptGone(task=task, attempt=attempt, reason="no longer kept", is_suspect=False))

    def recall(self, task: str, attempt: int, reason: str) -> None:
        call = self.open.pop((task, attempt), None)
        if call is not None:
            self._landlord.calls.pop(call, None)
            self._landlord.recalled.append((task, attempt))
            self.say(AttemptGone(task=task, attempt=attempt, reason=reason, is_suspect=False))

    def give_back(self, most: int | None = None) -> None:
        for name in [] if self.is_unsure else list(reversed(self.waiting))[:most]:
            del self.waiting[name]
            self.say(AttemptGone(task=name[0], attempt=name[1], reason="no call was made", is_suspect=False))

    def say(self, event: WorkerEvent) -> None:
        self._events.append(event)
        self._news.set()


class ScriptedLandlord:
    """Rents out `offers`; `failure` is raised instead of renting, where it is set.

    It outlives the desks that rent from it: `calls` are those under way, by id, and `claims` the calls that took an
    attempt first. With `outlives_drivers`, whoever rents is killed, and cancels nothing.
    """

    def __init__(
        self,
        clock: ManualClock,
        answer: Callable[[Turn], Outcome | None] = echo,
        *,
        offers: Sequence[Offer] = (),
        inputs: int = 4,
        failure: GxError | None = None,
    ) -> None:
        self.clock, self.answer, self.inputs, self.failure = clock, answer, inputs, failure
        self.on_offer = list(offers) or [offer()]
        self.makes_calls, self.outlives_drivers = True, False
        self.workers: list[ScriptedRenter] = []
        self.submitted: list[Turn] = []
        self.reattached: list[str] = []
        self.recalled: list[tuple[str, int]] = []
        self.calls: dict[str, Turn] = {}
        self.claims: dict[tuple[str, int], str] = {}

    @property
    def worker(self) -> ScriptedRenter:
        """The one that was rented last."""
        return self.workers[-1]

    def offers(self, run: str, edge_tokens_per_s: float) -> Sequence[Offer]:
        return self.on_offer

    @asynccontextmanager
    async def rent(self, run: str, gpu: str) -> AsyncIterator[ScriptedRenter]:
        if self.failure is not None:
            raise self.failure
        worker = ScriptedRenter(self, gpu)
        self.workers.append(worker)
        try:
            yield worker
        finally:
            await worker.aclose()

    def call_for(self, turn: Turn) -> str:
        """The call that runs an attempt: the one that has its claim."""
        call = self.claims.setdefault((turn.task, turn.attempt), f"fc-{len(self.claims) + 1}")
        self.calls[call] = turn
        return call


def offer(gpu: str = "L4", *, usd_per_s: float = 0.001, tokens_per_s: float = 1000.0) -> Offer:
    """A kind of container whose reservation, with the driver's lease of 60 s, is for 100 s."""
    return Offer(
        gpu=gpu,
        tokens_per_s=tokens_per_s,
        usd_per_s=usd_per_s,
        cold_start_s=5.0,
        window_s=10.0,
        reserve_usd=100 * usd_per_s,
        start_limit_s=10.0,
        timeout_s=20.0,
    )
