"""`gx spend`: what runs took, here and rented, by run, step, model or GPU. The sums are `gx.run.history.spent`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from gx import output
from gx.cli.place import WorkspaceOpt
from gx.core.errors import UsageError
from gx.core.words import counted

if TYPE_CHECKING:
    from gx.run.history.past import Ask
    from gx.run.history.spent import Spent

JsonOpt = Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or a table on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("spend")(spend)


def spend(
    run: Annotated[
        str | None, typer.Argument(help="A run, by its id or the start of it; all runs without.", show_default=False)
    ] = None,
    by: Annotated[str, typer.Option("--by", help="run, step, model or gpu.")] = "run",
    as_json: JsonOpt = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Show what runs took: tokens and seconds on this machine, and rented containers with what they cost.

    A container costs from its reservation to its end, or to when it was last seen. What a rehearsal would have cost has
    a column of its own. Dollars by step or model are shares, by the tokens that containers computed. Archived runs are
    told one by one: name RUN.

    Example: gx spend --by gpu --json | jq -s 'map(.usd) | add'
    """
    from gx.cli.asking import asked
    from gx.cli.place import workspace_of
    from gx.run.history.past import find_run
    from gx.run.history.spent import By, archived, spent

    chosen: By | None = next((one for one in get_args(By) if one == by), None)
    if chosen is None:
        raise UsageError(f"--by: expected {', '.join(get_args(By)[:-1])} or {get_args(By)[-1]}, got {by!r}")
    place = workspace_of(workspace)

    def told(ask: Ask) -> tuple[list[Spent], int]:
        name = None if run is None else find_run(ask, run)
        return spent(ask, chosen, name), archived(ask) if run is None else 0

    lines, gone = asked(place, told, runs=[] if run is None else [run])
    is_json = output.wants_json(as_json)
    has_rented = any(line.containers or line.tokens_rented for line in lines)
    output.emit([_row(line, by, has_rented=has_rented, is_json=is_json) for line in lines], as_json=as_json)
    _notes(lines, by, gone)


def _row(line: Spent, by: str, *, has_rented: bool, is_json: bool) -> dict[str, Any]:
    tokens = line.tok_in + line.tok_out
    if is_json:
        figures = {name: getattr(line, name) for name in line.__struct_fields__ if name != "name"}
        return {by: line.name, "tokens": tokens, **figures}
    row = {
        by: line.name[:12] if by == "model" else line.name,
        "tokens in": f"{line.tok_in:,}",
        "out": f"{line.tok_out:,}",
        "seconds here": f"{line.seconds_here:,.1f}",
    }
    if has_rented:
        row |= {"tokens rented": f"{line.tokens_rented:,}", "containers": f"{line.containers:,}"}
        row |= {"container s": f"{line.container_s:,.1f}", "usd": f"{line.usd:.4f}"}
        row |= {"usd, rehearsed": f"{line.usd_rehearsed:.4f}"}
    return row


def _notes(lines: list[Spent], by: str, gone: int) -> None:
    if gone:
        output.note(f"note: without {counted(gone, 'archived run')}: `gx runs` lists them, `gx spend RUN` tells of one")
    if not lines and not gone:
        output.note("nothing was computed yet")
        return
    usd, rehearsed = sum(line.usd for line in lines), sum(line.usd_rehearsed for line in lines)
    output.note(f"in all: ${usd:.4f}" + (f", and ${rehearsed:.4f} that rehearsals would have cost" * bool(rehearsed)))
    if any(line.containers for line in lines) and by in ("step", "model"):
        output.note(f"dollars by {by} are shares of the run's, by the tokens that containers computed")
    if unended := sum(line.unended for line in lines):
        unseen = sum(line.unseen for line in lines)
        what = f"{unended:,} {'container has' if unended == 1 else 'containers have'} no end in the log"
        output.note(f"note: {what}, {unseen:,} of them never seen: what they cost after that is not counted")
