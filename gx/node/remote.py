"""A run as its client has it: asked of the workspace's node, followed to its end, whatever becomes of the node.

If the node dies, the client starts the next one, asks for the same run again, and passes over what it has already. What
it read of its stdin is kept in a file of its own until then, since a pipe can't be read twice.
"""

from __future__ import annotations

import errno
import os
import queue
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec

from gx.core.errors import GxError, InputError, NotFound, WorkspaceError
from gx.core.view import RunStatus
from gx.node import problem, wire
from gx.node.call import Client, NodeGone
from gx.node.client import Progress, RunEnd, Started, Submission
from gx.node.names import as_meant, as_told
from gx.node.start import MOST_DEATHS, insist
from gx.run.record import Record
from gx.settings import Settings

END_S = 5.0
_AHEAD = 8
_PATIENCE_S = 0.2
_CHUNK = 1 << 16


class RemoteRun:
    """A run that this process is attached to. What is to be told goes to `on_note` at first, and then to `notes`."""

    def __init__(
        self,
        folder: Path,
        asked: wire.Asked,
        *,
        is_ordered: bool,
        with_input: bool,
        on_note: Callable[[str], None],
    ) -> None:
        self._folder, self._asked = folder, asked
        self._wanted = {"ordered": "true" if is_ordered else None, "input": None if with_input else "false"}
        self._frames: queue.Queue[wire.Frame | Exception] = queue.Queue(_AHEAD)
        meant = as_meant(asked.submission)
        self._stdin = _Spool(_input_of(meant), folder, self._fail) if _is_stream(meant) else None
        if self._stdin is not None:
            self._asked = wire.Asked(
                submission=msgspec.structs.replace(asked.submission, inputs="-"), settings=asked.settings
            )
        self._seen = set[int]()
        self._leaves: tuple[str, str] | None = None
        self._progress: Progress | None = None
        self._end: RunEnd | None = None
        self._is_left = False
        self._warned = set[str]()
        self.notes: list[str] = []
        self._client, self.started = self._submit(on_note)
        threading.Thread(target=self._follow, name="gx-follow", daemon=True).start()

    def __repr__(self) -> str:
        return f"<RemoteRun {self.started.run}>"

    async def records(self) -> AsyncIterator[list[Record]]:
        """Results of the output step, in the order of their coming, until the run is over for this client.

        :raises GxError: if the run can't go on, as no node comes up any more.
        """
        while self._end is None and not self._is_left:
            frame = await anyio.to_thread.run_sync(self._take, abandon_on_cancel=True)
            if frame is None:
                continue
            if isinstance(frame, Exception):
                raise frame
            self._progress = frame.progress or self._progress
            if frame.warning is not None and frame.warning not in self._warned:
                self._warned.add(frame.warning)
                self.notes.append(f"note: {frame.warning}")
            if records := self._fresh(frame.results):
                yield records
            if frame.end is not None:
                self._end = wire.ended(frame.end)

    def progress(self) -> Progress | None:
        """How the run stands; `None` until the node has said."""
        return self._progress

    async def drain(self, reason: str) -> None:
        """Let what is running end, then stop."""
        await self._leave("drain", reason)

    async def stop(self, reason: str) -> None:
        """Stop now."""
        await self._leave("stop", reason)

    async def end(self, *, is_delivered: bool = True, error: GxError | None = None) -> RunEnd:
        """How the run ended for this client; whether all records were handed on, and what went wrong in that."""
        if self._end is None and not self._is_left:
            with anyio.move_on_after(END_S):
                self._end = await anyio.to_thread.run_sync(self._look_up, abandon_on_cancel=True)
        end = self._end or _unknown(self.started, self._progress)
        is_cut_off = end.status is RunStatus.finished and not is_delivered
        status = RunStatus.interrupted if is_cut_off else end.status
        return msgspec.structs.replace(end, status=status, error=end.error or error)

    # ── the thread that follows ──────────────────────────────────────────────────────────────────────────────────

    def _follow(self) -> None:
        """Frames until the end; another node, where one dies."""
        deaths, had = 0, 0
        try:
            while True:
                try:
                    for line in self._client.lines(f"/v1/runs/{self.started.run}/watch", **self._wanted):
                        frame = problem.decode(line, wire.Frame)
                        self._frames.put(frame)
                        if frame.end is not None:
                            return
                    last = "its answer ended too soon"
                except (NodeGone, NotFound) as error:  # the next node may be there by now, and not know the run
                    last = error.message
                if self._is_left:
                    return
                deaths = deaths + 1 if len(self._seen) == had else 1
                had = len(self._seen)
                if deaths > MOST_DEATHS:
                    raise WorkspaceError(
                        f"{deaths} nodes died one after the other; the last time: {last}",
                        code="workspace.node",
                        hint="`gx doctor` may say why",
                    )
                self.notes.append("note: the node died; the next one goes on")
                self._client, _ = self._submit(self.notes.append, self.started.run)
                if self._leaves is not None:
                    self._tell(*self._leaves)
        except Exception as error:  # noqa: BLE001  raised again where the frames are taken
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._frames.put(error)

    def _submit(self, on_note: Callable[[str], None], again: str | None = None) -> tuple[Client, Started]:
        """Ask for the run, of whichever node there is; `again` is the id of one that was followed before."""

        def ask(client: Client) -> tuple[Client, Started]:
            if self._stdin is not None:
                path = f"/v1/inputs/{self._asked.submission.token}"
                threading.Thread(target=_send, args=(client, path, self._stdin), name="gx-stdin", daemon=True).start()
            asked = self._asked if again is None or self._stdin is not None else of_run(client, again, self._asked)
            return client, client.ask("POST", "/v1/runs", asked, kind=Started, timeout_s=None)

        return insist(self._folder, ask, on_note=on_note)

    def _take(self) -> wire.Frame | Exception | None:
        """The next frame; `None` if none came for a while: a thread that waits keeps the process."""
        try:
            return self._frames.get(timeout=_PATIENCE_S)
        except queue.Empty:
            return None

    def _fresh(self, results: tuple[wire.Result, ...]) -> list[Record]:
        records = []
        for result in results:
            if (name := int(result.task.id, 16)) not in self._seen:
                self._seen.add(name)
                records.append(wire.record_of(result))
        return records

    async def _leave(self, how: str, reason: str) -> None:
        self._leaves = how, reason
        await anyio.to_thread.run_sync(self._tell, how, reason, abandon_on_cancel=True)

    def _tell(self, how: str, reason: str) -> None:
        try:
            body = {"reason": reason, "unless_others": True}
            if self._client.ask("POST", f"/v1/runs/{self.started.run}/{how}", body).get("is_left"):
                self._is_left = True
                self.notes.append(f"note: {self.started.run} goes on for others who want it")
        except GxError:  # it died, and the next one is told; or the run is over
            pass

    def _look_up(self) -> RunEnd | None:
        """The end, asked for without the results."""
        try:
            for line in self._client.lines(f"/v1/runs/{self.started.run}/watch", results="false"):
                frame = problem.decode(line, wire.Frame)
                if frame.end is not None:
                    return wire.ended(frame.end)
        except GxError:
            pass
        return None


