"""The file of a workspace's memories, as it is made from the log: opened, brought up to date, made again.

It knows the log and the store behind its port; nothing of models or requests. Invariants: the file is never ahead of
the log; one that is missing, damaged, or not of this log as it is, is made again from it, and that is told; what takes
the place of another file is whole, and nobody reads the other one any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from gx.core.errors import WorkspaceError
from gx.core.event import Ref
from gx.core.ports import MemoryStore
from gx.run.log import EventLog
from gx.run.memory import remembering

FILE = "memory.db"
NEW = FILE + ".new"
"""One that is being made, and takes the place of the other when it is whole."""
READERS = 4
"""Questions that are answered at a time; a file that takes the place of another one waits for them."""
T = TypeVar("T")


class MemoryFile:
    """Owns the file of the log's folder. Nothing is opened before it is first needed.

    `open_store` opens a file, and makes one where there is none. `notes` are what its owner is to be told, once.
    """

    def __init__(self, log: EventLog, open_store: Callable[[Path], MemoryStore]) -> None:
        self._log, self._open_store = log, open_store
        self.path = log.folder / FILE
        self.notes: list[str] = []
        self._store: MemoryStore | None = None
        self._is_ready = False  # for questions: checked, and followed once
        self.is_renewed = False  # now: what is there answers meanwhile
        self._upto = -1
        self._began = log.last_seq  # what is remembered from here on never had a file
        self._changing = anyio.Lock()
        self._readers = anyio.Semaphore(READERS)

    def __repr__(self) -> str:
        return f"<MemoryFile {self._store or 'not opened'}>"

    async def follow(self, in_hand: Mapping[Ref, str] | None = None) -> MemoryStore:
        """The file with all that the log says by now; `in_hand` is as in `remembering.replayed`.

        :raises WorkspaceError: `memory.extra`, `memory.store` or `memory.full`; `memory.damaged` if it is while in use.
        """
        async with self._changing:
            if self._store is None:
                with anyio.CancelScope(shield=True):  # half checked, it would be taken for this log's by the next one
                    await self._open()
            store = self._store
            assert store is not None
            if (last := self._log.last_seq) > self._upto:
                await anyio.to_thread.run_sync(_apply, self._log, store, max(store.mark.seq, self._upto), in_hand)
                self._upto = last
            self._is_ready = True
            return store

    async def ask(self, question: Callable[[MemoryStore], T], *, follows: bool = True) -> T:
        """What the file answers: with all that the log says by now, or, unless it `follows`, as it was last followed.

        :raises WorkspaceError: as `follow`.
        """
        if follows or not self._is_ready:
            await self.follow()
        async with self._readers:
            if self._store is None:
                raise WorkspaceError(f"{self.path} is not open any more", code="memory.store", hint="ask again")
            return await anyio.to_thread.run_sync(question, self._store)

    async def renew(self, *, takes_vectors: bool) -> None:
        """Make the file again from the log, with the vectors that it has, or without any."""
        if takes_vectors:
            await self.follow()
        async with self._changing:
            self.is_renewed = True
            try:
                await self._make_again(takes_vectors=takes_vectors)
            finally:
                self.is_renewed = False

    async def close(self) -> None:
        """Let the file go."""
        store, self._store, self._is_ready = self._store, None, False
        if store is not None:
            await anyio.to_thread.run_sync(store.close)

    async def _open(self) -> None:
        try:
            await self._open_checked()
        except Exception:
            await self.close()
            raise

    async def _open_checked(self) -> None:
        """Open the file that is there, if it is of this log, or one that is made now."""
        _remove(self.path.with_name(NEW))  # of a node that was killed: it may hold what was forgotten since
        was_there = self.path.exists()
        try:
            store = self._store = await anyio.to_thread.run_sync(self._open_store, self.path)
        except WorkspaceError as error:
            if error.code != "memory.damaged":
                raise
            self.notes.append(f"{error.message}; it was made again from the log")
            await self._make_again(takes_vectors=False)
            return
        mark = store.mark
        if mark.seq >= 0 and await anyio.to_thread.run_sync(remembering.hash_at, self._log, mark.seq) != mark.hash:
            self.notes.append(f"{self.path} was not made from this log as it is; it was made again from the log")
            await self._make_again(takes_vectors=True)
        elif not was_there and await anyio.to_thread.run_sync(remembering.is_any, self._log, self._began):
            self.notes.append(f"{self.path} was not there; it was made from the log")

    async def _make_again(self, *, takes_vectors: bool) -> None:
        new = self.path.with_name(NEW)
        old = self.path if takes_vectors and self._store is not None else None
        upto = self._log.last_seq
        await anyio.to_thread.run_sync(_make, self._open_store, self._log, new, old)
        with anyio.CancelScope(shield=True):  # who asked may go away: no whole copy may be left that nobody forgets in
            async with self._alone():
                await self.close()
                _remove(self.path)
                new.replace(self.path)
                self._store = await anyio.to_thread.run_sync(self._open_store, self.path)
        self._upto = upto

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Nobody reads as long as the block lasts."""
        taken = 0
        try:
            for _ in range(READERS):
                await self._readers.acquire()
                taken += 1
            yield
        finally:
            for _ in range(taken):
                self._readers.release()


def _apply(log: EventLog, store: MemoryStore, after: int, in_hand: Mapping[Ref, str] | None = None) -> None:
    for changes, mark in remembering.replayed(log, after=after, in_hand=in_hand):
        store.apply(changes, mark)


def _make(open_store: Callable[[Path], MemoryStore], log: EventLog, new: Path, old: Path | None) -> None:
    """A whole file, which nothing stands beside."""
    _remove(new)
    try:
        store = open_store(new)
        try:
            _apply(log, store, -1)
            if old is not None:
                store.take_vectors(old)
        finally:
            store.close()
    except Exception:
        _remove(new)
        raise


def _remove(path: Path) -> None:
    for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        file.unlink(missing_ok=True)
