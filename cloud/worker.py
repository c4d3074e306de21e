"""The Worker port over rented containers: spawn, follow, cancel, reattach.

It knows attempts and their calls. It knows neither the SDK (`cloud.rented`) nor what is worth its price: how much it
may rent, and until when, it is told. There is no incarnation: containers come and go under the calls, which Modal
queues again, so each attempt has an end of its own.

Invariant: each submitted or reattached attempt is answered by one `AttemptEnded` or one `AttemptGone`; and by the time
of either no call of it is followed any more.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Protocol, Self, TypeVar

import anyio
import msgspec
from anyio.abc import TaskGroup

from cloud import message as m
from cloud.rented import Gone, Refused
from gx.core.errors import BenchError, CloudError
from gx.core.message import Failure, Message, ModelCard, Turn
from gx.core.ports import AttemptEnded, AttemptGone, CallMade, ContainerSeen, RentRefused, WorkerEvent
from gx.core.task import Capacity, CloudLease, Quote, Rate

POLL_S = 0.2
"""How long after a round of polls the next one begins."""
_AT_ONCE = 24
"""Calls of the SDK that are under way at once: far fewer than the streams of a connection."""
_LONGEST_BACKOFF_S = 30.0
_AGAIN_S = 2.0
_ENDING_S = 10.0
_REST_S = 30.0
"""How long nothing is begun after a container whose bench did not come up: it would not do for the next one either."""

_Name = tuple[str, int]
_T = TypeVar("_T")


class Calls(Protocol):
    """What a worker needs of `cloud.rented.Rented`."""

    async def spawn(self, payload: bytes) -> str: ...
    async def poll(self, call: str) -> bytes | None: ...
    async def cancel(self, call: str) -> None: ...
    async def scale(self, max_containers: int) -> None: ...
    async def vouch(self, driver: str, until: float) -> None: ...


class CloudWorker:
    """Runs the turns of one run in rented containers, each of which takes `inputs` at once.

    `driver` is the name under which this process vouches for the cost. Use it as an async context manager; leaving it
    cancels what is under way.
    """

    name = "cloud"

    def __init__(
        self,
        calls: Calls,
        *,
        run: str,
        gpu: str,
        driver: str,
        inputs: int,
        quote: Quote,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._calls, self._run, self._gpu, self._driver, self._inputs = calls, run, gpu, driver, inputs
        self._quote, self._now = quote, now
        self._containers = self._told_containers = 0
        self._until = self._told_until = 0.0
        self._weights: dict[str, m.Weights] = {}
        self._waiting: OrderedDict[_Name, Turn] = OrderedDict()
        self._spawning: set[_Name] = set()
        self._asked = set[anyio.Event]()
        self._open: dict[_Name, str] = {}
        self._unwanted: dict[str, None] = {}
        """Calls that are to be cancelled, and perhaps were not yet."""
        self._events: list[WorkerEvent] = []
        self._has_events, self._has_work, self._has_calls = anyio.Event(), anyio.Event(), anyio.Event()
        self._has_news, self._has_unwanted = anyio.Event(), anyio.Event()
        self._backoff_s = self._rest_s = 0.0
        self._is_deaf = False
        self._tasks: TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<CloudWorker {self._containers} × {self._gpu}, {len(self._open)} open, {len(self._waiting)} waiting>"

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        try:
            await self.start()
        except BaseException:
            await self._end_tasks()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.move_on_after(_ENDING_S, shield=True):
            await self.aclose()
        await self._end_tasks()

    def register(self, weights: m.Weights) -> None:
        """Say which files of the volume make a model."""
        self._weights[weights.digest] = weights

    async def start(self) -> None:
        """Begin to follow what there is; what there is to do, it is told."""
        if self._tasks is None:
            raise BenchError("the worker must be entered before it is started")
        for loop in (self._tell, self._spawn, self._follow, self._clear):
            self._tasks.start_soon(loop)

    async def aclose(self) -> None:
        """Cancel what is under way; outstanding attempts get no further event."""
        self._waiting.clear()
        self._spawning.clear()
        for answered in list(self._asked):  # a call that is made meanwhile is to be cancelled too
            await answered.wait()
        calls, self._open = [*self._open.values(), *self._unwanted], {}
        await _each(self._cancel, calls)

    def scale(self, containers: int) -> None:
        """Rent at most so many from now on; with 0, what is under way ends and nothing more begins."""
        self._containers = containers
        self._has_news.set()
        self._has_work.set()

    def vouch(self, until: float) -> None:
        """Pay for what containers begin before `until`, in wall-clock seconds. Nothing unpaid is begun."""
        self._until = until
        self._has_news.set()

    def capacity(self) -> Capacity:
        """Half as many leases more than fit, so that no container waits for its next turn."""
        fitting = self._containers * self._inputs
        return Capacity(slots=fitting, leases=fitting + (fitting + 1) // 2)

    def lease(self) -> CloudLease | None:
        """The binding of a lease granted now: its call is known when it is made. `None` while nothing is rented, or
        nobody pays.
        """
        is_paid = self._until > self._now()
        return CloudLease(call="", gpu=self._gpu) if self._containers and is_paid else None

    async def describe(self, model: str) -> ModelCard:
        """Not asked of containers. :raises BenchError: always."""
        raise BenchError("models are described by the bench of this machine")

    async def count(self, model: str, chats: Sequence[tuple[Message, ...]]) -> list[int]:
        """Not asked of containers. :raises BenchError: always."""
        raise BenchError("tokens are counted by the bench of this machine")

    def submit(self, turn: Turn) -> None:
        """Begin an attempt, also one that may have been begun before under a call that nobody knows: the containers
        see to it that only one of the two runs."""
        if turn.model not in self._weights:
            message = f"no model with the digest {turn.model[:12]} is on the volume"
            self._end(turn.task, turn.attempt, Failure(code="model.missing", message=message, retryable=False))
            return
        self._waiting[turn.task, turn.attempt] = turn
        self._has_work.set()

    def reattach(self, task: str, attempt: int, call: str) -> None:
        """Follow the call of an attempt that was submitted before this process began."""
        self._open[task, attempt] = call
        self._has_calls.set()

    def cancel(self, task: str, attempt: int) -> None:
        """End an attempt; it is answered at once, as cancelled. Unknown ones are ignored."""
        name = (task, attempt)
        call = self._open.pop(name, None)
        is_known = call is not None or name in self._spawning or self._waiting.pop(name, None) is not None
        self._spawning.discard(name)
        if call is not None:
            self._drop(call)
        if is_known:
            self._end(task, attempt, Failure(code="cancelled", message="it was cancelled"))

    def give_back(self, most: int | None = None) -> None:
        """Let go of attempts that no call was made for, the last first."""
        for name in list(reversed(self._waiting))[:most]:
            del self._waiting[name]
            self._lose(name, "no call was made for it", is_suspect=False)

    def restart(self, reason: str) -> None:
        """An attempt doesn't end: give up what is under way. Containers hold nothing else."""
        for task, attempt in [*self._open, *self._spawning]:
            self._lose((task, attempt), reason, is_suspect=True)

    async def events(self) -> list[WorkerEvent]:
        """Wait for at least one event, then return all that are there, in order."""
        while not self._events:
            await self._has_events.wait()
        events, self._events = self._events, []
        self._has_events = anyio.Event()
        return events

    def rate(self) -> Rate:
        """Nothing is measured here: a run's own events say what its containers did."""
        return Rate(tokens_in_per_s=0.0, tokens_out_per_s=0.0)

    def quote(self) -> Quote:
        return self._quote

    # ── loops ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _tell(self) -> None:
        """Tell the containers what this worker was told. As long as that fails, nothing is begun."""
        while True:
            self._has_news = anyio.Event()
            wanted, until = self._containers, self._until
            try:
                if wanted and wanted != self._told_containers:
                    await self._calls.scale(wanted)
                if until != self._told_until:
                    await self._calls.vouch(self._driver, until)
            except CloudError as error:
                self._emit(RentRefused(reason=error.message))
                await anyio.sleep(_AGAIN_S)
                continue
            self._told_containers, self._told_until = wanted, until
            self._has_work.set()
            if (self._containers, self._until) == (wanted, until):
                await self._has_news.wait()

    async def _spawn(self) -> None:
        """Begin what waits, as long as it may be paid."""
        while True:
            self._has_work = anyio.Event()
            chosen = list[Turn]()
            may_begin = self._told_containers > 0 and self._told_until > self._now()
            while may_begin and self._waiting and len(chosen) < _AT_ONCE:
                name, turn = self._waiting.popitem(last=False)
                self._spawning.add(name)
                chosen.append(turn)
            if not chosen:
                with anyio.move_on_after(1.0 if self._waiting else None):
                    await self._has_work.wait()
                continue
            await _each(self._spawn_one, chosen)
            await anyio.sleep(max(self._backoff_s, self._rest_s))

    async def _spawn_one(self, turn: Turn) -> None:
        name = (turn.task, turn.attempt)
        claim = f"{self._run}/{turn.task}/{turn.attempt}"
        job = m.Job(turn=turn, weights=self._weights[turn.model], claim=claim, driver=self._driver)
        answered = anyio.Event()
        self._asked.add(answered)
        call, reason = "", "there is no answer"
        try:
            with anyio.move_on_after(_ENDING_S, shield=True):  # or nobody would know of the call
                call = await self._calls.spawn(m.pack(job))
        except (Refused, CloudError) as error:
            reason = str(error)
        if not call:
            self._put_off(name, turn, reason)
        elif name in self._spawning:
            self._backoff_s = 0.0
            self._spawning.discard(name)
            self._follow_call(name, call)
        else:  # it was given up meanwhile
            self._drop(call)
        self._asked.discard(answered)
        answered.set()

    def _put_off(self, name: _Name, turn: Turn, reason: str) -> None:
        if not self._backoff_s:
            self._emit(RentRefused(reason=reason))
        self._backoff_s = min(_LONGEST_BACKOFF_S, max(0.5, 2 * self._backoff_s))
        if name in self._spawning:
            self._spawning.discard(name)
            self._waiting[name] = turn
            self._waiting.move_to_end(name, last=False)

    async def _follow(self) -> None:
        """Poll what is open, in rounds: long polls of many calls would starve the connection."""
        while True:
            self._has_calls = anyio.Event()
            if not self._open:
                await self._has_calls.wait()
            await _each(self._poll, list(self._open.items()))
            await anyio.sleep(POLL_S)

    async def _poll(self, known: tuple[_Name, str]) -> None:
        name, call = known
        try:
            payload = await self._calls.poll(call)
        except Gone as gone:
            if self._open.get(name) == call:
                del self._open[name]
                self._lose(name, gone.reason, is_suspect=not gone.is_expired)
            return
        except CloudError:
            return  # the next round asks again
        if payload is not None and self._open.get(name) == call:
            self._settle(name, payload)

    def _settle(self, name: _Name, payload: bytes) -> None:
        """What follows from a report."""
        try:
            report = m.read_report(payload)
            outcome = report.reply.outcome if isinstance(report.reply, m.Done) else None
        except (msgspec.MsgspecError, BenchError) as error:
            self._lose(name, f"its container's answer can't be read: {error}", is_suspect=False)
            return
        seat, reply = report.seat, report.reply
        del self._open[name]  # the call is over
        self._emit(ContainerSeen(container=seat.container, gpu=self._gpu, began_at=seat.began_at, seen_at=seat.now))
        match reply:
            case m.Done() if outcome is not None:
                self._rest_s = 0.0
                self._emit(AttemptEnded(task=name[0], attempt=name[1], outcome=outcome, ms=reply.ms))
            case m.Taken():
                self._follow_call(name, reply.call)
            case m.Lost():
                if not reply.is_suspect:
                    self._rest_s = _REST_S
                    self._emit(RentRefused(reason=f"a container does not work: {reply.reason}"))
                self._lose(name, reply.reason, is_suspect=reply.is_suspect, alone=reply.alone)
            case m.Unpaid():
                self._lose(name, "its container found no driver that pays", is_suspect=False)

    async def _clear(self) -> None:
        """Cancel what is not wanted any more, until that is done."""
        while True:
            self._has_unwanted = anyio.Event()
            await _each(self._cancel, list(self._unwanted))
            with anyio.move_on_after(_AGAIN_S if self._unwanted else None):
                await self._has_unwanted.wait()

    # ── what becomes of an attempt ───────────────────────────────────────────────────────────────────────────────

    def _follow_call(self, name: _Name, call: str) -> None:
        self._open[name] = call
        self._emit(CallMade(task=name[0], attempt=name[1], call=call))
        self._has_calls.set()

    def _lose(self, name: _Name, reason: str, *, is_suspect: bool, alone: bool = False) -> None:
        call = self._open.pop(name, None)
        self._spawning.discard(name)
        if call is not None:
            self._drop(call)
        self._emit(AttemptGone(task=name[0], attempt=name[1], reason=reason, is_suspect=is_suspect, alone=alone))

    def _end(self, task: str, attempt: int, failure: Failure) -> None:
        self._emit(AttemptEnded(task=task, attempt=attempt, outcome=failure))

    def _drop(self, call: str) -> None:
        """Have a call cancelled: until it is, it costs."""
        self._unwanted[call] = None
        self._has_unwanted.set()

    async def _cancel(self, call: str) -> None:
        try:
            await self._calls.cancel(call)
        except CloudError as error:
            if not self._is_deaf:
                self._emit(RentRefused(reason=f"a call can't be cancelled yet: {error.message}"))
            self._is_deaf = True
            return
        self._unwanted.pop(call, None)
        self._is_deaf = False

    def _emit(self, event: WorkerEvent) -> None:
        self._events.append(event)
        self._has_events.set()

    async def _end_tasks(self) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)


async def _each(do: Callable[[_T], Awaitable[None]], items: Iterable[_T]) -> None:
    """Do it to each, some at a time."""
    room = anyio.CapacityLimiter(_AT_ONCE)

    async def one(item: _T) -> None:
        async with room:
            await do(item)

    async with anyio.create_task_group() as group:
        for item in items:
            group.start_soon(one, item)
