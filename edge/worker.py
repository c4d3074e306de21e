"""The Worker port over a bench on this machine: attempts and questions go to it, events and answers come back.

It knows attempts and what a bench is asked. It doesn't know how one is kept up, nor the engine: nothing here loads
llama.cpp or numpy, since whoever holds the log must outlive a GGML assertion. What becomes of lost attempts is the
desk's affair.

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
import msgspec
from anyio.abc import TaskGroup, TaskStatus

from edge.attempts import Attempts
from edge.outbox import Outbox
from edge.process import BenchProcess
from edge.questions import Given, Questions
from edge.registered import Registered
from edge.supervisor import End, Supervisor
from gx.core.errors import BenchError, ModelError
from gx.core.message import Failure, Message, ModelCard, Turn
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
        given = {"--threads": threads, "--slots": slots, "--context": context_tokens}
        self._supervisor = Supervisor(
            [f"{name}={value}" for name, value in given.items() if value is not None],
            {**os.environ, **(env or {})},
            on_message=self._hear,
            on_end=self._bury,
            is_busy=lambda: self._attempts.are_under_way or self._questions.are_open,
        )
        self._epoch, self._slots, self._build = epoch, 1, ""
        self._tasks: TaskGroup | None = None
        self._models = Registered()
        self._outbox = Outbox()
        self._questions = Questions()
        self._attempts = Attempts()

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

    async def _end_tasks(self) -> None:
        """Leave the task group. It isn't told of the caller's exception, which would come out wrapped in a group."""
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)

    async def start(self) -> None:
        """Bring up the first bench; it has a minute for that, and so have the two that follow if it doesn't.

        :raises BenchError: if none comes up, with the last one's last words.
        """
        if self._tasks is None:
            raise BenchError("the worker must be entered before it is started", hint="async with EdgeWorker(...)")
        if not self._supervisor.incarnation:
            await self._tasks.start(self._serve)

    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        """Keep a bench up. Why none comes up at first is raised; later on it comes out of `events`."""
        try:
            await self._supervisor.serve(task_status=task_status)
        except BenchError as error:
            if not self._supervisor.incarnation:
                raise
            self._questions.fail(error.message)
            self._outbox.end(error)

    async def aclose(self) -> None:
        """End the bench: close its pipe, and kill it after two seconds. Outstanding attempts get no further event."""
        self._questions.fail("the worker was closed")
        await self._supervisor.stop()

    def restart(self, reason: str) -> None:
        """End the bench process, because an attempt in it doesn't end; a new incarnation follows."""
        self._supervisor.restart(reason)

    @property
    def build(self) -> str:
        """What the engine calls itself; empty until a bench was up."""
        return self._build

    # ── models, and what a bench is asked of them ────────────────────────────────────────────────────────────────

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
        self._models.add(
            Load(
                request=0,
                digest=digest,
                path=os.path.abspath(path),  # noqa: PTH100 - no link is followed
                context_tokens=context_tokens,
                adapters=adapters,
                sha256=None if sha256 == digest else sha256,
            )
        )

    async def warnings(self, model: str) -> tuple[tuple[str, ...], bool]:
        """What makes that model slow on this machine, in sentences, and whether that is all: how much there is room for
        shows once it was loaded. It isn't loaded for that, but a bench must be up.

        :raises ModelError: if it isn't registered. :raises BenchError: if no bench can be kept up.
        """
        self._models.place(model)
        await self._supervisor.up()
        return await self._models.warnings(model, build=self._build)

    async def describe(self, model: str) -> ModelCard:
        """Load the model with that digest where it isn't loaded.

        :raises ModelError: if it isn't registered or can't be loaded.
        :raises BenchError: if the bench ends meanwhile, or no bench can be kept up.
        """
        self._models.place(model)  # what isn't registered by now needs no bench
        bench = await self._supervisor.up()
        load = self._models.place(model)
        self._models.introduced(model)
        answer = await self._questions.ask(bench.send, lambda n: msgspec.structs.replace(load, request=n), Loaded)
        return answer.card

    async def count(self, model: str, chats: Sequence[tuple[Message, ...]]) -> list[int]:
        """The prompt tokens of each chat, in the model's own template.

        :raises ModelError: if the model isn't registered, can't be loaded, or its template refuses a chat.
        :raises BenchError: if the bench ends meanwhile, or no bench can be kept up.
        """
        answer = await self._ask(model, lambda n: Count(request=n, model=model, chats=tuple(chats)), Counted)
        return list(answer.tokens)

    async def embed(self, model: str, texts: Sequence[str]) -> list[bytes]:
        """The vector of each text, [dimensions] float32 of norm 1; as `count`, or "context" where one is too long."""
        answer = await self._ask(model, lambda n: Embed(request=n, model=model, texts=tuple(texts)), Embedded)
        size = 4 * answer.dimensions
        return [answer.vectors[n * size : (n + 1) * size] for n in range(len(texts))]

    async def rank(self, model: str, question: str, passages: Sequence[str]) -> list[float]:
        """How well each passage answers the question; errors as the port `gx.core.ports.Ranker` has them."""
        answer = await self._ask(
            model, lambda n: Rank(request=n, model=model, question=question, passages=tuple(passages)), Ranked
        )
        return list(answer.scores)

    async def _ask(self, model: str, make: Callable[[int], ToBench], kind: type[Given]) -> Given:
        """Ask the bench that is up, or the next one, of a model that it must know, and wait for its answer."""
        self._models.place(model)  # what isn't registered by now needs no bench
        bench = await self._supervisor.up()
        self._introduce(bench, model)
        return await self._questions.ask(bench.send, make, kind)

    def _introduce(self, bench: BenchProcess, model: str) -> None:
        """Tell a bench where a model is, once; the answer is for nobody, since whatever uses the model fails alike.

        :raises ModelError: if it isn't registered.
        """
        load = self._models.place(model)
        if not self._models.is_introduced(model):
            self._models.introduced(model)
            bench.send(msgspec.structs.replace(load, request=self._questions.next_number()))

    # ── attempts ─────────────────────────────────────────────────────────────────────────────────────────────────

    def capacity(self) -> Capacity:
        """Half as many leases more than slots, so that the next turns are there when several end at once."""
        slots = self._models.slots(self._slots, self._attempts.models)
        return Capacity(slots=slots, leases=slots + (slots + 1) // 2)

    def lease(self) -> EdgeLease | None:
        """The binding of a lease granted now; `None` while no bench is up, or the last one's end is yet to be told."""
        if self._supervisor.bench is None or self._outbox.has_end:
            return None
        return EdgeLease(epoch=self._epoch, incarnation=self._supervisor.incarnation)

    def submit(self, turn: Turn) -> None:
        """Begin an attempt; it never blocks. An unknown model fails it at once, and what can't be sent does."""
        bench = self._supervisor.bench
        if bench is None or self._outbox.has_end:
            return  # its lease died with the bench, which the desk is about to read
        try:
            self._introduce(bench, turn.model)
            bench.send(Execute(turn=turn))
        except (ModelError, BenchError) as error:
            failure = Failure(code=error.code, message=error.message, retryable=False)
            self._outbox.add(AttemptEnded(task=turn.task, attempt=turn.attempt, outcome=failure))
            return
        self._attempts.begin(turn.task, turn.attempt, turn.model, time.monotonic())

    def cancel(self, task: str, attempt: int) -> None:
        """Stop an attempt between two tokens; it still ends in an `AttemptEnded`. Unknown ones are ignored."""
        if self._supervisor.bench is not None and self._attempts.has(task, attempt):
            self._supervisor.bench.send(Cancel(task=task, attempt=attempt))

    def rate(self) -> Rate:
        """Tokens per second of late, in and out counted over the same busy seconds."""
        return self._attempts.rate()

    def quote(self) -> Quote:
        """This machine is paid for."""
        return Quote(source="this machine")

    # ── what a bench says ────────────────────────────────────────────────────────────────────────────────────────

    async def events(self) -> list[WorkerEvent]:
        """Wait for at least one event, then return all that are there, in order.

        :raises BenchError: if no bench can be kept up; every event until then has been returned before.
        """
        return await self._outbox.take()

    def _hear(self, message: FromBench) -> None:
        """Turn what a bench says into events and answers."""
        incarnation = self._supervisor.incarnation
        match message:
            case Ready(pid=pid, slots=slots, engine=engine):
                self._slots, self._build = slots, engine
                self._models.forget_bench()
                self._outbox.add(BenchUp(incarnation=incarnation, pid=pid, slots=slots, engine=engine))
            case Loaded(card=card):
                self._models.described(card)
                self._questions.settle(message)
            case Counted() | Embedded() | Ranked() | Refused():
                self._questions.settle(message)
            case Finished():
                if (ended := self._attempts.end(message, time.monotonic())) is not None:
                    self._outbox.add(ended)
            case Measured():
                self._outbox.add(BenchReading(incarnation=incarnation, measured=message))
            case Signal():
                self._outbox.add(message)

    def _bury(self, end: End) -> None:
        """Tell the desk of a bench's end; what was under way there is lost, and nobody answers."""
        had_questions = self._questions.are_open
        self._attempts.lose_all()
        self._questions.fail(f"the bench ended: {end.reason}")
        if end.was_up:
            down = BenchDown(
                incarnation=self._supervisor.incarnation,
                reason=end.reason,
                is_expected=end.is_expected,
                had_questions=had_questions,
            )
            self._outbox.add(down)
