"""Asking a workspace's log: through its node while one is up, else the file itself.

Either way the same functions answer, so that nobody can tell which it was. What the log does not know any more is
looked for in its archives, which never change, and which anybody may read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from gx.core.errors import NotFound, WorkspaceError
from gx.core.event import LogArchived
from gx.node.workspace import Workspace

if TYPE_CHECKING:
    from gx.core.tables import Table
    from gx.node.call import Client
    from gx.run.log import EventLog
    from gx.run.log.backup import Backup
    from gx.run.log.verify import Report

T = TypeVar("T")
LOOK_S = 60.0
"""How long it may take to learn which archives there are."""
ONCE_MORE = 3
"""Times that a question is asked again, because a node came or went in the middle of it."""


class Reader(Protocol):
    """What may be asked of a log."""

    def table(self, sql: str, *, timeout_s: float, max_rows: int | None) -> Table:
        """The answer to a statement that reads. :raises QueryError: if it can't be answered."""

    def story(self, subject: str) -> dict[str, Any]:
        """Everything of a run or a task. :raises NotFound: if there is none, or :raises UsageError: several."""

    def pages(self, *, run: str | None, kind: str | None, after: int) -> Iterator[bytes]:
        """The lines of events after a `seq`, many at a time."""

    def verify(self) -> Report:
        """Whether the log is whole."""

    def backup(self, target: Path) -> Backup:
        """Copy the log to a folder. :raises UsageError: if something is there. :raises LogError: if it fails."""


def ask(workspace: Workspace, question: Callable[[Reader], T]) -> T:
    """The answer of whoever can give it. :raises WorkspaceError: if there is no log, or somebody else holds it."""
    try:
        return _ask_log(workspace, question)
    except NotFound:
        archives = _ask_log(workspace, _archives)
        if not archives:
            raise
    with archived(workspace, archives) as reader:
        return question(reader)


@contextlib.contextmanager
def archived(workspace: Workspace, archives: list[LogArchived] | None = None) -> Iterator[Reader]:
    """A reader of the archives alone, as long as the block lasts.

    :raises NotFound: if there are none. :raises LogError: if one is missing, or can't be read.
    """
    from gx.run.log.archive import open_archives

    found = _ask_log(workspace, _archives) if archives is None else archives
    if not found:
        raise NotFound("nothing of this log was archived", hint="`gx gc` archives old runs")
    with open_archives(workspace.folder, found) as log:
        yield _OfFile(log)


def _archives(reader: Reader) -> list[LogArchived]:
    sql = "SELECT data FROM events WHERE type = 'log.archived' ORDER BY seq"
    rows = reader.table(sql, timeout_s=LOOK_S, max_rows=None).rows
    return [msgspec.convert(row["data"], LogArchived) for row in rows]


def _ask_log(workspace: Workspace, question: Callable[[Reader], T]) -> T:
    for attempt in range(ONCE_MORE):
        try:
            with reading(workspace, wait_s=0.2 * attempt) as reader:
                return question(reader)
        except WorkspaceError as error:
            if error.code not in ("workspace.locked", "workspace.gone") or attempt == ONCE_MORE - 1:
                raise
    raise AssertionError("the last attempt raised")


@contextlib.contextmanager
def reading(workspace: Workspace, *, wait_s: float = 0.0) -> Iterator[Reader]:
    """A reader, as long as the block lasts. :raises WorkspaceError: as `ask`."""
    from gx.node.call import find

    client = find(workspace.folder)
    if client is None:
        with workspace.shared(wait_s=wait_s) as log:
            yield _OfFile(log)
        return
    yield _OfNode(client)


class _OfFile:
    def __init__(self, log: EventLog) -> None:
        self._log = log

    def table(self, sql: str, *, timeout_s: float, max_rows: int | None) -> Table:
        from gx.run.log.query import run_sql, table_of

        return table_of(run_sql(self._log, sql, timeout_s=timeout_s, max_rows=max_rows))

    def story(self, subject: str) -> dict[str, Any]:
        from gx.run.history.story import story_of

        return story_of(self._log, subject)

    def pages(self, *, run: str | None, kind: str | None, after: int) -> Iterator[bytes]:
        from gx.run.log.lines import pages_of

        return pages_of(self._log, run=run, kind=kind, after=after, last=self._log.last_seq)

    def verify(self) -> Report:
        from gx.run.log.verify import verify

        return verify(self._log)

    def backup(self, target: Path) -> Backup:
        from gx.run.log.backup import back_up

        return back_up(self._log, target)


class _OfNode:
    def __init__(self, client: Client) -> None:
        self._client = client

    def table(self, sql: str, *, timeout_s: float, max_rows: int | None) -> Table:
        from gx.core.tables import Table

        asked = {"sql": sql, "timeout_s": timeout_s, "max_rows": max_rows}
        found: Table = self._client.ask("POST", "/v1/query", asked, kind=Table, timeout_s=None)
        return found

    def story(self, subject: str) -> dict[str, Any]:
        found: dict[str, Any] = self._client.ask("GET", f"/v1/stories/{subject}", timeout_s=None)
        return found

    def pages(self, *, run: str | None, kind: str | None, after: int) -> Iterator[bytes]:
        return self._client.lines("/v1/events", run=run, type=kind, after=after)

    def verify(self) -> Report:
        from gx.run.log.verify import Report

        found: Report = self._client.ask("GET", "/v1/log/verification", kind=Report, timeout_s=None)
        return found

    def backup(self, target: Path) -> Backup:
        from gx.run.log.backup import Backup

        found: Backup = self._client.ask("POST", "/v1/log/backup", {"path": str(target)}, kind=Backup, timeout_s=None)
        return found
