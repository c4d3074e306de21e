"""`gx fork`, `gx retry`: a run once more, from what was asked for when it began.

Keys do the rest: what didn't change is answered from the log, and what failed has no result there. A fork is a run of
its own, never the resumption of the run that it is made from; the same command again goes on with a fork that was
interrupted, as `gx run` does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gx import output
from gx.cli.place import WorkspaceOpt, seconds
from gx.cli.printing import Printer, RawOpt, SelectOpt, Style, TeeOpt, style_of
from gx.core.errors import NotFound, UsageError

if TYPE_CHECKING:
    from gx.node.client import Submission
    from gx.node.workspace import Workspace
    from gx.run.history.past import Past

RunArg = Annotated[str, typer.Argument(help="A run, by its id or the start of it.", show_default=False)]
InputsOpt = Annotated[
    str | None, typer.Option("--inputs", "-i", help="Other input; needed where the run's was a stream. - is stdin.")
]
FormatOpt = Annotated[str | None, typer.Option("--format", help="What the other input is: jsonl, json, csv, …")]
DetachOpt = Annotated[
    bool, typer.Option("--detach", "-d", help="Print the new run's id and leave; it goes on (`gx ps`, `gx wait`).")
]
OrderedOpt = Annotated[bool, typer.Option("--ordered", help="Print records in the order of the rows.")]
WithInputOpt = Annotated[bool, typer.Option("--with-input", help="Put each row's own fields into its record.")]
JsonOpt = Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or a table on stdout.")]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("fork")(fork)
    app.command("retry")(retry)


def fork(
    run: RunArg,
    params: Annotated[list[str] | None, typer.Option("--set", help="Another parameter, as name=value.")] = None,
    models: Annotated[
        list[str] | None, typer.Option("--model", help="Another source of one of the recipe's models, as NAME=SOURCE.")
    ] = None,
    fresh_from: Annotated[
        str | None, typer.Option("--from", help="Compute this step anew, and all that follows from it.")
    ] = None,
    inputs: InputsOpt = None,
    fmt: FormatOpt = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows.")] = None,
    name: Annotated[str | None, typer.Option(help="A name for the new run.")] = None,
    deadline: Annotated[str | None, typer.Option(help="Stop after this long (90s, 30m, 2h) and exit 5.")] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Stop after this many tokens and exit 4.")] = None,
    detach: DetachOpt = False,
    ordered: OrderedOpt = False,
    with_input: WithInputOpt = False,
    select: SelectOpt = None,
    raw: RawOpt = False,
    tee: TeeOpt = None,
    as_json: JsonOpt = None,
    quiet: QuietOpt = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """Start a new run from what RUN was asked for, with changes: what they don't touch is answered from the log.

    The recipe is that of RUN, as it was then. Afterwards `gx diff RUN NEW` compares the two. Dollars that were agreed
    to for RUN are not handed on: beyond the recipe's own budget, `gx burst --cloud NEW` lets the new run rent.

    Example: gx fork triage-k3m9xq --set product="Acme Books" --model small=./tuned.gguf
    """
    import msgspec

    output.set_mode(as_json=as_json, quiet=quiet)
    style = style_of(with_input=with_input, select=select, raw=raw, tee=tee)
    place, past, wanted = _asked(run, workspace)
    wanted = _with_input(_changed(wanted, params or [], models or [], fresh_from), past, inputs, fmt)
    what = f"fork of {past.run}" + (f" from {fresh_from}" if fresh_from else "")
    is_stream = inputs is not None and _is_stream(inputs)
    wanted = msgspec.structs.replace(
        wanted,
        name=name or (None if is_stream else what),
        limit=limit or wanted.limit,
        deadline_s=seconds(deadline, flag="--deadline") if deadline else wanted.deadline_s,
        budget_tokens=budget or wanted.budget_tokens,
    )
    _execute(wanted, place, past.run, detach=detach, ordered=ordered, style=style, workspace=workspace)


def retry(
    run: RunArg,
    inputs: InputsOpt = None,
    fmt: FormatOpt = None,
    detach: DetachOpt = False,
    ordered: OrderedOpt = False,
    with_input: WithInputOpt = False,
    select: SelectOpt = None,
    raw: RawOpt = False,
    tee: TeeOpt = None,
    as_json: JsonOpt = None,
    quiet: QuietOpt = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """Run the failed rows of RUN once more, in a new run: what succeeded is answered from the log.

    A row fails again if nothing but chance could change it, and chance is seeded: change something with `gx fork`.
    Dollars that were agreed to for RUN are not handed on: `gx burst --cloud NEW` lets the new run rent.

    Example: gx retry triage-k3m9xq | jq 'select(.status == "failed")'
    """
    import msgspec

    output.set_mode(as_json=as_json, quiet=quiet)
    style = style_of(with_input=with_input, select=select, raw=raw, tee=tee)
    place, past, wanted = _asked(run, workspace)
    if past.status in ("running", "paused"):
        hint = f"wait for its end with `gx wait {past.run}`, or give it up with `gx cancel {past.run}`"
        raise UsageError(f"expected a run that is over, got {past.run}, which is {past.status}", hint=hint)
    is_stream = inputs is not None and _is_stream(inputs)
    wanted = _with_input(wanted, past, inputs, fmt)
    wanted = msgspec.structs.replace(wanted, name=None if is_stream else f"retry of {past.run}")
    _execute(wanted, place, past.run, detach=detach, ordered=ordered, style=style, workspace=workspace)


# ── what is asked for ────────────────────────────────────────────────────────────────────────────────────────────


def _asked(run: str, workspace: Path | None) -> tuple[Workspace, Past, Submission]:
    """The run, and what it was asked with, as a new one is. :raises NotFound: if the log doesn't say."""
    from gx.cli.asking import asked
    from gx.cli.place import workspace_of
    from gx.node import wire
    from gx.node.again import once_more
    from gx.node.start import ensure
    from gx.run.history.past import look_at

    place = workspace_of(workspace)
    past = asked(place, lambda ask: look_at(ask, run))
    try:
        found: wire.Asked = ensure(place.folder).ask("GET", f"/v1/runs/{past.run}/asked", kind=wire.Asked)
    except NotFound:
        words = f"gx run {past.created.file}" + (f" -i {past.created.inputs}" if past.created.inputs else "")
        raise NotFound(
            f"the log doesn't have what {past.run} was asked with: it is of an older gx, or was erased",
            hint=f"give the command itself, and equal work is answered from the log all the same: {words}",
        ) from None
    kept = once_more(found.submission)
    if kept.burst != found.submission.burst:
        output.note(f"note: dollars were agreed to for {past.run} alone; `gx burst --cloud` lets the new run rent")
    return place, past, kept


