"""Bytes to `edge.bench` to bytes: what a container does with a job, whoever rents it out.

The bench is a child process, kept up by the same worker that the desk uses: a GGML assertion is a value here, and not
the end of the entry point, which would be started again and billed. It knows no Modal; who claims and who pays comes
through the board.

Invariant: each job is answered by one report, and is run only if it was claimed and is paid for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from cloud import message as m
from cloud import roll
from edge.frames import pack_outcome
from edge.worker import EdgeWorker
from gx.core.errors import BenchError, GxError, ModelError, ours
from gx.core.message import Failure, Turn
from gx.core.ports import AttemptEnded, BenchDown, WorkerEvent


class Container:
    """One container and its bench, with `slots`, `threads` and `env`. `models` is the folder of the weights."""

    def __init__(
        self,
        *,
        name: str,
        models: Path,
        board: m.Board,
        slots: int | None = None,
        threads: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._name, self._models, self._board = name, models, board
        self._slots, self._threads, self._env = slots, threads, env
        self._began_at = time.time()
        self._worker: EdgeWorker | None = None
        self._life: asyncio.Task[None] | None = None
        self._presence: asyncio.Task[None] | None = None
        self._running: dict[tuple[str, int], asyncio.Future[m.Done | m.Lost]] = {}
        self._paid: dict[str, float] = {}
        self._is_stopping = False

    async def start(self) -> None:
        """Bring the bench up. What keeps it from coming up is told by the jobs that come."""
        with suppress(GxError):
            await self._bench()
        self._presence = asyncio.create_task(roll.answer_to(self._board, self._seat))

    async def stop(self) -> None:
        """End the bench."""
        self._is_stopping = True
        tasks = [task for task in (self._presence, self._life) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def execute(self, payload: bytes, call: str) -> bytes:
        """Run one job, which came as `call`. Cancelled, it stops the attempt and disturbs no other."""
        try:
            reply = await self._reply(m.read_job(payload), call)
        except Exception as error:  # noqa: BLE001 - the driver would be given it as it is, of whatever class
            reply = m.Lost(reason=f"its container failed: {type(error).__name__}: {error}", is_suspect=False)
        return m.pack(m.Report(seat=self._seat(), reply=reply))

    def _seat(self) -> m.Seat:
        return m.Seat(container=self._name, began_at=self._began_at, now=time.time())

    async def _reply(self, job: m.Job, call: str) -> m.Done | m.Lost | m.Taken | m.Unpaid:
        if not await self._is_paid(job.driver):
            return m.Unpaid()
        owner = await self._board.claim(job.claim, call)
        if owner != call:
            return m.Taken(call=owner)
        reply = await self._do(job)
        return msgspec.structs.replace(reply, is_claimed=True) if isinstance(reply, m.Lost) else reply

    async def _do(self, job: m.Job) -> m.Done | m.Lost:
        """Run what was claimed."""
        try:
            if self._is_stopping:
                raise BenchError("the container is stopping")
            worker = await self._bench()
            self._register(worker, job.weights)
            while worker.lease() is None:  # another bench is coming up
                await worker.describe(job.weights.digest)
        except GxError as error:
            if self._is_stopping:  # no answer: whoever owns the container gives the job to another one
                await asyncio.get_running_loop().create_future()
            return m.Lost(reason=error.message, is_suspect=False, is_model=isinstance(error, ModelError))
        return await self._run(worker, job.turn)

    def _register(self, worker: EdgeWorker, weights: m.Weights) -> None:
        """Say where the files of a model are. :raises ModelError: if one isn't on the volume."""
        files = {sha256: self._models / f"{sha256}.gguf" for sha256 in (weights.sha256, *dict(weights.adapters))}
        for sha256, file in files.items():
            if not file.exists():
                raise ModelError(f"the file {sha256[:12]}… is not on the volume", code="model.missing")
        adapters = tuple((str(files[sha256]), strength) for sha256, strength in weights.adapters)
        path = str(files[weights.sha256])
        worker.register(weights.digest, path, weights.context_tokens, adapters, sha256=weights.sha256)

    async def _run(self, worker: EdgeWorker, turn: Turn) -> m.Done | m.Lost:
        ended: asyncio.Future[m.Done | m.Lost] = asyncio.get_running_loop().create_future()
        self._running[turn.task, turn.attempt] = ended
        worker.submit(turn)
        try:
            return await ended
        except asyncio.CancelledError:
            worker.cancel(turn.task, turn.attempt)
            raise
        finally:
            self._running.pop((turn.task, turn.attempt), None)

    async def _is_paid(self, driver: str) -> bool:
        """Whether the driver vouches for what begins now. What it said holds until then, so it is seldom asked."""
        if self._paid.get(driver, 0.0) <= time.time():
            self._paid[driver] = await self._board.paid_until(driver)
        return self._paid[driver] > time.time()

    # ── the bench ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _bench(self) -> EdgeWorker:
        """The worker, once its bench is up; another one, if the last gave up. :raises BenchError: if none comes up."""
        if self._life is None or self._life.done():
            self._is_up: asyncio.Future[EdgeWorker] = asyncio.get_running_loop().create_future()
            self._life = asyncio.create_task(self._live(self._is_up))
        return await asyncio.shield(self._is_up)

    async def _live(self, is_up: asyncio.Future[EdgeWorker]) -> None:
        """One worker from its start to its end, in a task of its own: calls come and go in theirs."""
        try:
            async with EdgeWorker(epoch=0, threads=self._threads, slots=self._slots, env=self._env) as worker:
                is_up.set_result(worker)
                while True:
                    for event in await worker.events():
                        self._hear(event)
        except Exception as error:  # noqa: BLE001 - a bug there leaves nobody waiting, either
            why = ours(error)
            if not is_up.done():
                is_up.set_exception(why)
                is_up.exception()  # it may be that nobody waits for it
            self._lose(why.message)

    def _hear(self, event: WorkerEvent) -> None:
        if isinstance(event, AttemptEnded):
            waiting = self._running.get((event.task, event.attempt))
            if waiting is not None and not waiting.done():
                waiting.set_result(_end_of(event))
        elif isinstance(event, BenchDown):
            self._lose(event.reason)

    def _lose(self, reason: str) -> None:
        """The bench is gone, and with it all that ran there."""
        lost = [waiting for waiting in self._running.values() if not waiting.done()]
        for waiting in lost:
            waiting.set_result(m.Lost(reason=reason, alone=len(lost) == 1))


def _end_of(event: AttemptEnded) -> m.Done | m.Lost:
    """How an attempt ended. What a container says of a model is true of that container only: another machine may have
    the file whole, and room for it.
    """
    outcome = event.outcome
    if isinstance(outcome, Failure) and outcome.code.split(".")[0] == ModelError.code:
        return m.Lost(reason=outcome.message, is_suspect=False, is_model=True)
    return m.Done(packed=pack_outcome(outcome), ms=event.ms)
