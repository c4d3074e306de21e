"""The one thread that writes the log, and the one that checkpoints it.

It knows batches, transactions and threads; nothing of what an event means. The invariants: a caller is answered after
its events are on the disk, whole batches or nothing; `seq` is dense; `ts` never goes back; each row's hash covers the
row before it; the head file never runs ahead.

The writer takes whatever waits and commits it at once, so that many callers share one sync of the disk. After an error
of DuckDB nothing is assumed: the file is opened again, and its last hash tells whether the batch is in. Checkpoints run
in a thread of their own, since inside a commit they would stall it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import duckdb

from gx.core.errors import LogError
from gx.core.event import Blob, Body, Event
from gx.run.log import schema
from gx.run.log.batch import Batch, call_in, let_in, settle
from gx.run.log.faults import explain
from gx.run.log.file import LogFile
from gx.run.log.head import Tail

CHECKPOINT_BYTES = 32 << 20
"""Size of the WAL past which it is folded into the file, beside the commits, since inside one it stalls it by 0.1 s.

Smaller costs time: each rewrites more than was new. Larger costs memory: what is in the WAL is in memory too; with
48 MB a run of 100,000 tasks holds 0.3 KiB a task more, and takes no less time.
"""
GROUP_EVENTS = 10_000
"""The most events of one commit; 1,000 rows take some 10 ms."""
GROUP_BYTES = 64 << 20
BACKLOG_EVENTS = 50_000
"""Events that may wait for the writer; beyond that, `append` waits before it queues."""
REMEMBERED_BLOBS = 16_384
"""Digests of the newest blobs, which are not written again."""


class Writer:
    """Writes one open file until it is closed. Its methods may be called from any thread."""

    def __init__(self, file: LogFile, *, now: Callable[[], float]) -> None:
        self._file = file
        self._now = now
        self._wake = threading.Condition()
        self._queue: deque[Batch] = deque()
        self._waiting = 0
        self._room: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._is_closed = False
        self._checkpoint_due = threading.Event()
        self._remembered: OrderedDict[str, None] = OrderedDict()
        newest = file.ask("SELECT digest FROM contents ORDER BY seq DESC LIMIT ?", [REMEMBERED_BLOBS])
        self._remember([digest for (digest,) in reversed(newest)])
        targets = ((self._write_forever, "gx-log"), (self._checkpoint_forever, "gx-log-checkpoint"))
        self._threads = [threading.Thread(target=target, name=name, daemon=True) for target, name in targets]
        for thread in self._threads:
            thread.start()

    def __repr__(self) -> str:
        return f"<Writer {'closed' if self._is_closed else f'{self._waiting} waiting'}>"

    async def append(self, bodies: Sequence[Body], blobs: Sequence[Blob] = (), *, source: str) -> list[Event]:
        """Write the events and blobs in one transaction; they are durable when it returns.

        A caller that is cancelled while it waits can't know whether they were written.
        :raises LogError: `log.full`, `log.write`, `log.closed`: nothing of this batch is there;
            `log.diverged`: a batch is there whose caller was told otherwise: open the log again and fold it anew.
        """
        if not bodies and not blobs:
            return []
        loop = asyncio.get_running_loop()
        batch = Batch(bodies, blobs, source)
        answer: asyncio.Future[list[Event]] = loop.create_future()
        batch.loop, batch.answer = loop, answer
        while (room := self._enqueue(batch)) is not None:
            await room
        return await answer

    def append_sync(self, bodies: Sequence[Body], blobs: Sequence[Blob] = (), *, source: str) -> list[Event]:
        """`append`, for a thread without a loop; it blocks."""
        if not bodies and not blobs:
            return []
        batch = Batch(bodies, blobs, source)
        answer: Future[list[Event]] = Future()
        batch.answer = answer
        with self._wake:
            self._wake.wait_for(lambda: self._waiting < BACKLOG_EVENTS or self._is_closed)
            self._enqueue(batch)
        return answer.result()

    def _enqueue(self, batch: Batch) -> asyncio.Future[None] | None:
        """Queue the batch; without room for it, a future that is done when there may be some."""
        with self._wake:
            if self._is_closed:
                raise LogError("the log is not open for writing", code="log.closed")
            if self._waiting >= BACKLOG_EVENTS and batch.loop is not None:
                room: asyncio.Future[None] = batch.loop.create_future()
                self._room.append((batch.loop, room))
                return room
            self._queue.append(batch)
            self._waiting += len(batch.bodies)
            self._wake.notify_all()
        return None

    def close(self) -> None:
        """Write what waits, and fold the WAL into the file. Closing twice does nothing more."""
        with self._wake:
            self._is_closed = True
            self._wake.notify_all()
        self._checkpoint_due.set()
        for thread in self._threads:
            thread.join()
        if self._threads and self._file.is_connected:
            self._file.checkpoint()
        self._threads = []

    def _write_forever(self) -> None:
        while group := self._next_group():
            try:
                error = self._commit(group)
            except Exception as unexpected:  # noqa: BLE001  (the callers wait for an answer, whatever it is)
                self._file.disconnect()
                error = LogError(f"the log can't be written: {unexpected!r}", code="log.write")
            settle(group, error)

    def _next_group(self) -> list[Batch]:
        """Wait for batches and take what one commit may hold; none when the log is closed."""
        group: list[Batch] = []
        events = size = 0
        with self._wake:
            self._wake.wait_for(lambda: self._queue or self._is_closed)
            while self._queue and events < GROUP_EVENTS and size < GROUP_BYTES:
                group.append(batch := self._queue.popleft())
                events, size = events + len(batch.bodies), size + batch.size
            self._waiting -= events
            room, self._room = self._room, []
            self._wake.notify_all()
        for loop, future in room:
            call_in(loop, let_in, future)
        return group

    def _commit(self, group: list[Batch], *, tries: int = 2) -> LogError | None:
        """Write the group in one transaction; `None`, or why nothing of it is there."""
        before = self._file.newest
        rows, blobs = self._number(group)
        after = Tail(rows[-1][0], rows[-1][-1], rows[-1][2]) if rows else before
        try:
            if not self._file.is_connected and self._reopened() != before:
                self._file.disconnect()
                return _diverged(self._file.path)
            con = self._file.connection()
            with self._file.writing:
                con.begin()
                _insert(con, "events", schema.EVENT_COLUMNS, rows)
                _insert(con, "contents", schema.CONTENT_COLUMNS, [schema.content_row(*blob) for blob in blobs])
                _insert(con, "parts", schema.PART_COLUMNS, [row for blob in blobs for row in schema.part_rows(*blob)])
                con.commit()
        except LogError as error:
            return error
        except duckdb.Error as error:
            try:
                found = self._reopened()
            except LogError:  # its fate is unknown; the next commit compares
                return explain(error, self._file.path, writing=True)
            if found == before:
                if tries > 1 and self._is_worth_a_try(error):
                    return self._commit(group, tries=tries - 1)
                return explain(error, self._file.path, writing=True)
            if found != after:
                self._file.disconnect()
                return _diverged(self._file.path)
        self._file.newest = after
        self._file.head.write(after)
        self._remember([blob.digest for _, blob in blobs])
        if self._file.wal_bytes() > CHECKPOINT_BYTES:
            self._checkpoint_due.set()
        return None

    def _is_worth_a_try(self, error: duckdb.Error) -> bool:
        """Whether nothing is wrong with the batch or the disk, now that the file was opened again."""
        if isinstance(error, duckdb.OutOfMemoryException):  # the WAL's rows are held in memory until then
            return self._file.checkpoint()
        return isinstance(error, duckdb.FatalException) or "has been invalidated" in str(error)  # a checkpoint failed

    def _reopened(self) -> Tail:
        """Open the file anew; the last event that it holds. :raises LogError: if it can't be opened."""
        self._file.disconnect()
        self._file.connect()
        return self._file.tail()

    def _number(self, group: list[Batch]) -> tuple[list[tuple[Any, ...]], list[tuple[int, Blob]]]:
        """The rows of `events`, and the blobs that are new, each with the `seq` of its batch's last event."""
        rows: list[tuple[Any, ...]] = []
        blobs: dict[str, tuple[int, Blob]] = {}
        (seq, before, ts), now_us = self._file.newest, int(self._now() * 1e6)
        ts = max(ts, now_us)
        entropy = os.urandom(16 * sum(len(batch.bodies) for batch in group))
        for batch in group:
            batch.events = []
            for body, data in zip(batch.bodies, batch.data, strict=True):
                seq += 1
                name = uuid.UUID(bytes=entropy[16 * len(rows) : 16 * len(rows) + 16], version=4)
                rows.append(row := schema.row_of(before, seq, name, ts, batch.source, body, data))
                before = row[-1]
                batch.events.append(Event(seq=seq, ts=ts, source=batch.source, body=body))
            for blob in batch.blobs:
                if blob.digest in self._remembered:
                    self._remembered.move_to_end(blob.digest)
                else:
                    blobs[blob.digest] = (seq, blob)
        return rows, list(blobs.values())

    def _remember(self, digests: Collection[str]) -> None:
        self._remembered.update(dict.fromkeys(digests))
        while len(self._remembered) > REMEMBERED_BLOBS:
            self._remembered.popitem(last=False)

    def _checkpoint_forever(self) -> None:
        while True:
            self._checkpoint_due.wait()
            self._checkpoint_due.clear()
            if self._is_closed:
                return
            self._file.checkpoint()


def _insert(con: duckdb.DuckDBPyConnection, table: str, columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    if not rows:
        return
    appender = con.appender(table, columns=columns)
    try:
        appender.append_rows(rows)
        appender.flush()
    finally:
        del appender  # held by a traceback, it would keep a failed database open


def _diverged(path: Path) -> LogError:
    return LogError(
        f"{path} holds events whose caller was told that they are not there",
        hint="start again: the log is read anew",
        code="log.diverged",
    )
