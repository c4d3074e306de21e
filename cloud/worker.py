"""The Worker port over rented containers: spawn, follow, cancel, reattach.

It knows what becomes of an attempt by what its call gave. It knows neither how calls are made, followed and cancelled
(`cloud.spawning`, `cloud.following`, `cloud.giving_up`), nor the SDK (`cloud.rented`), nor what is worth its price: how
much it may rent, and until when, it is told. There is no incarnation: containers come and go under the calls, which
Modal queues again, so each attempt has an end of its own.

Invariant: each submitted or reattached attempt is answered by one `AttemptEnded` or one `AttemptGone`; and by the time
of either no call of it is followed any more. Only one that was recalled, and whose call could not be cancelled at once,
may speak again: with its answer, if it had one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import anyio
import msgspec
from anyio.abc import TaskGroup

from cloud import message as m
from cloud.calls import Calls, Name, each
from cloud.clearing import Clearing
from cloud.failing import Failing
from cloud.following import Following
from cloud.giving_up import CANCELLED, GivingUp
from cloud.rented import Gone
from cloud.roll import Roll
from cloud.spawning import Spawning
from cloud.telling import Telling
from gx.core.errors import BenchError, CloudError
from gx.core.message import Message, ModelCard, Turn
from gx.core.ports import AttemptEnded, AttemptGone, CallMade, ContainerSeen, RentRefused, WorkerEvent
from gx.core.task import Capacity, CloudLease, Quote, Rate

ENDING_S = 5.0
"""How long leaving a worker may take: as long as the landlord answers, each call is cancelled within a second."""
_REST_S = 30.0
"""How long nothing is begun after a container whose bench did not come up: it would not do for the next one either."""
_UNPAID_S = 5.0
"""How long nothing is begun after a container that found nobody who pays: by then it may have been told anew."""


class CloudWorker:
    """Runs the turns of one run in rented containers, each of which takes `inputs` at once, for `timeout_s` at most.

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
        timeout_s: float = 0.0,
        now: Callable[[], float] = time.time,
        ending_s: float = ENDING_S,
    ) -> None:
        self._run, self._gpu, self._driver, self._inputs = run, gpu, driver, inputs
        self._quote, self._now, self._ending_s = quote, now, ending_s
        self._clearing = Clearing(calls, on_refusal=self._refuse)
        self._giving_up = GivingUp(
            self._clearing, on_end=self._emit, on_claimed=lambda name: self._spawning.answered_for(name)
        )
        self._telling = Telling(calls, driver, on_told=lambda: self._spawning.look(), on_refusal=self._refuse)
        self._spawning = Spawning(
            calls,
            may_begin=lambda: self._telling.may_begin(now()),
            paid_until=lambda: self._telling.paid_until,
            payload_of=self._payload_of,
            on_call=self._follow_call,
            on_stray=self._giving_up.drop,
            on_refusal=self._refuse,
            timeout_s=timeout_s,
            now=now,
        )
        self._following = Following(calls, on_answer=self._settle, on_gone=self._gone, on_refusal=self._refused)
        self._roll = Roll(calls, self._see)
        self._weights: dict[str, m.Weights] = {}
        self._failing = Failing(_leases(inputs))
        self._events: list[WorkerEvent] = []
        self._has_events = anyio.Event()
        self._tasks: TaskGroup | None = None

    def __repr__(self) -> str:
        number = self._telling.containers
        return f"<CloudWorker {number} × {self._gpu}, {len(self._following.names)} open, {self._spawning}>"

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
        with anyio.move_on_after(self._ending_s, shield=True):
            await self.aclose()
        self._spawning.give_up()
        await self._end_tasks()

    async def _end_tasks(self) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)

    def register(self, weights: m.Weights) -> None:
        """Say which files of the volume make a model."""
        self._weights[weights.digest] = weights

    @property
    def calls_made(self) -> int:
        """How many calls were made so far, or may have been."""
        return self._spawning.n_made

    @property
    def is_clear(self) -> bool:
        """Whether each call that nobody wants is cancelled, and none is being made: until then it costs."""
        return not self._clearing.unwanted and self._spawning.is_clear

    async def start(self) -> None:
        """Begin to follow what there is; what there is to do, it is told."""
        if self._tasks is None:
            raise BenchError("the worker must be entered before it is started")
        for loop in (self._telling.serve, self._spawning.serve, self._following.serve, self._clearing.serve):
            self._tasks.start_soon(loop)
        self._tasks.start_soon(self._roll.serve, lambda: bool(self._following.names or self._telling.containers))

    async def aclose(self) -> None:
        """Cancel what is under way, and pay for nothing more; outstanding attempts get no further event."""
        self._spawning.clear()
        for name in self._following.names:
            if (call := self._following.drop(name)) is not None:
                self._giving_up.drop(name, call)
        async with anyio.create_task_group() as group:
            group.start_soon(self._telling.withdraw)
            group.start_soon(each, self._clearing.cancel, self._clearing.unwanted)
            await self._spawning.answered()  # a call that is made meanwhile is to be cancelled too
        await each(self._clearing.cancel, self._clearing.unwanted)  # those, and what had attempts in their stead

    def scale(self, containers: int) -> None:
        """Rent at most so many from now on; with 0, what is under way ends and nothing more begins."""
        self._telling.scale(containers)
        self._spawning.look()

    def vouch(self, until: float) -> None:
        """Pay for what containers begin before `until`, in wall-clock seconds. Nothing unpaid is begun."""
        self._telling.vouch(until)

    def capacity(self) -> Capacity:
        """What containers have at once, as many as there may be."""
        fitting = self._telling.containers * self._inputs
        return Capacity(slots=fitting, leases=_leases(fitting))

    def lease(self) -> CloudLease | None:
        """The binding of a lease granted now: its call is known when it is made. `None` while nothing is rented, or
        nobody pays.
        """
        is_paid = self._telling.until > self._now()
        return CloudLease(call="", gpu=self._gpu) if self._telling.containers and is_paid else None

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
            reason = f"no model with the digest {turn.model[:12]} is on the volume"
            self._fail((turn.task, turn.attempt), reason, container="", is_model=True)
            return
        self._spawning.add(turn)

    def reattach(self, task: str, attempt: int, call: str) -> None:
        """Follow the call of an attempt that was submitted before this process began."""
        self._following.add((task, attempt), call)

    def cancel(self, task: str, attempt: int) -> None:
        """End an attempt: it is answered, as cancelled, once its call is, or can't be now. Unknown ones are ignored."""
        name = (task, attempt)
        if (call := self._following.drop(name)) is not None:
            self._giving_up.cancel(name, call)
        elif self._spawning.drop(name):
            self._emit(AttemptEnded(task=task, attempt=attempt, outcome=CANCELLED))

    def recall(self, task: str, attempt: int, reason: str) -> None:
        """Have an attempt back that may have begun: its call is cancelled. It ends with its answer, where that was
        there first, else it is gone for that `reason`; one whose call can't be cancelled now is gone at once, and what
        that may answer yet comes late. Unknown ones are ignored, and those that may have a call that nobody knows.
        """
        name = (task, attempt)
        if self._spawning.may_be_made(name):
            return
        if self._spawning.drop(name):
            self._lose(name, reason, is_suspect=False)
        elif (call := self._following.drop(name)) is not None:
            self._giving_up.recall(name, call, reason)

    def give_back(self, most: int | None = None) -> None:
        """Let go of attempts that no call was made for, nor may have been, the last first."""
        for name in self._spawning.drop_last(most):
            self._lose(name, "no call was made for it", is_suspect=False)

    def restart(self, reason: str) -> None:
        """An attempt doesn't end: give up what is under way. Containers hold nothing else."""
        for task, attempt in [*self._following.names, *self._spawning.under_way]:
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

    # ── what becomes of a call ───────────────────────────────────────────────────────────────────────────────────

    def _payload_of(self, turn: Turn) -> bytes:
        claim = f"{self._run}/{turn.task}/{turn.attempt}"
        return m.pack(m.Job(turn=turn, weights=self._weights[turn.model], claim=claim, driver=self._driver))

    def _follow_call(self, name: Name, call: str) -> None:
        self._following.add(name, call)
        self._emit(CallMade(task=name[0], attempt=name[1], call=call))

    def _settle(self, name: Name, call: str, payload: bytes) -> None:
        """What follows from a report, which is the end of its call."""
        try:
            report = m.read_report(payload)
            outcome = report.reply.outcome if isinstance(report.reply, m.Done) else None
        except (msgspec.MsgspecError, BenchError) as error:
            self._giving_up.drop(name, call)
            self._fail(name, f"its answer can't be read: {error}", container=call)
            return
        seat, reply = report.seat, report.reply
        self._see(seat)
        if report.is_claimed:
            self._spawning.answered_for(name)
        match reply:
            case m.Done() if outcome is not None:
                self._spawning.rest_s = 0.0
                self._failing.worked(seat.container)
                self._emit(AttemptEnded(task=name[0], attempt=name[1], outcome=outcome, ms=reply.ms))
            case m.Taken():
                self._follow_call(name, reply.call)
            case m.Lost() if reply.is_suspect:
                self._lose(name, reply.reason, is_suspect=True, alone=reply.alone)
            case m.Lost():
                self._fail(name, reply.reason, container=seat.container, is_model=reply.is_model)
            case m.Unpaid():
                self._spawning.rest_s = max(_UNPAID_S, self._spawning.rest_s)
                self._lose(name, "its container found no driver that pays", is_suspect=False)

    def _gone(self, name: Name, call: str, gone: Gone) -> None:
        """The call of an attempt will never give anything."""
        if gone.is_expired or gone.is_suspect:
            self._lose(name, gone.reason, is_suspect=gone.is_suspect)
        else:
            self._fail(name, gone.reason, container="" if gone.is_late else call, is_late=gone.is_late)

    def _refused(self, name: Name, error: CloudError) -> None:
        """Nobody may ask what becomes of an attempt any more."""
        self._refuse(error.message, error.code, stops=True)
        self._lose(name, error.message, is_suspect=False)

    def _see(self, seat: m.Seat) -> None:
        """A container has spoken, by its own clock."""
        self._telling.hear(seat.now, self._now())
        began_at, seen_at = seat.began_at - self._telling.ahead_s, seat.now - self._telling.ahead_s
        self._emit(ContainerSeen(container=seat.container, gpu=self._gpu, began_at=began_at, seen_at=seen_at))

    # ── what becomes of an attempt ───────────────────────────────────────────────────────────────────────────────

    def _lose(self, name: Name, reason: str, *, is_suspect: bool, alone: bool = False, is_home: bool = False) -> None:
        call = self._following.drop(name)
        self._spawning.drop(name)
        if call is not None:
            self._giving_up.drop(name, call)
        task, attempt = name
        self._emit(
            AttemptGone(task=task, attempt=attempt, reason=reason, is_suspect=is_suspect, alone=alone, is_home=is_home)
        )

    def _fail(self, name: Name, reason: str, *, container: str, is_model: bool = False, is_late: bool = False) -> None:
        """Its container could not do it, which costs no retry. Where containers as such don't work, nothing is rented
        for a while; a model that some container could use is no reason to rent nothing for good.

        What would fare no better in another one comes home: for want of a model or of time, or as nothing else failed.
        """
        stops = self._failing.failed(container, name[0])
        if stops:
            self._spawning.rest_s = _REST_S
        code = "" if self._failing.has_worked or not is_model else "cloud.model"
        if stops or not is_late:
            self._refuse(f"a container does not work: {reason}", code, stops=stops)
        is_home = is_model or is_late or self._failing.is_undoable(name[0])
        self._lose(name, reason, is_suspect=False, is_home=is_home)

    def _refuse(self, reason: str, code: str = "", *, stops: bool = False) -> None:
        self._emit(RentRefused(reason=reason, code=code, stops=stops))

    def _emit(self, event: WorkerEvent) -> None:
        self._events.append(event)
        self._has_events.set()


def _leases(fitting: int) -> int:
    """How many inputs containers have of which so many fit: half as many more, so that none waits for its next turn."""
    return fitting + (fitting + 1) // 2
