"""`gx verify`, `gx backup`, `gx repair`: whether the log is whole, a copy of it, and what can be had of a damaged one.

Parse, call, print: what is found out is in `gx.run.log`. DuckDB is loaded when a verb runs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from gx import output
from gx.cli.place import WorkspaceOpt
from gx.core.errors import NotFound, UsageError
from gx.output import ExitCode

if TYPE_CHECKING:
    from gx.node.workspace import Workspace
    from gx.run.log.repair import Repair
    from gx.run.log.verify import Report

JsonOpt = Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or a table on stdout.")]
LEAVING_S = 10.0
"""How long a node that was sent home may take to let the log go."""


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb in (verify, backup, repair):
        app.command(verb.__name__)(verb)


def verify(
    at: Annotated[
        Path | None, typer.Option("--at", help="A backup, instead of the workspace.", show_default=False)
    ] = None,
    as_json: JsonOpt = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Check that every event is there and unchanged: the chain of hashes, the content, the archives, the head file.

    Says what is wrong and where, and exits with 1 if anything is. Works beside live runs.
    """
    from gx.cli.place import workspace_of
    from gx.node.reader import ask

    if at is not None and not at.is_dir():
        raise UsageError(f"--at: expected the folder of a backup, got {at}", hint="`gx backup PATH` makes one")
    show_report(ask(workspace_of(at or workspace), lambda reader: reader.verify()), as_json)


def backup(
    path: Annotated[Path, typer.Argument(help="A folder that isn't there yet.", show_default=False)],
    as_json: JsonOpt = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Copy the log and its archives to a folder, while runs go on; the copy is verified before it gets its name.

    The folder is a workspace: `gx run --workspace PATH` goes on from it, and so does a copy of it as `.gx`.

    Example: gx backup "/mnt/disk/gx-$(date +%F)"
    """
    from gx.cli.place import workspace_of
    from gx.node.reader import ask

    target = path.expanduser().resolve()
    done = ask(workspace_of(workspace), lambda reader: reader.backup(target))
    columns = ["path", "seq", "events", "blobs", "archives", "size_bytes"]
    output.emit([msgspec.structs.asdict(done)], columns=columns, as_json=as_json)
    output.note(f"the log up to event {done.seq:,} is in {done.path}, and whole: gx verify --at {done.path}")


def repair(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is wrong and what would be done.")] = False,
    as_json: JsonOpt = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Mend a log whose end is damaged, and keep all of it that can be read.

    The files as they were are copied to `damaged-TIME` in the workspace first. What is wrong within the log's main
    file can't be mended: go on from a backup then.
    """
    from gx.cli.place import workspace_of

    mend(workspace_of(workspace), is_agreed=yes, is_dry=dry_run, as_json=as_json)


def mend(place: Workspace, *, is_agreed: bool, is_dry: bool, as_json: bool | None) -> None:
    """Repair the log of a workspace, and say what became of it. :raises typer.Exit: 1 if it still isn't whole."""
    import fcntl

    from gx.node.start import send_home
    from gx.run.log.repair import repair as repair_log

    if not place.folder.is_dir():
        raise NotFound(f"there is no workspace {place.folder}", hint="--workspace DIR names another folder")
    send_home(place.folder)
    with place.locked(fcntl.LOCK_EX, LEAVING_S):
        done = repair_log(place.folder, lambda plan: _agrees(plan, is_agreed=is_agreed, is_dry=is_dry), now=time.time)
    row = {
        **msgspec.structs.asdict(done),
        "is_whole": not done.problems and (not done.mended or done.copies is not None),
    }
    output.emit([row], columns=["events", "last_seq", "lost", "copies", "is_whole"], as_json=as_json)
    if not done.mended and not done.problems:
        output.note("nothing is wrong with the log")
    if done.copies:
        output.note(f"the files as they were are in {done.copies}; `gx verify` says that the log is whole")
    elif done.mended:
        output.note("nothing was changed")
    for problem in done.problems:
        output.note(f"problem: {problem}")
    if done.problems:
        output.note("this can't be repaired: go on from a backup, in this one's place or with --workspace")
    if not row["is_whole"]:
        raise typer.Exit(ExitCode.error)


def _agrees(plan: Repair, *, is_agreed: bool, is_dry: bool) -> bool:
    """Say what is wrong, and learn whether it is to be mended. :raises UsageError: if there is nobody to ask."""
    for found in plan.found:
        output.note(f"wrong: {found}")
    for done in plan.mended:
        output.note(f"mended: {done}" if is_agreed and not is_dry else f"to be done: {done}")
    if plan.lost:
        first, last = plan.last_seq + 1, plan.last_seq + plan.lost
        output.note(f"lost: {plan.lost:,} acknowledged events, {first:,} to {last:,}; what they did is done again")
    if is_dry or is_agreed:
        return not is_dry
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("the log is to be repaired, and there is no terminal to ask on", hint="add --yes")
    return typer.confirm("Repair it?", err=True)


def show_report(report: Report, as_json: bool | None) -> None:
    """Print what was found. :raises typer.Exit: 1 if the log isn't whole."""
    row = {**msgspec.structs.asdict(report), "is_whole": report.is_whole}
    output.emit(
        [row], columns=["events", "archived", "blobs", "blob_bytes", "erased", "lost", "is_whole"], as_json=as_json
    )
    for problem in report.problems:
        output.note(f"problem: {problem}")
    if report.lost:
        output.note(f"{report.lost} acknowledged events could not be read")
    if not report.is_whole:
        output.note("`gx repair` mends the log's end and its head; for anything else, go on from a backup")
        raise typer.Exit(ExitCode.error)