def _changed(wanted: Submission, params: list[str], models: list[str], fresh_from: str | None) -> Submission:
    """With other parameters, models, and a step to begin at. :raises GxError: if the recipe has none of that name."""
    import msgspec

    from gx.flow.parse import plan_recipe
    from gx.flow.remodel import with_models
    from gx.flow.source import suggest
    from gx.node.client import as_params

    text = wanted.recipe_text
    if models:
        text = with_models(text, _sources(models), file=wanted.recipe_file)
    wanted = msgspec.structs.replace(
        wanted, recipe_text=text, params=wanted.params | as_params(params), fresh_from=fresh_from
    )
    plan = plan_recipe(text, wanted.params, file=wanted.recipe_file)
    steps = {step.id for step in plan.steps}
    if fresh_from is not None and fresh_from not in steps:
        hint = suggest(fresh_from, steps, "steps of this recipe")
        raise UsageError(f"--from {fresh_from}: the recipe has no step `{fresh_from}`", hint=hint)
    return wanted


def _sources(pairs: list[str]) -> dict[str, str]:
    """`NAME=SOURCE` texts as a mapping; paths start from here. :raises UsageError: naming a text without "="."""
    found = dict[str, str]()
    for pair in pairs:
        name, equals, source = pair.partition("=")
        if not equals or not name.strip() or not source.strip():
            raise UsageError(f"--model: expected NAME=SOURCE, got {pair!r}", hint="such as --model small=./tuned.gguf")
        source = source.strip()
        is_path = source.startswith(("./", "../", "~", "/"))
        found[name.strip()] = str(Path(source).expanduser().absolute()) if is_path else source
    return found


def _with_input(wanted: Submission, past: Past, inputs: str | None, fmt: str | None) -> Submission:
    """With other input. :raises UsageError: if there is none, and the run's own was a stream, which is gone."""
    import msgspec

    if inputs is not None:
        return msgspec.structs.replace(wanted, inputs=inputs, input_format=fmt, folder=str(Path.cwd()))
    if wanted.inputs == "-":
        hint = "give the rows again with -i FILE, or -i - for stdin"
        raise UsageError(f"the input of {past.run} was a stream, and is gone", hint=hint)
    return wanted if fmt is None else msgspec.structs.replace(wanted, input_format=fmt)


def _is_stream(inputs: str) -> bool:
    """Whether such input comes once only: what it holds isn't known before, so no later run is the same."""
    try:
        return inputs == "-" or (Path(inputs).exists() and not Path(inputs).is_file() and not Path(inputs).is_dir())
    except (OSError, ValueError):
        return False


def _execute(
    wanted: Submission,
    place: Workspace,
    origin: str,
    *,
    detach: bool,
    ordered: bool,
    style: Style,
    workspace: Path | None,
) -> None:
    import msgspec

    from gx import settings
    from gx.cli import running

    wanted = msgspec.structs.replace(wanted, is_detached=detach)
    found = settings.load(workspace=workspace)
    if detach:
        output.write(running.detach(wanted, found, place) + "\n")
        return
    printer = Printer(style)
    end = running.execute(
        wanted, found, place, on_records=printer.show, is_ordered=ordered, with_input=style.needs_input
    )
    code = running.finish(end)
    output.note(f"compare: gx diff {origin} {end.run}")
    if printer.is_writing:  # to somebody who takes nothing: the thread that waits for that must not keep the process
        os._exit(code)
    raise typer.Exit(code)