async def submit(
    folder: Path,
    asked: Submission,
    settings: Settings,
    *,
    is_ordered: bool,
    with_input: bool,
    on_note: Callable[[str], None],
) -> RemoteRun:
    """Ask the workspace's node for a run. :raises GxError: what the node refuses, or that none can be started."""
    whole = wire.Asked(submission=msgspec.structs.replace(as_told(asked), token=os.urandom(6).hex()), settings=settings)
    begin = partial(RemoteRun, folder, whole, is_ordered=is_ordered, with_input=with_input, on_note=on_note)
    return await anyio.to_thread.run_sync(begin, abandon_on_cancel=True)


class _Spool:
    """A stream that can be sent again from its start: what was read of it is kept in a file without a name.

    The file is in `folder`, where the log keeps the same rows: /tmp may be memory. Why it can't be read on, or kept,
    is told to `on_failure`.
    """

    def __init__(self, source: int, folder: Path, on_failure: Callable[[Exception], None]) -> None:
        self._source, self._on_failure = source, on_failure
        self._file: Any = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  it lives as long as the process
        self._size, self._is_ended = 0, False
        self._reading = threading.Lock()

    def chunks(self) -> Iterator[bytes]:
        """All of the stream, as it comes. :raises GxError: as `on_failure` was told."""
        position = 0
        while True:
            if position == self._size and not self._read_on(position):
                return
            chunk = os.pread(self._file.fileno(), min(_CHUNK, self._size - position), position)
            position += len(chunk)
            yield chunk

    def _read_on(self, position: int) -> bool:
        """Read something, unless another has by now; whether there is more than `position`."""
        with self._reading:
            if position == self._size and not self._is_ended:
                try:
                    self._keep(os.read(self._source, _CHUNK))
                except GxError as error:
                    self._on_failure(error)
                    raise
                except OSError as error:
                    failure = InputError(f"the input can't be read: {error.strerror or error}")
                    self._on_failure(failure)
                    raise failure from None
            return position < self._size

    def _keep(self, chunk: bytes) -> None:
        self._is_ended = not chunk
        try:
            while chunk:
                count = os.pwrite(self._file.fileno(), chunk, self._size)
                self._size, chunk = self._size + count, chunk[count:]
        except OSError as error:
            is_full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
            raise GxError(
                f"{'the disk is full' if is_full else error.strerror}: what comes on stdin can't be kept",
                hint="make room; nothing recorded is lost",
            ) from None


