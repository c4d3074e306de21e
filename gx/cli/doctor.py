"""`gx doctor`: whether everything is there that a run needs. The checks are `gx.node.health`'s."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gx import output
from gx.cli.place import WorkspaceOpt
from gx.output import ExitCode

if TYPE_CHECKING:
    from gx.node.check import Check

HELP = """\
Check what a run needs: the engine and its build, models, disk, settings, the workspace and its log, and a bench that
answers.

Each check is ok, warn or fail, with what to do. The exit code is 1 if one failed. What is slower than it need be is a
warning that says how much. With --tune the model's prompts and answers are timed with other threads, batches and kinds
of attention; whatever is faster is used by all later runs on this machine.

\b
Examples:
\b
    gx doctor
    gx doctor --tune -m qwen3-4b
    gx doctor --quick --json | jq -r 'select(.status != "ok").advice'
"""

_COLOURS = {"ok": "\x1b[32m", "warn": "\x1b[33m", "fail": "\x1b[31m"}


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("doctor", help=HELP)(doctor)


def doctor(
    is_tuning: Annotated[
        bool, typer.Option("--tune", help="Measure for a minute how a model is computed fastest here, and keep that.")
    ] = False,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="A catalogue name or another source.")
    ] = "smollm2",
    quick: Annotated[bool, typer.Option("--quick", help="Start no bench and load no model.")] = False,
    as_json: Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or text on stdout.")] = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """The verb itself; its help text is HELP."""
    from gx.node.health import checks

    output.set_mode(as_json=as_json)
    if is_tuning:
        from gx.cli.tune import tune

        tune(model)
        return
    failed = False
    for check in checks(workspace=workspace, quick=quick, model_name=model):
        failed |= check.status == "fail"
        if output.wants_json():
            row = {"check": check.name, "status": check.status, "found": check.found, "advice": check.advice}
            output.emit([row], as_json=True)
        else:
            output.put(_line(check))
    raise typer.Exit(ExitCode.error if failed else ExitCode.ok)


def _line(check: Check) -> str:
    colour, plain = (_COLOURS[check.status], "\x1b[0m") if output.has_colour(sys.stdout) else ("", "")
    advice = f"{'':17}→ {check.advice}\n" if check.advice else ""
    return f"{colour}{check.status:<4}{plain}  {check.name:<9}  {check.found}\n{advice}"
