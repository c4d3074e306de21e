"""`gx run`: a recipe over its inputs, results on stdout."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gx import output
from gx.cli.place import WorkspaceOpt, seconds
from gx.cli.printing import Printer, RawOpt, SelectOpt, Style, TeeOpt, style_of
from gx.core.errors import UsageError

if TYPE_CHECKING:
    from gx.node.client import Submission
    from gx.node.workspace import Workspace
    from gx.settings import Settings

HELP = """\
Run a recipe over its inputs: one JSON line a row on stdout, progress and notes on stderr.

Every finished row is kept in the workspace's log at once. Run the same command again after a kill, and only the rest
is done; run it again after the end, and everything is answered from the log.

\b
Examples:
    gx run recipe.yaml
    gx run recipe.yaml -i tickets.csv --limit 5 --dry-run
    cat tickets.jsonl | gx run recipe.yaml -i - | jq .output.category
    gx run recipe.yaml --select .id --select category --raw > categories.tsv
"""

RecipeArg = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
InputsOpt = Annotated[
    str | None,
    typer.Option(
        "--inputs", "-i", help="JSON lines, CSV, text lines, a folder or glob of texts, a batch file; - is stdin."
    ),
]
FormatOpt = Annotated[
    str | None,
    typer.Option(
        "--format", help="What the input is, where its name doesn't tell: jsonl, json, csv, tsv, lines, files."
    ),
]
AtCapOpt = Annotated[
    str | None,
    typer.Option(
        "--at-cap",
        metavar="local|stop|ask",
        help="What becomes of the rest once the dollars are spent: done here, stopped with exit 4, or asked.",
    ),
]
SetOpt = Annotated[list[str] | None, typer.Option("--set", help="A parameter of the recipe, as name=value.")]
NotifyOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--notify",
        metavar="COMMAND|URL",
        help="Run this, or post to this https:// address, at the end, at the cap and when a person is needed.",
    ),
]
OtelOpt = Annotated[
    bool | None,
    typer.Option(
        "--otel/--no-otel",
        help="Send traces and metrics, without content, to the collector of OTEL_EXPORTER_OTLP_ENDPOINT.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("run", help=HELP)(run)


def submission(
    recipe: Path,
    *,
    inputs: str | None = None,
    fmt: str | None = None,
    params: list[str] | None = None,
    limit: int | None = None,
    sample: int | None = None,
    name: str | None = None,
    fresh: bool = False,
    deadline: str | None = None,
    budget: int | None = None,
    detach: bool = False,
    priority: float = 1.0,
    notify: list[str] | None = None,
) -> Submission:
    """What the command line asks for, as a node takes it. :raises GxError: if the recipe can't be read."""
    from gx.flow.parse import read_recipe, readable
    from gx.node.client import Submission, as_params

    text = read_recipe(recipe)
    for word in (*(params or ()), name or ""):
        if word.encode("utf-8", "replace").decode() != word:
            raise UsageError(f"expected UTF-8 on the command line, got {word!a}")
    deadline_s = None if deadline is None else seconds(deadline, flag="--deadline")
    return Submission(
        recipe_text=text,
        recipe_file=readable(recipe),
        recipe_folder=str(recipe.resolve().parent),
        folder=str(Path.cwd()),
        params=as_params(params or []),
        inputs=inputs,
        input_format=fmt,
        limit=limit,
        sample=sample,
        name=name,
        fresh=fresh,
        deadline_s=deadline_s,
        budget_tokens=budget,
        is_detached=detach,
        priority=priority,
        notify=tuple(notify or ()),
    )


def run(
    recipe: RecipeArg,
    inputs: InputsOpt = None,
    fmt: FormatOpt = None,
    params: SetOpt = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N rows: a trial that the full run reuses.")
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="N rows drawn at random, the same ones every time.")] = None,
    name: Annotated[
        str | None, typer.Option(help="A name for the run, by which streamed input can be resumed.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute everything anew, whatever the log knows.")] = False,
    deadline: Annotated[str | None, typer.Option(help="Stop after this long (90s, 30m, 2h) and exit 5.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Stop after this many tokens (200000) and exit 4; or rent for at most these dollars ($2.00).",
            metavar="TOKENS|USD",
        ),
    ] = None,
    burst: Annotated[
        str | None, typer.Option(help="Rent containers: auto where it is worth it, off never, force at once.")
    ] = None,
    at_cap: AtCapOpt = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree to what a burst may cost, and don't ask.")] = False,
    priority: Annotated[
        float, typer.Option(min=0.01, max=100, help="Share of the tokens beside other runs: 2 gets twice what 1 gets.")
    ] = 1.0,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Print the run's id and leave; it goes on (`gx ps`, `gx wait`).")
    ] = False,
    monitor: Annotated[
        bool, typer.Option("--monitor", help="Begin the run, as --detach does, and watch it in the monitor.")
    ] = False,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="Print records in the order of the rows, each after those before it.")
    ] = False,
    with_input: Annotated[
        bool, typer.Option("--with-input", help="Put each row's own fields into its record.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and its cost; run nothing.")] = False,
    select: SelectOpt = None,
    raw: RawOpt = False,
    tee: TeeOpt = None,
    notify: NotifyOpt = None,
    otel: OtelOpt = None,
    as_json: Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or a table on stdout.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress.")] = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """The verb itself; its help text is HELP."""
    from gx import settings
    from gx.cli import leave
    from gx.node.workspace import Workspace

    output.set_mode(as_json=as_json, quiet=quiet)
    style = style_of(with_input=with_input, select=select, raw=raw, tee=tee)
    if tee is not None and (detach or monitor):
        raise UsageError("--tee writes what is printed, and a run that goes on by itself prints nothing here")
    mode, then = leave.burst_mode(burst), leave.at_cap(at_cap)
    tokens, usd = leave.tokens_or_dollars(budget, bursts=mode not in (None, "off"))
    asked = submission(
        recipe,
        inputs=inputs,
        fmt=fmt,
        params=params,
        limit=limit,
        sample=sample,
        name=name,
        fresh=fresh,
        deadline=deadline,
        budget=tokens,
        detach=detach,
        priority=priority,
        notify=notify,
    )
    found = settings.load(workspace=workspace, otel=otel)
    place = Workspace.find(found.workspace)
    if dry_run:
        from gx.cli.dryrun import dry_run as show

        raise typer.Exit(show(asked, found, place))
    if mode is not None or usd is not None or then is not None:
        from gx.cli.burst import let_rent

        asked = let_rent(asked, found, place, mode=mode, usd=usd, at_cap=then, is_yes=yes)
    if monitor:
        from gx.cli.monitor import begin

        begin(asked, found, place)
    carry_out(asked, found, place, detach=detach, ordered=ordered, style=style)


def carry_out(
    asked: Submission,
    settings: Settings,
    place: Workspace,
    *,
    detach: bool = False,
    ordered: bool = False,
    style: Style | None = None,
    on_end: Callable[[str], None] = lambda run: None,
) -> None:
    """Run what is asked for, tell `on_end` its id, and leave with its exit code. :raises GxError: if it can't begin."""
    from gx.cli import running

    if detach:
        output.write(running.detach(asked, settings, place) + "\n")
        return
    style = style or Style()
    printer = Printer(style)
    end = running.execute(
        asked, settings, place, on_records=printer.show, is_ordered=ordered, with_input=style.needs_input
    )
    code = running.finish(end)
    on_end(end.run)
    if printer.is_writing:  # to somebody who takes nothing: the thread that waits for that must not keep the process
        os._exit(code)
    raise typer.Exit(code)