def of_run(client: Client, run: str, asked: wire.Asked) -> wire.Asked:
    """The same, asked for by the token of that run, whoever began it: it is found though it is over by now."""
    try:
        token = client.ask("GET", f"/v1/runs/{run}/asked", kind=wire.Asked).submission.token
    except NotFound:  # its recipe was erased
        return asked
    return wire.Asked(submission=msgspec.structs.replace(asked.submission, token=token), settings=asked.settings)


def _send(client: Client, path: str, spool: _Spool) -> None:
    try:
        client.send(path, spool.chunks())
    except GxError:  # who follows the run learns of it; or the run takes no more
        pass


def _is_stream(asked: Submission) -> bool:
    """Whether only this process can read the input: stdin, or a pipe such as the shell's `<(command)` gives."""
    if asked.inputs is None:
        return False
    path = Path(asked.folder) / Path(asked.inputs)
    try:
        return asked.inputs == "-" or (path.exists() and not path.is_file() and not path.is_dir())
    except (OSError, ValueError):
        return False


def _input_of(asked: Submission) -> int:
    """:raises InputError: if it can't be read, as a pipe of another user."""
    if asked.inputs == "-":
        return sys.stdin.fileno()
    try:
        return os.open(Path(asked.folder) / Path(str(asked.inputs)), os.O_RDONLY)
    except OSError as error:
        message = f"{asked.inputs}: expected a file that can be read, got: {error.strerror or error}"
        raise InputError(message) from None


def _unknown(started: Started, last: Progress | None) -> RunEnd:
    """What is known of a run whose node says no more."""
    return RunEnd(
        run=started.run, is_streamed=False, status=RunStatus.interrupted, limit="", reason="", skipped=0, cancelled=0,
        excused=0, succeeded=last.done - last.failed if last else 0, failed=last.failed if last else 0,
        left=last.total - last.done if last else 0, reused=last.reused if last else 0,
        tokens_in=last.tokens_in if last else 0, tokens_out=last.tokens_out if last else 0,
        seconds=last.elapsed_s if last else 0.0, skipped_steps={}, first_errors=[], warnings=[],
    )  # fmt: skip
