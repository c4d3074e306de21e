"""The append-only log: the only state of a workspace.

It is what may be asked of a file (`reading`) and, if it is open for writing, the thread that appends to it (`writer`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gx import __version__
from gx.core.errors import LogError
from gx.core.event import Blob, Body, Event
from gx.run.log.file import LogFile
from gx.run.log.reading import LogReader
from gx.run.log.writer import Writer


class EventLog(LogReader):
    """An open log. Its methods may be called from any thread, `append` from any asyncio loop."""

    def __init__(self, file: LogFile, *, now: Callable[[], float]) -> None:
        super().__init__(file)
        self._writer = None if file.is_read_only else Writer(file, now=now)

    def __repr__(self) -> str:
        return f"<EventLog {self.file.path} seq={self.last_seq} {self._writer or 'read-only'}>"

    @classmethod
    def open(
        cls, folder: Path, *, read_only: bool = False, now: Callable[[], float] = time.time, gx: str = __version__
    ) -> EventLog:
        """Open the log in `folder`; for writing, make it where there is none. `now` gives wall-clock seconds.

        :raises LogError: `log.missing` (read-only, and there is none), `log.locked`, `log.read_only`, `log.newer`,
            `log.format`, `log.damaged`, or `log.truncated` (it ends before the last acknowledged event).
        """
        return cls(LogFile.open_checked(folder, read_only=read_only, gx=gx, ts=int(now() * 1e6)), now=now)

    @property
    def folder(self) -> Path:
        return self.file.folder

    @property
    def last_hash(self) -> bytes:
        """The hash of the last durable event, 32 bytes."""
        return self.file.newest.hash

    async def append(self, bodies: Sequence[Body], blobs: Sequence[Blob] = (), *, source: str) -> list[Event]:
        """Write the events and blobs in one transaction; they are durable when it returns.

        A caller that is cancelled while it waits can't know whether they were written.
        :raises LogError: `log.full`, `log.write`, `log.closed`: nothing of this batch is there;
            `log.diverged`: a batch is there whose caller was told otherwise: open the log again and fold it anew.
        """
        return await self._open_writer().append(bodies, blobs, source=source)

    def append_sync(self, bodies: Sequence[Body], blobs: Sequence[Blob] = (), *, source: str) -> list[Event]:
        """`append`, for a thread without a loop; it blocks."""
        return self._open_writer().append_sync(bodies, blobs, source=source)

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise LogError("the log is not open for writing", code="log.closed")
        return self._writer

    def close(self) -> None:
        """Write what waits, fold the WAL into the file, and let it go. Closing twice does nothing more."""
        if self._writer is not None:
            self._writer.close()
        self.file.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
