"""The Worker port over a bench on this machine: a child process that is started, spoken to, and started again.

It knows incarnations and attempts. It doesn't know the engine: nothing here loads llama.cpp or numpy, since whoever
holds the log must outlive a GGML assertion. What becomes of lost attempts is the desk's affair.

Invariant: each submitted attempt is answered by one `AttemptEnded`, or its incarnation ends in one `BenchDown`. Until
`events` has told the desk of that end there is no lease, and what is submitted belongs to the dead bench.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup, TaskStatus

from edge.cpu import cpu_sets
from edge.process import BenchProcess
from edge.questions import Given, Questions
from edge.slowness import warnings
from edge.throughput import Throughput
from gx.core.errors import BenchError, ModelError
from gx.core.message import Answer, Calls, Failure, Message, ModelCard, Turn
from gx.core.ports import AttemptEnded, BenchDown, BenchReading, BenchUp, WorkerEvent
from gx.core.protocol import (
    Cancel,
    Count,
    Counted,
    Embed,
    Embedded,
    Execute,
    Finished,
    FromBench,
    Load,
    Loaded,
    Measured,
    Rank,
    Ranked,
    Ready,
    Refused,
    Signal,
    ToBench,
)
from gx.core.task import Capacity, EdgeLease, Quote, Rate

START_S = 60.0
# A bench that ends so soon, with nothing to do, wasn't killed by its work: another one would end the same way.
_AT_ONCE_S = 5.0
_MOST_DEATHS_AT_ONCE = 5
_MOST_FAILED_STARTS = 3
_BACKOFF_S = 0.1


class EdgeWorker:
    """Runs turns on a bench of this machine, which it starts again when it dies.

    `epoch` is the node's; `threads`, `slots` and `context_tokens` None leave those to the bench; `env` is added to the
    environment. Use it as an async context manager: entering starts the bench, leaving ends it.

    :raises BenchError: on entering, if no bench comes up.
    """

    name = "edge"

    def __init__(
        self,
        *,
        epoch: int,
        threads: int | None = None,
        slots: int | None = None,
        context_tokens: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._epoch, self._env = epoch, {**os.environ, **(env or {})}
        given = {"--threads": threads, "--slots": slots, "--context": context_tokens}
        self._options = [f"{name}={value}" for name, value in given.items() if value is not None]
        self._tasks: TaskGroup | None = None
        self._bench: BenchProcess | None = None  # the one that is up
        self._launched: BenchProcess | None = None  # the one that runs, be it up yet or not
        self._incarnation, self._slots, self._build = 0, 1, ""
        self._error: BenchError | None = None
        self._is_closing = self._is_restarting = self._is_down_untold = False
        self._changed = anyio.Event()
        self._events: list[WorkerEvent] = []
        self._places: dict[str, Load] = {}
        self._told: set[str] = set()  # the models that this incarnation knows
        self._cards: dict[str, ModelCard] = {}  # of the models that this incarnation has loaded
        self._foretold: dict[str, tuple[str, ...]] = {}  # what a file's header warns of, by its path
        self._running: dict[tuple[str, int], float] = {}
        self._questions = Questions()
        self._throughput = Throughput()
        self._up_s = 0.0

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
        await self.aclose()
        await self._end_tasks()

    def register(
        self,
        digest: str,
        path: str,
        context_tokens: int | None = None,
        adapters: tuple[tuple[str, float], ...] = (),
        *,
        sha256: str | None = None,
    ) -> None:
        """Say where the model with this digest is; a bench is told when it is first needed there, and once.

        `sha256` is that of its file, where the digest isn't, as of a model with adapters.
        """
        load = Load(
            request=0,
            digest=digest,
            path=os.path.abspath(path),  # noqa: PTH100 - no link is followed
            context_tokens=context_tokens,
            adapters=adapters,
            sha256=None if sha256 == digest else sha256,
        )
        if self._places.get(digest) != load:
            self._foretold.pop(load.path, None)
            self._cards.pop(digest, None)
            self._places[digest] = load
            self._told.discard(digest)

    async def start(self) -> None:
        """Bring up the first bench; it has a minute for that, and so have the two that follow if it doesn't.

        :raises BenchError: if none comes up, with the last one's last words.
        """
        if self._tasks is None:
            raise BenchError("the worker must be entered before it is started", hint="async with EdgeWorker(...)")
        if not self._incarnation:
            await self._tasks.start(self._supervise)

    async def aclose(self) -> None:
        """End the bench: close its pipe, and kill it after two seconds. Outstanding attempts get no further event."""
        self._is_closing = True
        self._questions.fail("the worker was closed")
        if self._launched is not None:
            await self._launched.stop()

    def capacity(self) -> Capacity:
        """Half as many leases more than slots, so that the next turns are there when several end at once."""
        return Capacity(slots=self._slots, leases=self._slots + (self._slots + 1) // 2)

    def lease(self) -> EdgeLease | None:
        """The binding of a lease granted now; `None` while no bench is up, or the last one's end is yet to be told."""
        if self._bench is None or self._is_down_untold:
            return None
        return EdgeLease(epoch=self._epoch, incarnation=self._incarnation)

    async def describe(self, model: str) -> ModelCard:
        """Load the model with that digest where it isn't loaded.

        :raises ModelError: if it isn't registered or can't be loaded.
        :raises BenchError: if the bench ends meanwhile, or no bench can be kept up.
        """
        load = self._place(model)
        answer = await self._ask(lambda n: msgspec.structs.replace(load, request=n))
        self._told.add(model)
        if not isinstance(answer, Loaded):
            raise BenchError(f"the bench answered a load with {type(answer).__name__}")
        return answer.card

    @property
    def build(self) -> str:
        """What the engine calls itself; empty until a bench was up."""
        return self._build

    async def warnings(self, model: str) -> tuple[tuple[str, ...], bool]:
        """What makes that model slow on this machine, in sentences, and whether that is all: how much there is room for
        shows once it was loaded. It isn't loaded for that, but a bench must be up.

        :raises ModelError: if it isn't registered. :raises BenchError: if no bench can be kept up.
        """
        path = self._place(model).path
        await self._up()
        if (card := self._cards.get(model)) is not None:
            return card.warnings, True
        if path not in self._foretold:
            found = await anyio.to_thread.run_sync(lambda: warnings(path, build=self._build, has=cpu_sets()))
            self._foretold[path] = found
        return self._foretold[path], False

    async def count(self, model: str, chats: Sequence[tuple[Message, ...]]) -> list[int]:
        """The prompt tokens of each chat, in the model's own template.

        :raises ModelError: if the model isn't registered, can't be loaded, or its template refuses a chat.
        :raises BenchError: if the bench ends meanwhile, or no bench can be kept up.
        """
        self._place(model)
        answer = await self._ask(lambda n: Count(request=n, model=model, chats=tuple(chats)), model)
        if not isinstance(answer, Counted):
            raise BenchError(f"the bench answered a count with {type(answer).__name__}")
        return list(answer.tokens)

    async def embed(self, model: str, texts: Sequence[str]) -> list[bytes]:
        """The vector of each text, [dimensions] float32 of norm 1; as `count`, or "context" where one is too long."""
        self._place(model)
        answer = await self._ask(lambda n: Embed(request=n, model=model, texts=tuple(texts)), model)
        if not isinstance(answer, Embedded):
            raise BenchError(f"the bench answered an embedding with {type(answer).__name__}")
        size = 4 * answer.dimensions
        return [answer.vectors[n * size : (n + 1) * size] for n in range(len(texts))]

    async def rank(self, model: str, question: str, passages: Sequence[str]) -> list[float]:
        """How well each passage answers the question; errors as the port `gx.core.ports.Ranker` has them."""
        self._place(model)
        answer = await self._ask(
            lambda n: Rank(request=n, model=model, question=question, passages=tuple(passages)), model
        )
        if not isinstance(answer, Ranked):
            raise BenchError(f"the bench answered a ranking with {type(answer).__name__}")
        return list(answer.scores)

    def submit(self, turn: Turn) -> None:
        """Begin an attempt; it never blocks. An unknown model fails it at once, and what can't be sent does."""
        if self._bench is None or self._is_down_untold:
            return  # its lease died with the bench, which the desk is about to read
        if turn.model not in self._places:
            self._refuse(turn, "model", _unknown(turn.model))
            return
        self._introduce(self._bench, turn.model)
        try:
            self._bench.send(Execute(turn=turn))
        except BenchError as error:
            self._refuse(turn, error.code, error.message)
            return
        self._running[turn.task, turn.attempt] = now_s = time.monotonic()
        self._throughput.begin(now_s)

    def _refuse(self, turn: Turn, code: str, message: str) -> None:
        failure = Failure(code=code, message=message, retryable=False)
        self._emit(AttemptEnded(task=turn.task, attempt=turn.attempt, outcome=failure))

    def cancel(self, task: str, attempt: int) -> None:
        """Stop an attempt between two tokens; it still ends in an `AttemptEnded`. Unknown ones are ignored."""
        if self._bench is not None and (task, attempt) in self._running:
            self._bench.send(Cancel(task=task, attempt=attempt))

    def restart(self, reason: str) -> None:
        """End the bench process, because an attempt in it doesn't end; a new incarnation follows."""
        if self._bench is not None:
            self._is_restarting = True
            self._bench.kill(reason)

    async def events(self) -> list[WorkerEvent]:
        """Wait for at least one event, then return all that are there, in order.

        :raises BenchError: if no bench can be kept up; every event until then has been returned before.
        """
        while not self._events:
            if self._error is not None:
                raise self._error
            await self._changed.wait()
        events, self._events = self._events, []
        self._is_down_untold = False
        return events

    def rate(self) -> Rate:
        """Tokens per second of late, in and out counted over the same busy seconds."""
        return self._throughput.rate()

    def quote(self) -> Quote:
        """This machine is paid for."""
        return Quote(source="this machine")

    async def _end_tasks(self) -> None:
        """Leave the task group. It isn't told of the caller's exception, which would come out wrapped in a group."""
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)

    async def _supervise(self, *, task_status: TaskStatus[None]) -> None:
        """Keep a bench up. Why none comes up at first is raised; later on it comes out of `events`."""
        try:
            await self._keep_up(task_status)
        except BenchError as error:
            if not self._incarnation:
                raise
            self._give_up(error)

    async def _keep_up(self, task_status: TaskStatus[None]) -> None:
        """Start one bench after the other. :raises BenchError: if another one would end as the last ones did."""
        deaths_at_once = failed_starts = 0
        while not self._is_closing:
            bench = await self._live(task_status)
            if self._is_closing:
                return
            reason = bench.reason or "for no known reason"
            failed_starts = 0 if self._bench is bench else failed_starts + 1
            deaths_at_once = deaths_at_once + 1 if self._bury(bench, reason) else 0
            if failed_starts and (bench.lacks_engine or failed_starts == _MOST_FAILED_STARTS):
                raise bench.start_error(reason, failed_starts)
            if deaths_at_once >= _MOST_DEATHS_AT_ONCE:
                times = f"{deaths_at_once} times in a row as soon as it ran"
                raise BenchError(f"the bench ended {times}, the last time: {reason}")
            if deaths_at_once:
                await anyio.sleep(_BACKOFF_S * 2 ** (deaths_at_once - 1))

    async def _live(self, task_status: TaskStatus[None]) -> BenchProcess:
        """Run one bench from start to end. :raises BenchError: if it can't be executed."""
        bench = self._launched = await BenchProcess.start(self._options, self._env)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_watch_start, bench, lambda: self._bench is bench)
            await bench.talk(lambda message: self._hear(bench, message, task_status))
            tasks.cancel_scope.cancel()
        return bench

    def _hear(self, bench: BenchProcess, message: FromBench, task_status: TaskStatus[None]) -> None:
        """Turn what a bench says into events and answers."""
        match message:
            case Ready():
                self._bench, self._slots, self._up_s = bench, message.slots, time.monotonic()
                self._incarnation += 1
                self._build = message.engine
                self._told.clear()
                self._cards.clear()
                self._foretold.clear()
                up = BenchUp(incarnation=self._incarnation, pid=message.pid, slots=message.slots, engine=message.engine)
                self._emit(up)
                if self._incarnation == 1:
                    task_status.started()
            case Loaded(card=card):
                self._cards[card.digest] = card
                self._questions.settle(message)
            case Counted() | Embedded() | Ranked() | Refused():
                self._questions.settle(message)
            case Finished():
                begun_s = self._running.pop((message.task, message.attempt), None)
                if begun_s is not None:
                    self._finish(message, begun_s, time.monotonic())
            case Measured():
                self._emit(BenchReading(incarnation=self._incarnation, measured=message))
            case Signal():
                self._emit(message)

    def _finish(self, message: Finished, begun_s: float, now_s: float) -> None:
        outcome = message.outcome
        is_done = isinstance(outcome, Answer | Calls)
        self._throughput.end(outcome.usage if is_done else None, now_s, is_idle=not self._running)
        ms = (now_s - begun_s) * 1000
        self._emit(AttemptEnded(task=message.task, attempt=message.attempt, outcome=outcome, ms=ms))

    def _bury(self, bench: BenchProcess, reason: str) -> bool:
        """Tell the desk of a bench's end. Whether it ended at once: not asked to, and before any work could kill it."""
        was_up, had_questions = self._bench is bench, self._questions.are_open
        had_work = bool(self._running) or had_questions
        was_asked, self._is_restarting = self._is_restarting, False
        self._bench = None
        self._running.clear()
        self._throughput.reset()
        self._questions.fail(f"the bench ended: {reason}")
        if not was_up:
            return not was_asked
        self._is_down_untold = True
        self._emit(
            BenchDown(incarnation=self._incarnation, reason=reason, is_expected=was_asked, had_questions=had_questions)
        )
        return not was_asked and not had_work and time.monotonic() - self._up_s < _AT_ONCE_S

    def _give_up(self, error: BenchError) -> None:
        self._error = error
        self._questions.fail(error.message)
        self._announce()

    async def _ask(self, make: Callable[[int], ToBench], model: str | None = None) -> Given:
        """Ask the bench that is up, or the next one, and wait for its answer. `model` is one that it must know."""
        bench = await self._up()
        if model is not None:
            self._introduce(bench, model)
        return await self._questions.ask(bench.send, make)

    async def _up(self) -> BenchProcess:
        """The bench that is up, or the next one. :raises BenchError: if there will be none."""
        while self._bench is None:
            if self._error is not None or self._is_closing:
                raise self._error or BenchError("the worker is closed")
            await self._changed.wait()
        return self._bench

    def _introduce(self, bench: BenchProcess, model: str) -> None:
        """Tell a bench where a model is, once; the answer is for nobody, since whatever uses the model fails alike."""
        if model not in self._told:
            self._told.add(model)
            bench.send(msgspec.structs.replace(self._places[model], request=self._questions.next_number()))

    def _place(self, model: str) -> Load:
        if model not in self._places:
            raise ModelError(_unknown(model), hint="register it before it is used")
        return self._places[model]

    def _emit(self, event: WorkerEvent) -> None:
        """Add an event for the desk. A preview right behind one of the same attempt is joined to it."""
        last = self._events[-1] if self._events else None
        if (
            isinstance(event, Signal)
            and isinstance(last, Signal)
            and (last.task, last.attempt) == (event.task, event.attempt)
        ):
            self._events[-1] = msgspec.structs.replace(event, text=last.text + event.text)
        else:
            self._events.append(event)
        self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


async def _watch_start(bench: BenchProcess, is_up: Callable[[], bool]) -> None:
    await anyio.sleep(START_S)
    if not is_up():
        bench.kill(f"killed, because it wasn't ready within {START_S:g} s")


def _unknown(model: str) -> str:
    return f"no model with the digest {model[:12]} is registered"
