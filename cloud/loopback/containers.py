"""Containers from request to exit: started for what waits, handed inputs, told to go, replaced when they die.

One synchronous method, `pump`, owns the decisions: it hands inputs to containers that ask and applies what `scaling`
decides. All else tells it that something changed. It runs in one event loop and never awaits between a look and a step,
so no two containers get one input.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol

import msgspec

from cloud.loopback import outcomes
from cloud.loopback.backlog import LOSSES_MAX, Backlog, Call, Ending
from cloud.loopback.faults import FaultCounter, Strike
from cloud.loopback.functions import Functions
from cloud.loopback.ledger import Ledger, Stay
from cloud.loopback.rpc import new_id
from cloud.loopback.scaling import Seat, decide

# A guess: how many starts in a row may fail before what waits is told so.
FAILED_STARTS_MAX = 2
# A guess: what a container gets between SIGINT and SIGKILL when its app stops.
STOP_GRACE_S = 2.0


class Container(msgspec.Struct, kw_only=True, eq=False):
    """One container. `asking` is set while it waits for an input; a result of `None` tells it to go.

    `has_news`: a call that it holds was cancelled, and it wasn't told yet. `told_why` says why it was ended, if it was;
    `start_failure` is the account of why it couldn't start.
    """

    task_id: str
    function_id: str
    generation: int
    phase: Literal["starting", "serving", "leaving"] = "starting"
    has_served: bool = False
    told_why: str = ""
    idle_since_s: float | None = None
    asking: asyncio.Future[Call | None] | None = None
    has_news: bool = False
    beating: asyncio.Future[None] | None = None
    start_failure: bytes = b""
    kill: Callable[[signal.Signals], None] | None = None
    life: asyncio.Task[str] | None = None


class Pool(msgspec.Struct, kw_only=True):
    """The containers of one function, and those that ask for an input, in the order in which they asked."""

    containers: dict[str, Container] = {}
    asking: deque[Container] = msgspec.field(default_factory=deque)
    failed_starts: int = 0
    timer: asyncio.TimerHandle | None = None


class Host(Protocol):
    """What containers run on."""

    def now(self) -> float:
        """Seconds since the plane started."""

    def stay(self, container: Container) -> Stay:
        """The ledger's line for a container that is asked for now."""

    async def run(self, container: Container) -> str:
        """Start its process, set its `kill`, and say how it ended once it is gone. Errors are words, too."""


