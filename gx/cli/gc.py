"""`gx gc`: old runs into archives, and leftovers away, so that a workspace keeps to its room.

Parse, call, print: what goes is decided in `gx.node.collect`.
"""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gx import output
from gx.cli.place import WorkspaceOpt
from gx.core.errors import UsageError
from gx.core.words import counted
from gx.output import ExitCode

if TYPE_CHECKING:
    from gx.node.collect import Plan
    from gx.node.footprint import Part
    from gx.node.workspace import Workspace

KEEP_DAYS = 30.0
LEAVING_S = 10.0
"""How long a node that was sent home may take to let the log go."""
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)
JsonOpt = Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or a table on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("gc")(gc)


def gc(
    keep_days: Annotated[
        float, typer.Option("--keep-days", min=0, help="Archive runs that ended earlier.")
    ] = KEEP_DAYS,
    quota: Annotated[
        str | None,
        typer.Option("--quota", help="Archive more, the oldest first, until the folder takes no more: 5GB."),
    ] = None,
    drop_results: Annotated[
        bool, typer.Option("--drop-results", help="Answers of archived runs don't answer equal work any more.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: JsonOpt = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Archive old runs, and remove leftovers, old copies of damaged logs and old node logs.

    Archived runs are still listed and shown, and the log still verifies. Their answers go on answering equal work,
    unless they are dropped. Unfinished runs stay, and no model is touched.

    Example: gx gc --keep-days 7 --quota 5GB --dry-run
    """
    from gx.cli.place import workspace_of
    from gx.node.collect import carry_out, plan
    from gx.node.footprint import footprint
    from gx.node.start import send_home

    limit = None if quota is None else bytes_of(quota)
    place = workspace_of(workspace)
    send_home(place.folder)
    with place.shared(wait_s=LEAVING_S) as log:
        planned = plan(log, keep_s=keep_days * 86400, quota_bytes=limit, now=time.time())
    before = footprint(place.folder)
    if planned.is_empty or not _agrees(planned, yes=yes, dry_run=dry_run):
        _show(before, before, as_json)
        _tell_rest(planned, place, limit, sum(part.bytes for part in before), dry_run=dry_run)
        raise typer.Exit(ExitCode.ok if dry_run or planned.is_empty else ExitCode.error)
    with place.exclusive(wait_s=LEAVING_S) as log:
        done = carry_out(log, planned, keeps_results=not drop_results)
    after = footprint(place.folder)
    _show(before, after, as_json)
    if done is not None:
        output.note(f"archived {done.runs} runs, {done.events:,} events, in {place.folder / 'archive' / done.archive}")
        output.note(
            f"{done.carried:,} of the events stay in the log too; "
            + ("answers of archived runs are gone for reuse" if drop_results else "old answers are still reused")
        )
    _tell_rest(planned, place, limit, sum(part.bytes for part in after), dry_run=False)


def bytes_of(text: str) -> int:
    """A size such as 5GB, 500M or 1.5GiB in bytes. :raises UsageError: if it is none."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise UsageError(f"--quota: expected a size such as 5GB or 500MB, got {text!r}")
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** ("kmgt".index(found[2].lower()) + 1 if found[2] else 0))


def _agrees(planned: Plan, *, yes: bool, dry_run: bool) -> bool:
    """Say what is to go, and learn whether it may. :raises UsageError: if there is nobody to ask."""
    verb = "would be" if dry_run else "to be"
    if planned.runs:
        names = ", ".join(planned.runs[:5]) + " …" * (len(planned.runs) > 5)
        output.note(f"{verb} archived: {counted(len(planned.runs), 'run')}: {names}")
    for name in (*planned.files, *planned.copies):
        output.note(f"{verb} removed: {name}")
    if dry_run or yes:
        return not dry_run
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("something is to go, and there is no terminal to ask on", hint="add --yes, or --dry-run")
    return typer.confirm("Go on?", err=True)


def _tell_rest(planned: Plan, place: Workspace, limit: int | None, total: int, *, dry_run: bool) -> None:
    if planned.is_empty:
        output.note("there is nothing to archive or remove")
    if planned.unfinished:
        output.note(f"{planned.unfinished} unfinished runs stay: `gx runs` lists them")
    over = planned.over_bytes if dry_run else total - (limit or total)
    if limit is not None and over > 0:
        output.note(
            f"the quota is exceeded by {over:,} bytes all the same: nothing that was recorded is deleted; "
            f"`gx erase RUN` removes content, or put {place.folder} on a larger disk"
        )


def _show(before: list[Part], after: list[Part], as_json: bool | None) -> None:
    """The parts of the folder, the biggest first, with what they took before."""
    then = {part.part: part.bytes for part in before}
    rows: list[dict[str, Any]] = [
        {"part": part.part, "files": part.files, "bytes": part.bytes, "before": then.pop(part.part, 0)}
        for part in after
    ]
    rows += [{"part": name, "files": 0, "bytes": 0, "before": size} for name, size in then.items()]
    total = {"part": "total", "files": sum(row["files"] for row in rows), "bytes": sum(row["bytes"] for row in rows)}
    rows.append({**total, "before": sum(row["before"] for row in rows)})
    if not output.wants_json(as_json):
        rows = [{**row, "bytes": f"{row['bytes']:,}", "before": f"{row['before']:,}"} for row in rows]
    output.emit(rows, as_json=as_json)
