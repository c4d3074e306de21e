"""`gx report`: a run as one page, as charts, or as figures.

Parse, ask, write: figures are counted in `gx.run.history.report` and drawn in `gx.report`. A file that was asked for
appears when it is whole.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gx import output
from gx.cli.place import RunArg, WorkspaceOpt
from gx.core.errors import GxError, UsageError

if TYPE_CHECKING:
    from gx.run.history.report.values import Report


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("report")(report)


def report(
    run: RunArg,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A file; - is stdout. By default RUN.html, or stdout where that is no terminal.",
            show_default=False,
        ),
    ] = None,
    svg: Annotated[
        Path | None, typer.Option("--svg", help="The charts alone, as files in this folder.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures alone, as JSON on stdout.")] = False,
    with_content: Annotated[
        bool, typer.Option("--with-content", help="Put a private run's rows and messages in, too.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes.")] = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """Tell a run on one page that needs no network: progress, speeds, workers, cost, failures, decisions, the recipe.

    The page has no scripts, follows the reader's dark or light theme, and can be printed. What is private stays out of
    it. A run that isn't over is told as it stands.

    Example: gx report triage-k3m9xq -o report.html
    """
    from gx.cli.asking import asked
    from gx.cli.place import workspace_of
    from gx.run.history.report.asking import report_of

    output.set_mode(quiet=quiet)
    if as_json and svg is not None:
        raise UsageError("--json and --svg are two forms of a report", hint="ask for one after the other")
    if svg is not None and out is not None:
        raise UsageError("--output is a file and --svg a folder", hint="ask for one after the other")
    found = asked(workspace_of(workspace), lambda ask: report_of(ask, run, with_content=with_content), runs=[run])
    if svg is not None:
        return _charts(found, svg)
    if as_json:
        import msgspec

        return _put(msgspec.json.encode(found) + b"\n", out or Path("-"), found)
    from gx.report.page import page_of

    default = Path(f"{found.run}.html") if sys.stdout.isatty() else Path("-")
    return _put(page_of(found).encode(), out or default, found)


def _charts(found: Report, folder: Path) -> None:
    """A file for each chart that the run has figures for."""
    from gx.report.charts import charts_of
    from gx.report.draw import alone, drawn

    charts = charts_of(found)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GxError(f"{folder} can't be made: {error.strerror}", hint="name another folder with --svg") from None
    for chart in charts:
        _write(folder / f"{chart.name}.svg", alone(drawn(chart)).encode())
    output.note(f"{len(charts)} charts of {found.run} in {folder}")


def _put(content: bytes, out: Path, found: Report) -> None:
    if str(out) == "-":
        with output.writing():
            stdout = output.data_out()
            stdout.write(content)
            stdout.flush()
        return
    _write(out, content)
    more = "; its contents are withheld, as it is private (--with-content)" if found.is_withheld else ""
    output.note(f"the report of {found.run} is in {out}{more}")


def _write(out: Path, content: bytes) -> None:
    """:raises GxError: if it can't be written."""
    try:
        if out.exists() and not out.is_file():  # a pipe or a device
            out.write_bytes(content)
            return
        new = out.with_name(f".{out.name}.{os.getpid()}")
        try:
            new.write_bytes(content)
            new.replace(out)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise GxError(f"{out} can't be written: {error.strerror}", hint="name another file with -o") from None