class Containers:
    """All pools. `on_ended` hears of each call that the end of a container ended."""

    def __init__(
        self,
        *,
        functions: Functions,
        backlog: Backlog,
        ledger: Ledger,
        faults: FaultCounter,
        host: Host,
        tasks: asyncio.TaskGroup,
        max_containers: int,
        is_stopped: Callable[[str], bool],
        on_ended: Callable[[Call], None],
    ) -> None:
        self._functions, self._backlog, self._ledger, self._faults = functions, backlog, ledger, faults
        self._host, self._tasks, self._max_containers = host, tasks, max_containers
        self._is_stopped, self._on_ended = is_stopped, on_ended
        self._pools: dict[str, Pool] = {}
        self._by_task: dict[str, Container] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}  # by input id, and by task id for the start-up
        self._is_closed = False

    def find(self, task_id: str) -> Container | None:
        return self._by_task.get(task_id)

    def live(self, function_id: str) -> tuple[Container, ...]:
        """The containers of a function that aren't gone."""
        return tuple(self._pools[function_id].containers.values()) if function_id in self._pools else ()

    def pump(self, function_id: str) -> None:
        """Hand out what waits, then start and stop containers as `scaling` says, and set the next look."""
        if self._is_closed or self._is_stopped(function_id):
            return
        pool = self._pools.setdefault(function_id, Pool())
        while pool.asking and self._backlog.queued(function_id):
            self._hand(pool.asking.popleft())
        staying = [container for container in pool.containers.values() if container.phase != "leaving"]
        seats = [
            Seat(task_id=one.task_id, held=self._backlog.held(one.task_id), idle_since_s=one.idle_since_s)
            for one in staying
        ]
        room = self._max_containers - len(self._by_task)
        queued = self._backlog.queued(function_id)
        verdict = decide(self._functions.limits(function_id), seats, queued, room, self._host.now())
        for _ in range(verdict.start):
            self._start(pool, function_id)
        for task_id in verdict.stop:
            self.leave(pool.containers[task_id])
        if pool.timer is not None:
            pool.timer.cancel()
            pool.timer = None
        if verdict.again_at_s is not None:
            wait_s = max(0.0, verdict.again_at_s - self._host.now())
            pool.timer = asyncio.get_running_loop().call_later(wait_s, self.pump, function_id)

    def ask(self, container: Container) -> asyncio.Future[Call | None]:
        """A container has a free slot. The future gives it an input, or `None` when it is to go."""
        future: asyncio.Future[Call | None] = asyncio.get_running_loop().create_future()
        if not container.has_served:
            container.has_served = True
            self._untime(container.task_id)
            self._ledger.served(container.task_id, self._host.now())
            self._pools[container.function_id].failed_starts = 0
        if container.phase == "leaving":
            future.set_result(None)
            return future
        container.phase = "serving"
        if not self._backlog.held(container.task_id) and container.idle_since_s is None:
            container.idle_since_s = self._host.now()
        container.asking = future
        self._pools[container.function_id].asking.append(container)
        self.pump(container.function_id)
        return future

    def unask(self, container: Container, future: asyncio.Future[Call | None]) -> None:
        """It asks no longer; what it was just given goes back to the front."""
        if container.asking is future:
            self._dismiss(container)
        elif future.done() and not future.cancelled() and (call := future.result()) is not None:
            self._backlog.give_back(call.input_id, container.task_id)
            self._settle(container)

    def report(self, container: Container, input_id: str, status: Ending, result: bytes) -> Call | None:
        """A container reports a result: the call that it ended, or `None`."""
        call = self._backlog.finish(input_id, container.task_id, status, result, self._host.now())
        self._untime(input_id)
        self._settle(container)
        return call

    def cancel(self, container: Container, *, and_container: bool) -> None:
        """Tell a container by its heartbeat that a call that it holds was cancelled; or end it with all it holds."""
        if and_container:
            self.end(container, "its input was cancelled", signal.SIGKILL)
            return
        container.has_news = True
        if container.beating is not None and not container.beating.done():
            container.beating.set_result(None)

    def leave(self, container: Container, why: str = "scaled down") -> None:
        """Let a container finish what it holds and go. One that hasn't started yet never does."""
        container.phase, container.told_why = "leaving", container.told_why or why
        self._dismiss(container)
        if not container.has_served:
            self.end(container, container.told_why, signal.SIGKILL)

    def end(self, container: Container, why: str, number: signal.Signals, grace_s: float = 0.0) -> None:
        """Signal a container, and kill it after a grace. From now on nothing that it reports counts."""
        container.phase, container.told_why = "leaving", why
        self._dismiss(container)
        self._release(container)
        self.pump(container.function_id)
        self._kill(container, number)
        if number != signal.SIGKILL:
            asyncio.get_running_loop().call_later(grace_s, self._kill, container, signal.SIGKILL)

    def end_all(self, function_id: str, why: str) -> None:
        """End every container of a function: its app stopped."""
        for container in self.live(function_id):
            self.end(container, why, signal.SIGINT, STOP_GRACE_S)

    def close(self) -> None:
        """The plane ends: nothing is started any more, and what runs is killed."""
        self._is_closed = True
        for timer in self._timers.values():
            timer.cancel()
        for pool in self._pools.values():
            if pool.timer is not None:
                pool.timer.cancel()
        for container in list(self._by_task.values()):
            self.end(container, "the plane ended", signal.SIGKILL)

    def _hand(self, container: Container) -> None:
        call = self._backlog.take(container.function_id, container.task_id)
        if call is None or container.asking is None:
            return
        container.asking.set_result(call)
        container.asking, container.idle_since_s = None, None
        self._ledger.took(container.task_id, self._host.now())
        timeout_s = self._functions.definition(container.function_id).timeout_secs
        if timeout_s:
            self._time(call.input_id, timeout_s, self._timed_out, container, call, timeout_s)
        strike = self._faults.delivery()
        if strike is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(self._faults.faults.strike_after_s, self._strike, container, strike)

    def _start(self, pool: Pool, function_id: str) -> None:
        generation = self._functions.generation(function_id)
        container = Container(task_id=new_id("ta"), function_id=function_id, generation=generation)
        pool.containers[container.task_id] = self._by_task[container.task_id] = container
        self._ledger.open(self._host.stay(container))
        container.life = self._tasks.create_task(self._host.run(container))
        container.life.add_done_callback(partial(self._gone, container))
        timeout_s = self._functions.definition(function_id).startup_timeout_secs
        if timeout_s:
            self._time(container.task_id, timeout_s, self._started_too_slowly, container, timeout_s)

    def _gone(self, container: Container, life: asyncio.Task[str]) -> None:
        """Its process is gone, or it was cancelled before there was one."""
        reason = container.told_why or ("never started" if life.cancelled() else life.result())
        pool = self._pools[container.function_id]
        del pool.containers[container.task_id], self._by_task[container.task_id]
        self._dismiss(container)
        self._untime(container.task_id)
        self._ledger.close(container.task_id, reason, self._host.now())
        self._release(container)
        if not container.has_served and not container.told_why:
            pool.failed_starts += 1
            if pool.failed_starts >= FAILED_STARTS_MAX:
                pool.failed_starts = 0
                result = container.start_failure or outcomes.never_started(reason)
                now_s = self._host.now()
                for call in self._backlog.fail_queued(container.function_id, "failed", result, now_s):
                    self._on_ended(call)
        for function_id in list(self._pools):
            self.pump(function_id)

    def _dismiss(self, container: Container) -> None:
        """If it asks for an input, it gets none."""
        if container.asking is not None:
            if not container.asking.done():
                container.asking.set_result(None)
            container.asking = None
            self._pools[container.function_id].asking.remove(container)

    def _release(self, container: Container) -> None:
        """Take back what a container holds."""
        for call in self._backlog.holds(container.task_id):
            self._untime(call.input_id)
        for call in self._backlog.lose(container.task_id, outcomes.lost(LOSSES_MAX), self._host.now()):
            self._on_ended(call)

    def _settle(self, container: Container) -> None:
        """A slot of a container came free."""
        if not self._backlog.held(container.task_id):
            self._ledger.rested(container.task_id, self._host.now())
            if container.phase == "serving":
                container.idle_since_s = self._host.now()
                self.pump(container.function_id)

    def _timed_out(self, container: Container, call: Call, seconds: float) -> None:
        container.phase = "leaving"
        self._dismiss(container)
        ended = self.report(container, call.input_id, "timed_out", outcomes.timed_out(seconds))
        if ended is not None:
            self._on_ended(ended)
        self.end(container, "an input timed out", signal.SIGKILL)

    def _strike(self, container: Container, strike: Strike) -> None:
        if container.task_id not in self._by_task:
            return
        if strike == "kill":
            self.end(container, "killed, as asked", signal.SIGKILL)
        else:
            self.end(container, "preempted, as asked", signal.SIGINT, self._faults.faults.preempt_grace_s)

    def _started_too_slowly(self, container: Container, seconds: float) -> None:
        container.start_failure = outcomes.never_started(f"not within its start-up time-out of {seconds:g} s")
        self._kill(container, signal.SIGKILL)

    def _kill(self, container: Container, number: signal.Signals) -> None:
        if container.kill is not None:
            container.kill(number)
        elif container.life is not None:
            container.life.cancel()

    def _time(self, what: str, seconds: float, then: Callable[..., None], *words: object) -> None:
        self._timers[what] = asyncio.get_running_loop().call_later(seconds, then, *words)

    def _untime(self, what: str) -> None:
        timer = self._timers.pop(what, None)
        if timer is not None:
            timer.cancel()
