"""`gx memory rm`: memories are forgotten for good, in the memory and in the log's file.

The node forgets and records that; what the memories said is erased from the file while nobody writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from gx import output
from gx.cli.memoryasking import Asking, JsonOpt, OnlyKindOpt, OnlySourceOpt, OnlySpaceOpt, QuietOpt, filter_of
from gx.cli.place import WorkspaceOpt
from gx.core.errors import GxError, UsageError, WorkspaceError
from gx.core.words import counted
from gx.output import ExitCode

if TYPE_CHECKING:
    from gx.core.tables import Table
    from gx.node.reader import Reader
    from gx.node.workspace import Workspace

LEAVING_S = 10.0
"""How long a node that was sent home may take to let the log go."""
ASK_S = 60.0
UIDS_AT_ONCE = 20_000
"""Memories of one question to the log."""


def register(app: typer.Typer) -> None:
    """Add the verb to `gx memory`."""
    app.command("rm")(rm)


def rm(
    uids: Annotated[
        list[str] | None, typer.Argument(metavar="UID…", help="Memories, by the starts of their names.")
    ] = None,
    namespace: OnlySpaceOpt = None,
    kind: OnlyKindOpt = None,
    source: OnlySourceOpt = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: JsonOpt = None,
    quiet: QuietOpt = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """Forget for good: what it said goes from the memory, from its indexes, and from the log, which still verifies.

    Runs keep the prompts that they were given it in; those are named, and `gx erase` erases them.

    Name memories, or say which: all of a namespace, of a kind, from a file or a folder.

    Example: gx memory rm --source ~/notes/old --yes
    """
    from gx.node.memoryroutes import Forget, Forgot

    output.set_mode(quiet=quiet)
    has_filter = namespace is not None or bool(kind) or bool(source)
    if not uids and not has_filter:
        raise UsageError("which memories?", hint="name them, or a --namespace, --kind or --source")
    if uids and has_filter:
        raise UsageError("expected names or a filter, got both")
    wanted = filter_of(namespace, kind, None, source, "") if has_filter else None
    asking = Asking(workspace, makes=False)
    what = counted(len(uids), "memory", "memories") if uids else "all memories that are meant"
    if not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError("something is to go for good, and there is no terminal to ask on", hint="add --yes")
        if not typer.confirm(f"Forget {what} for good?", err=True):
            output.note("nothing was forgotten")
            raise typer.Exit(ExitCode.error)
    found: Forgot = asking.ask("POST", "/forget", Forget(uids=tuple(uids or ()), filter=wanted), Forgot)
    output.emit([{"uid": uid} for uid in found.uids], as_json=as_json)
    if found.uids:
        _erase(asking.place, found.uids)
    else:
        output.note("nothing like that is remembered, so nothing was forgotten")


def _erase(place: Workspace, uids: Sequence[str]) -> None:
    """Have what was forgotten go from the log's file too, now if nobody writes it; say which runs still have it."""
    from gx.node.start import send_home
    from gx.run.log.erase_forgotten import erase_forgotten

    count, runs, untold = len(uids), list[str](), ""
    try:
        runs = _given(place, uids)
    except GxError as error:  # what was asked for is done all the same
        untold = error.message
    try:
        send_home(place.folder)
        with place.exclusive(wait_s=LEAVING_S) as log:
            erase_forgotten(log)
    except WorkspaceError as error:
        output.note(f"{count:,} forgotten; the log's file holds what was said until its node ends: {error.message}")
    else:
        output.note(f"{count:,} forgotten, and erased from the log")
    if untold:
        output.note(f"note: which runs were given some of it can't be told: {untold}")
    if runs:
        which = f"{len(runs):,} runs were" if len(runs) > 1 else "a run was"
        output.note(f"note: {which} given some of it, and its prompts hold that still; to erase those as well:")
        for run in runs:
            output.note(f"  gx erase {run}")


def _given(place: Workspace, uids: Sequence[str]) -> list[str]:
    """The runs whose prompts hold some of these memories."""
    from gx.node.reader import ask

    found = set[str]()
    for start in range(0, len(uids), UIDS_AT_ONCE):
        names = ", ".join(f"'{uid}'" for uid in uids[start : start + UIDS_AT_ONCE])
        sql = f"""SELECT DISTINCT run FROM recalled WHERE uid IN ({names}) AND run NOT IN
            (SELECT run FROM events WHERE type = 'content.erased' AND task IS NULL AND run IS NOT NULL)"""
        found.update(row["run"] for row in ask(place, partial(_table, sql)).rows)
    return sorted(found)


def _table(sql: str, log: Reader) -> Table:
    return log.table(sql, timeout_s=ASK_S, max_rows=None)
