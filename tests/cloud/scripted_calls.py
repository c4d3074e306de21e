"""A rented worker over calls that a test answers by hand."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from cloud import message as m
from cloud.rented import Gone, Refused
from cloud.worker import CloudWorker
from edge.frames import pack_outcome
from gx.core.errors import CloudError
from gx.core.message import Message, Outcome, Turn
from gx.core.ports import WorkerEvent
from gx.core.task import Quote

TINY = m.Weights(digest="tiny", sha256="ab")


class ScriptedCalls:
    """Calls that end when they are told to."""

    def __init__(self) -> None:
        self.spawned: list[m.Job] = []
        self.open: dict[str, m.Job] = {}
        self.replies: dict[str, bytes] = {}
        self.gone: dict[str, Gone] = {}
        self.cancelled: list[str] = []
        self.refuses = self.is_deaf = False
        self.paid_until = -1.0
        self.words: dict[str, bytes] = {}
        self.spawning, self.may_answer = anyio.Event(), anyio.Event()
        self.may_answer.set()

    async def spawn(self, payload: bytes) -> str:
        if self.refuses:
            raise Refused("the quota is reached")
        job = m.read_job(payload)
        self.spawned.append(job)
        call = f"fc-{len(self.spawned)}"
        self.open[call] = job
        self.spawning.set()
        await self.may_answer.wait()
        return call

    async def poll(self, call: str) -> bytes | None:
        if call in self.cancelled:
            raise Gone("it was cancelled")
        if call in self.gone:
            raise self.gone[call]
        return self.replies.get(call)

    async def cancel(self, call: str) -> None:
        if self.is_deaf:
            raise CloudError("no way there")
        self.cancelled.append(call)
        self.open.pop(call, None)

    async def scale(self, max_containers: int) -> None:
        pass

    async def vouch(self, driver: str, until: float) -> None:
        self.paid_until = until

    async def said(self, key: str) -> bytes | None:
        return self.words.get(key)

    def reply(self, call: str, reply: m.Done | m.Lost | m.Taken | m.Unpaid, *, container: str = "ta-1") -> None:
        seat = m.Seat(container=container, began_at=time.time(), now=time.time())
        self.replies[call] = m.pack(m.Report(seat=seat, reply=reply))
        self.open.pop(call, None)


def done(outcome: Outcome) -> m.Done:
    return m.Done(packed=pack_outcome(outcome), ms=1.0)


@asynccontextmanager
async def working(calls: ScriptedCalls) -> AsyncIterator[CloudWorker]:
    async with CloudWorker(calls, run="r", gpu="L4", driver="d", inputs=4, quote=Quote()) as worker:
        worker.register(TINY)
        worker.scale(1)
        worker.vouch(time.time() + 60)
        yield worker


def turn(task: str) -> Turn:
    return Turn(run="r", task=task, attempt=1, model="tiny", messages=(Message(role="user", content=task),))


async def next_of(worker: CloudWorker, kind: type) -> list[WorkerEvent]:
    """What it says up to the first of that kind; that is the last."""
    heard: list[WorkerEvent] = []
    with anyio.fail_after(60):
        while not any(isinstance(event, kind) for event in heard):
            heard.extend(await worker.events())
    return heard
