"""The append-only log: the only state of a workspace.

It knows batches, transactions and threads; nothing of what an event means. The invariants: `append` returns after its
events are on the disk, whole batches or nothing; `seq` is dense; `ts` never goes back; each row's hash covers the row
before it; the head file never runs ahead.

One thread writes: it takes whatever waits and commits it at once, so that many callers share one sync of the disk.
After an error of DuckDB nothing is assumed: the file is opened again, and its last hash tells whether the batch is in.
Checkpoints run in a thread of their own, since inside a commit they would stall it. Every question gets its own cursor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from gx import __version__
from gx.core.errors import LogError
from gx.core.event import Blob, Body, Event, decode_body, encode_body
from gx.run.log import schema
from gx.run.log.file import LogFile, Tail, explain

CHECKPOINT_BYTES = 48 << 20
"""Size of the WAL past which it is folded into the file, beside the commits, since inside one it stalls it by 0.1 s.

Smaller costs time: each rewrites more than was new. Larger costs memory: what is in the WAL is in memory too.
"""
GROUP_EVENTS = 10_000
"""The most events of one commit; 1,000 rows take some 10 ms."""
GROUP_BYTES = 64 << 20
BACKLOG_EVENTS = 50_000
"""Events that may wait for the writer; beyond that, `append` waits before it queues."""
REMEMBERED_BLOBS = 16_384
"""Digests of the newest blobs, which are not written again."""


class _Batch:
    """What one caller gave: encoded in its own thread, answered in its own loop (`None`: a plain thread)."""

    def __init__(self, bodies: Sequence[Body], blobs: Sequence[Blob], source: str) -> None:
        if "\n" in source:
            raise ValueError(f"source: expected one line, got {source!r}")
        self.bodies, self.blobs, self.source = bodies, blobs, source
        self.data = [encode_body(body).decode() for body in bodies]
        self.size = sum(map(len, self.data)) + sum(len(blob.content) for blob in blobs)
        self.events: list[Event] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.answer: asyncio.Future[list[Event]] | Future[list[Event]] = Future()


class EventLog:
    """An open log. Its methods may be called from any thread, `append` from any asyncio loop."""

    def __init__(self, file: LogFile, tail: Tail, *, now: Callable[[], float]) -> None:
        self.file = file
        self._tail = tail
        self._now = now
        self._wake = threading.Condition()
        self._queue: deque[_Batch] = deque()
        self._waiting = 0
        self._room: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._is_closed = file.is_read_only
        self._checkpoint_due = threading.Event()
        self._remembered: OrderedDict[str, None] = OrderedDict()
        self._had_results: dict[int, bool] = {}
        self._threads: list[threading.Thread] = []
        if file.is_read_only:
            return
        newest = file.ask("SELECT digest FROM blobs ORDER BY seq DESC LIMIT ?", [REMEMBERED_BLOBS])
        self._remember([digest for (digest,) in reversed(newest)])
        for target, name in ((self._write_forever, "gx-log"), (self._checkpoint_forever, "gx-log-checkpoint")):
            self._threads.append(threading.Thread(target=target, name=name, daemon=True))
            self._threads[-1].start()

    def __repr__(self) -> str:
        mode = "read-only" if self.file.is_read_only else "closed" if self._is_closed else f"{self._waiting} waiting"
        return f"<EventLog {self.file.path} seq={self._tail.seq} {mode}>"

    @classmethod
    def open(
        cls, folder: Path, *, read_only: bool = False, now: Callable[[], float] = time.time, gx: str = __version__
    ) -> EventLog:
        """Open the log in `folder`; for writing, make it where there is none. `now` gives wall-clock seconds.

        :raises LogError: `log.missing` (read-only, and there is none), `log.locked`, `log.read_only`, `log.newer`,
            `log.format`, `log.damaged`, or `log.truncated` (it ends before the last acknowledged event).
        """
        file, tail = LogFile.open_checked(folder, read_only=read_only, gx=gx, ts=int(now() * 1e6))
        return cls(file, tail, now=now)

    @property
    def folder(self) -> Path:
        return self.file.folder

    @property
    def last_seq(self) -> int:
        """The `seq` of the last durable event."""
        return self._tail.seq

    @property
    def last_hash(self) -> bytes:
        """The hash of the last durable event, 32 bytes."""
        return self._tail.hash

    # ── appending ────────────────────────────────────────────────────────────────────────────────────────────────

    async def append(self, bodies: Sequence[Body], blobs: Sequence[Blob] = (), *, source: str) -> list[Event]:
        """Write the events and blobs in one transaction; they are durable when it returns.

        A caller that is cancelled while it waits can't know whether they were written.
        :raises LogError: `log.full`, `log.write`, `log.closed`: nothing of this batch is there;
            `log.diverged`: a batch is there whose caller was told otherwise: open the log again and fold it anew.
        """
        if not bodies and not blobs:
            return []
        loop = asyncio.get_running_loop()
        batch = _Batch(bodies, blobs, source)
        answer: asyncio.Future[list[Event]] = loop.create_future()
        batch.loop, batch.answer = loop, answer
        while (room := self._enqueue(batch)) is not None:
            await room
        return await answer

    def append_sync(self, bodies: Sequence[Body], blobs: Sequence[Blob] = (), *, source: str) -> list[Event]:
        """`append`, for a thread without a loop; it blocks."""
        if not bodies and not blobs:
            return []
        batch = _Batch(bodies, blobs, source)
        answer: Future[list[Event]] = Future()
        batch.answer = answer
        with self._wake:
            self._wake.wait_for(lambda: self._waiting < BACKLOG_EVENTS or self._is_closed)
            self._enqueue(batch)
        return answer.result()

    def _enqueue(self, batch: _Batch) -> asyncio.Future[None] | None:
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

    # ── the writer's thread ──────────────────────────────────────────────────────────────────────────────────────

    def _write_forever(self) -> None:
        while group := self._next_group():
            try:
                error = self._commit(group)
            except Exception as unexpected:  # noqa: BLE001  (the callers wait for an answer, whatever it is)
                self.file.disconnect()
                error = LogError(f"the log can't be written: {unexpected!r}", code="log.write")
            _settle(group, error)

    def _next_group(self) -> list[_Batch]:
        """Wait for batches and take what one commit may hold; none when the log is closed."""
        group: list[_Batch] = []
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
            _call(loop, _let_in, future)
        return group

    def _commit(self, group: list[_Batch], *, tries: int = 2) -> LogError | None:
        """Write the group in one transaction; `None`, or why nothing of it is there."""
        before = self._tail
        rows, blob_rows = self._number(group)
        after = Tail(rows[-1][0], rows[-1][-1], rows[-1][2]) if rows else before
        try:
            if not self.file.is_connected and self._reopened() != before:
                self.file.disconnect()
                return _diverged(self.file.path)
            con = self.file.connection()
            with self.file.writing:
                con.begin()
                _insert(con, "events", schema.EVENT_COLUMNS, rows)
                _insert(con, "blobs", schema.BLOB_COLUMNS, blob_rows)
                con.commit()
        except LogError as error:
            return error
        except duckdb.Error as error:
            try:
                found = self._reopened()
            except LogError:  # its fate is unknown; the next commit compares
                return explain(error, self.file.path, writing=True)
            if found == before:
                if tries > 1 and isinstance(error, duckdb.FatalException):  # a checkpoint had killed the connection
                    return self._commit(group, tries=tries - 1)
                return explain(error, self.file.path, writing=True)
            if found != after:
                self.file.disconnect()
                return _diverged(self.file.path)
        self._tail = after
        self.file.write_head(after)
        self._remember([row[1] for row in blob_rows])
        if self.file.wal_bytes() > CHECKPOINT_BYTES:
            self._checkpoint_due.set()
        return None

    def _reopened(self) -> Tail:
        """Open the file anew; the last event that it holds. :raises LogError: if it can't be opened."""
        self.file.disconnect()
        self.file.connect()
        return self.file.tail()

    def _number(self, group: list[_Batch]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """The rows of `events`, and of `blobs` for the digests that are new."""
        rows: list[tuple[Any, ...]] = []
        blob_rows: dict[str, tuple[Any, ...]] = {}
        (seq, before, ts), now_us = self._tail, int(self._now() * 1e6)
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
                    blob_rows[blob.digest] = (seq, blob.digest, blob.label.value, blob.content)
        return rows, list(blob_rows.values())

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
            self.file.checkpoint()

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────

    def read(self, *, run: str | None = None, after: int = -1, batch: int = 10_000) -> Iterator[Event]:
        """Events with `seq` > `after`, in order, as far as the log went when the reading began.

        Of one run, or of no run at all (the node's own) with `run=""`.

        Pages are ranges of `seq`, so no transaction stays open between them. :raises LogError: `log.damaged`.
        """
        start, end = max(after + 1, 0), self._tail.seq
        where = "seq BETWEEN ? AND ?"
        values: list[str] = []
        if run is not None:
            only, values = ("run = ?", [run]) if run else ("run IS NULL", [])
            where = f"{where} AND {only}"
            ((low, high),) = self.file.ask(f"SELECT min(seq), max(seq) FROM events WHERE {only}", values)
            start, end = (end + 1, end) if low is None else (max(start, low), min(high, end))
        sql = f"SELECT seq, ts, source, data FROM events WHERE {where} ORDER BY seq"
        for first in range(start, end + 1, batch):
            for seq, ts, source, data in self.file.ask(sql, [first, min(end, first + batch - 1), *values]):
                try:
                    body = decode_body(data)
                except msgspec.DecodeError as error:
                    raise LogError(f"event {seq} can't be read: {error}", code="log.damaged") from error
                yield Event(seq=seq, ts=ts, source=source, body=body)

    def blobs(self, digests: Collection[str]) -> dict[str, bytes]:
        """The content of those digests; what was erased, or never there, is absent."""
        if not digests:
            return {}
        named = "SELECT rowid FROM blobs WHERE digest IN (SELECT unnest(?::VARCHAR[]))"  # reads no bytes but these
        return dict(self.file.ask(f"SELECT digest, bytes FROM blobs WHERE rowid IN ({named})", [list(digests)]))

    def find_results(self, keys: Collection[str], *, before_seq: int) -> dict[str, tuple[str, str, str]]:
        """For each key with a result at `seq` <= `before_seq`: the newest task that has it, its output, its finish.

        A result that was erased is not found, nor one that was cut where the context ended.
        """
        if not keys or not self._has_results(before_seq):
            return {}
        rows = self.file.ask(
            "SELECT key, task, data FROM events WHERE type = 'task.succeeded' AND key = any(?::VARCHAR[]) AND seq <= ?"
            " ORDER BY seq",
            [list(keys), before_seq],
        )
        results = [(key, task, msgspec.json.decode(data, type=_Result)) for key, task, data in rows]
        outputs = list({result.output for _, _, result in results})
        kept = set(self.file.ask("SELECT digest FROM blobs WHERE digest = any(?::VARCHAR[])", [outputs]))
        return {
            key: (task, result.output, result.finish)
            for key, task, result in results
            if (result.output,) in kept and result.finish != "context"
        }

    def _has_results(self, before_seq: int) -> bool:
        """Whether any task had succeeded by then. A run asks that for every batch, so the answer is kept."""
        if before_seq not in self._had_results:
            sql = "SELECT 1 FROM events WHERE type = 'task.succeeded' AND seq <= ? LIMIT 1"
            self._had_results[before_seq] = bool(self.file.ask(sql, [before_seq]))
        return self._had_results[before_seq]

    def newest_run(self, fingerprint: str) -> str | None:
        """The newest run of that fingerprint that did not finish, and of which nothing was erased."""
        rows = self.file.ask(
            """SELECT run FROM events
            WHERE run IN (SELECT run FROM events WHERE type = 'run.created' AND data->>'$.fingerprint' = ?)
                AND type IN ('run.created', 'run.finished', 'content.erased')
            GROUP BY run HAVING count(*) FILTER (type <> 'run.created') = 0 ORDER BY min(seq) DESC LIMIT 1""",
            [fingerprint],
        )
        return rows[0][0] if rows else None

    def has_run(self, run: str) -> bool:
        """Whether a run with that id was ever created."""
        return bool(self.file.ask("SELECT 1 FROM events WHERE type = 'run.created' AND run = ? LIMIT 1", [run]))

    def close(self) -> None:
        """Write what waits, fold the WAL into the file, and let it go. Closing twice does nothing more."""
        with self._wake:
            self._is_closed = True
            self._wake.notify_all()
        self._checkpoint_due.set()
        for thread in self._threads:
            thread.join()
        if self._threads and self.file.is_connected:
            self.file.checkpoint()
        self._threads = []
        self.file.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Result(msgspec.Struct):
    output: str
    finish: str = "stop"


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


def _settle(group: list[_Batch], error: LogError | None) -> None:
    """Answer every caller; those of one loop in one call."""
    loops: dict[asyncio.AbstractEventLoop, list[_Batch]] = {}
    for batch in group:
        if batch.loop is None:
            _answer([batch], error)
        else:
            loops.setdefault(batch.loop, []).append(batch)
    for loop, batches in loops.items():
        _call(loop, _answer, batches, error)


def _answer(batches: list[_Batch], error: LogError | None) -> None:
    for batch in batches:
        if batch.answer.done():
            continue
        if error is None:
            batch.answer.set_result(batch.events)
        else:
            batch.answer.set_exception(LogError(error.message, hint=error.hint, code=error.code))


def _let_in(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(function, *args)
