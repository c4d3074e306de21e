"""The workspace: which `.gx` folder is used, and who may use it now.

One process writes at a time. `gx.lock` is flocked exclusively by the writer and shared by readers; it is never
unlinked, and it says who holds it. DuckDB's own lock is a POSIX one that falls when its owner closes any descriptor of
the file, so nothing here opens the log's files beside the log itself.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gx import settings
from gx.core.errors import WorkspaceError

if TYPE_CHECKING:
    from gx.run.log import EventLog

_RETRY_EVERY_S = 0.05


class Workspace(msgspec.Struct, frozen=True):
    """A `.gx` folder. It may not exist yet: the first writer makes it."""

    folder: Path

    @classmethod
    def find(cls, flag: Path | None = None, *, start: Path | None = None) -> Workspace:
        """The folder that was asked for, else the nearest `.gx` at or above `start`, else the user's own.

        A folder with a `gx.toml` is a project: its `.gx` is used even before it exists.
        """
        if flag is not None:
            return cls(flag.expanduser().resolve())
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / ".gx").is_dir() or (folder / "gx.toml").is_file():
                return cls(folder / ".gx")
        return cls(settings.user_data_dir() / "workspace")

    def has_log(self) -> bool:
        """Whether there is a log. :raises WorkspaceError: if the folder can't be looked into, as another user's."""
        try:
            (self.folder / "log.duckdb").stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise WorkspaceError(
                f"the workspace {self.folder} can't be looked into: {error.strerror}",
                code="workspace.unreadable",
                hint="choose a folder of your own with `--workspace DIR` or GX_WORKSPACE",
            ) from None
        return True

    @contextlib.contextmanager
    def exclusive(self, *, wait_s: float = 0.0) -> Iterator[EventLog]:
        """The log, for writing, as long as the block lasts.

        :raises WorkspaceError: if another process holds the workspace for longer than `wait_s`, or the folder can't
            be written or locked.
        """
        from gx.run.log import EventLog

        self.make()
        with self.locked(fcntl.LOCK_EX, wait_s) as handle:
            _write_holder(handle)
            log = EventLog.open(self.folder)
            try:
                yield log
            finally:
                log.close()
                os.ftruncate(handle, 0)

    @contextlib.contextmanager
    def shared(self, *, wait_s: float = 0.0) -> Iterator[EventLog]:
        """The log, for reading. :raises WorkspaceError: if there is none, or a writer holds it longer than `wait_s`."""
        from gx.run.log import EventLog

        if not self.has_log():
            raise WorkspaceError(
                f"there is no log in {self.folder}",
                code="workspace.empty",
                hint="`gx run RECIPE` makes one; `--workspace DIR` names another folder",
            )
        with self.locked(fcntl.LOCK_SH, wait_s):
            log = EventLog.open(self.folder, read_only=True)
            try:
                yield log
            finally:
                log.close()

    def holder(self) -> str:
        """Who holds the workspace, in words; empty if nobody said."""
        try:
            found = json.loads((self.folder / "gx.lock").read_text() or "{}")
        except (OSError, ValueError):
            return ""
        return f"process {found['pid']} on {found['host']}" if "pid" in found else ""

    def tell_holder(self, **more: object) -> None:
        """Say more of who holds the lock, beside its process. The caller holds it."""
        told = {"pid": os.getpid(), "host": socket.gethostname(), **more}
        with contextlib.suppress(OSError):
            (self.folder / "gx.lock").write_text(json.dumps(told))

    def make(self) -> None:
        """Make the folder where there is none. :raises WorkspaceError: if it can't be made."""
        try:
            str(self.folder).encode()
        except UnicodeEncodeError:  # DuckDB takes no other names
            raise WorkspaceError(
                f"expected a workspace whose path is UTF-8, got {str(self.folder)!a}",
                code="workspace.path",
                hint="choose another folder with `--workspace DIR` or GX_WORKSPACE",
            ) from None
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            ignore = self.folder / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise WorkspaceError(
                f"the workspace {self.folder} can't be made: {error.strerror}",
                code="workspace.read_only",
                hint="choose a folder that you may write with `--workspace DIR` or GX_WORKSPACE",
            ) from None

    @contextlib.contextmanager
    def locked(self, kind: int, wait_s: float) -> Iterator[int]:
        """Hold `gx.lock` (fcntl.LOCK_EX or LOCK_SH) as long as the block lasts, without opening the log.

        :raises WorkspaceError: as `exclusive` and `shared` do.
        """
        path = self.folder / "gx.lock"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if kind == fcntl.LOCK_SH and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
                yield -1  # a folder that nobody can write needs no lock to be read
                return
            raise WorkspaceError(
                f"{path} can't be opened: {error.strerror}",
                code="workspace.read_only",
                hint="choose a folder that you may write with `--workspace DIR` or GX_WORKSPACE",
            ) from None
        try:
            self._flock(handle, kind, time.monotonic() + wait_s)
            yield handle
        finally:
            os.close(handle)

    def _flock(self, handle: int, kind: int, until: float) -> None:
        while True:
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    who = self.holder() or "another process"
                    raise WorkspaceError(
                        f"the workspace {self.folder} is in use by {who}",
                        code="workspace.locked",
                        hint="wait until it ends, or use another folder with `--workspace DIR`",
                    ) from None
                time.sleep(_RETRY_EVERY_S)
            except OSError as error:
                raise WorkspaceError(
                    f"the folder {self.folder} can't be locked: {error.strerror}",
                    code="workspace.no_locks",
                    hint="a workspace needs a local disk; choose one with `--workspace DIR`",
                ) from None
            else:
                return


def _write_holder(handle: int) -> None:
    """Say who holds the lock. On a full disk nobody says, and the lock holds all the same."""
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
