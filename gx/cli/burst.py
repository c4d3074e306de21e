"""`gx burst`: renting containers for a run, planning that on paper, and rehearsing it for nothing.

Parse, call, print: the plan is `gx.cli.paper`'s, leave to spend is `gx.cli.leave`'s, and the node does the rest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gx import output
from gx.cli.place import WorkspaceOpt, seconds
from gx.cli.run import AtCapOpt, FormatOpt, InputsOpt, SetOpt
from gx.core.errors import NotFound, UsageError
from gx.core.words import counted

if TYPE_CHECKING:
    from gx.cli.paper import Plan
    from gx.core.recipe import Recipe
    from gx.core.terms import AtCap, Mode, Terms
    from gx.flow.privacy import Outlook
    from gx.node.client import Submission
    from gx.node.workspace import Workspace
    from gx.run.replay.paper import Scene
    from gx.settings import Settings

HELP = """\
Rent containers for what this machine can't do in time; plan that on paper; or rehearse it for nothing.

With a live run (the only one, if none is named) it may rent from now on. With a recipe a run is begun that may. Nothing
is spent without --yes, an answer, or a budget of the command or the recipe, which is the run's cap for good.

\b
    --plan      prints how long it would take here alone and with 1, 2, 4, … containers, for how much; runs nothing
    --rehearse  runs it with containers that are processes on this machine: the same code, no money, nothing leaves
    --cloud     rents from Modal (see `gx cloud doctor`)

\b
Examples:
    gx burst --plan recipe.yaml -i tickets.jsonl --gpu L4 --gpu H100 --deadline 30m
    gx burst --rehearse recipe.yaml -i tickets.jsonl
    gx burst --cloud --budget '$2.00' --max-containers 8
"""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("burst", help=HELP)(burst)


def burst(
    subject: Annotated[
        str | None,
        typer.Argument(metavar="[RUN|RECIPE]", help="A run, by the start of its id, or a recipe.", show_default=False),
    ] = None,
    is_cloud: Annotated[bool, typer.Option("--cloud", help="Rent.")] = False,
    is_plan: Annotated[bool, typer.Option("--plan", help="Only say what it would take and cost.")] = False,
    is_rehearsal: Annotated[bool, typer.Option("--rehearse", help="Containers are processes on this machine.")] = False,
    containers: Annotated[
        int | None,
        typer.Option("--max-containers", min=1, help="At most so many at once; the recipe's, else 4, or 8 on paper."),
    ] = None,
    gpu: Annotated[
        list[str] | None, typer.Option("--gpu", help="A kind that may be rented; several are weighed.")
    ] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="The cap in US dollars, for the run's life.")] = None,
    cap: AtCapOpt = None,
    deadline: Annotated[
        str | None, typer.Option("--deadline", help="When it should be done, from now: 90s, 30m, 2h.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Rent as many as may be at once, worth it or not.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree to the estimate, and don't ask.")] = False,
    inputs: InputsOpt = None,
    fmt: FormatOpt = None,
    params: SetOpt = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows of a recipe's input.")] = None,
    name: Annotated[str | None, typer.Option(help="A name for the run that is begun.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute everything anew.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Print the run's id and leave; it goes on.")] = False,
    as_json: Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or a table on stdout.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress.")] = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """The verb itself; its help text is HELP."""
    from gx import settings
    from gx.cli.leave import at_cap, dollars, terms_of
    from gx.cli.paper import show
    from gx.cli.run import submission
    from gx.core.terms import GPUS
    from gx.node.bounds import check_offline, check_terms
    from gx.node.workspace import Workspace

    if is_cloud + is_plan + is_rehearsal != 1:
        raise UsageError("expected one of --cloud, --plan and --rehearse", hint="gx burst --help")
    if unknown := [one for one in gpu or () if one not in GPUS]:
        raise UsageError(f"--gpu: expected one of {', '.join(GPUS)}, got {unknown[0]!r}")
    output.set_mode(as_json=as_json, quiet=quiet)
    target_s = None if deadline is None else seconds(deadline, flag="--deadline")
    usd, then = dollars(budget), at_cap(cap)
    found = settings.load(workspace=workspace)
    place = Workspace.find(found.workspace)
    asked: Submission | None = None
    if subject is not None and _is_recipe(subject):
        asked = submission(
            Path(subject), inputs=inputs, fmt=fmt, params=params, limit=limit, name=name, fresh=fresh, detach=detach
        )
        recipe, outlooks = _read(asked)
    else:
        _refuse_for_runs(inputs=inputs, format=fmt, set=params, limit=limit, name=name, fresh=fresh, detach=detach)
        subject = subject or _only_run(place)
        subject, recipe, outlooks, age_s = of_run(place, subject)
        if not is_plan and subject not in _live(place):
            raise NotFound(f"{subject} is not live, so it can't rent", hint=f"gx resume {subject}, if it isn't over")
        target_s = None if target_s is None else target_s if is_plan else age_s + target_s
    terms = terms_of(
        recipe,
        mode="force" if force else "auto" if not is_plan else None,
        gpu=gpu,
        containers=containers or (8 if is_plan and recipe.burst is None else None),
        usd=usd,
        at_cap=then,
        target_s=target_s,
        is_rehearsal=is_rehearsal,
    )
    check_terms(terms)
    if not is_plan:
        check_offline(terms, is_offline=found.offline)
    if is_plan:
        show(_planned(asked, subject, terms, recipe, found, place), as_json)
    elif asked is not None:
        _begin(asked, terms, recipe, outlooks, found, place, is_yes=yes, detach=detach)
    else:
        _let(subject, terms, recipe, outlooks, found, place, is_yes=yes)


def let_rent(
    asked: Submission,
    settings: Settings,
    place: Workspace,
    *,
    mode: Mode | None,
    usd: float | None,
    at_cap: AtCap | None,
    is_yes: bool,
) -> Submission:
    """A submission that may rent, as `gx run --burst` has it. :raises GxError: if nobody agrees to what it may cost."""
    import msgspec

    from gx.cli.leave import agreed, terms_of
    from gx.node.bounds import check_offline

    recipe, outlooks = _read(asked)
    if mode is None and recipe.burst is None:
        raise UsageError("dollars are for renting, and nothing says that this run may", hint="add --burst auto")
    terms = terms_of(recipe, mode=mode, usd=usd, at_cap=at_cap)
    check_offline(terms, is_offline=settings.offline)
    plan = estimated(asked, None, terms, recipe, settings, place)
    return msgspec.structs.replace(asked, burst=agreed(terms, plan, outlooks, is_yes=is_yes))


# ── what is asked for ────────────────────────────────────────────────────────────────────────────────────────────


def _is_recipe(subject: str) -> bool:
    return subject.endswith((".yaml", ".yml")) or Path(subject).is_file()


def _read(asked: Submission) -> tuple[Recipe, Mapping[str, Outlook]]:
    """The recipe of a submission, and what of it is private. :raises GxError: if it can't be planned."""
    from gx.flow.parse import plan_recipe
    from gx.flow.privacy import steps_private

    plan = plan_recipe(asked.recipe_text, asked.params, file=asked.recipe_file)
    return plan.recipe, steps_private(plan)


def of_run(place: Workspace, start: str) -> tuple[str, Recipe, Mapping[str, Outlook], float]:
    """A run's whole id, its recipe, what of that is private, and the seconds since it began."""
    import msgspec

    from gx.cli.asking import asked
    from gx.flow.plan import make_plan
    from gx.flow.privacy import steps_private
    from gx.run.history.past import contents, look_at

    def told(ask: Any) -> tuple[Any, dict[str, bytes]]:
        past = look_at(ask, start)
        return past, contents(ask, [past.created.params])

    past, found = asked(place, told, runs=[start])
    plan = make_plan(past.recipe, msgspec.json.decode(found.get(past.created.params, b"{}")))
    return past.run, past.recipe, steps_private(plan), max(0.0, time.time() - past.created.started_at)


def _live(place: Workspace) -> list[str]:
    """The runs that are live now."""
    from gx.node.call import NodeGone, find
    from gx.node.status import NodeStatus

    client = find(place.folder)
    try:
        return [] if client is None else [run.run for run in client.ask("GET", "/v1/node", kind=NodeStatus).runs]
    except NodeGone:
        return []


def _only_run(place: Workspace) -> str:
    """The live run, if there is one only. :raises UsageError: if there are several. :raises NotFound: if none."""
    runs = _live(place)
    if not runs:
        raise NotFound("no run is live", hint="name a recipe: gx burst --cloud RECIPE; `gx runs` lists what was")
    if len(runs) > 1:
        raise UsageError(f"{len(runs)} runs are live: {', '.join(runs)}", hint="name one of them")
    return runs[0]


def _refuse_for_runs(**flags: Any) -> None:
    """:raises UsageError: naming a flag that only a recipe can have."""
    if given := [name for name, value in flags.items() if value]:
        raise UsageError(f"--{given[0]} goes with a recipe: a run has its own", hint="gx burst --help")


# ── doing it ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _planned(
    asked: Submission | None, run: str | None, terms: Terms, recipe: Recipe, settings: Settings, place: Workspace
) -> Plan:
    from gx.cli.paper import plan_of, scene_of_recipe, scene_of_run

    scene: Scene = scene_of_run(place, run or "", recipe) if asked is None else scene_of_recipe(asked, settings, place)
    return plan_of(scene, terms, recipe)


def estimated(
    asked: Submission | None, run: str | None, terms: Terms, recipe: Recipe, settings: Settings, place: Workspace
) -> Plan | None:
    """The plan, or None where nothing can be told of the work before it is done."""
    if terms.mode == "off" or terms.is_rehearsal:
        return None
    if asked is not None and asked.inputs == "-":
        output.note("note: rows come by stdin, so nobody can tell what they will cost")
        return None
    try:
        return _planned(asked, run, terms, recipe, settings, place)
    except UsageError as error:
        output.note(f"note: no estimate: {error.message}")
        return None


def _let(
    run: str,
    terms: Terms,
    recipe: Recipe,
    outlooks: Mapping[str, Outlook],
    settings: Settings,
    place: Workspace,
    *,
    is_yes: bool,
) -> None:
    """Let a live run rent. :raises GxError: if nobody agrees, or it isn't live."""
    from gx.cli.leave import agreed
    from gx.node.start import ensure

    plan = estimated(None, run, terms, recipe, settings, place)
    terms = agreed(terms, plan, outlooks, is_yes=is_yes)
    name: str = ensure(place.folder).ask("POST", f"/v1/runs/{run}/burst", terms)["run"]
    what = "rehearse with" if terms.is_rehearsal else "rent"
    cap = "" if terms.usd is None or terms.is_rehearsal else f" for at most ${terms.usd:.2f}"
    kinds = " or ".join(terms.gpu) or "any GPU"
    output.note(f"{name} may {what} up to {counted(terms.max_containers, 'container')} ({kinds}){cap}")
    output.note(f"`gx why {name}` tells what was decided, `gx spend {name}` what it cost")


def _begin(
    asked: Submission,
    terms: Terms,
    recipe: Recipe,
    outlooks: Mapping[str, Outlook],
    settings: Settings,
    place: Workspace,
    *,
    is_yes: bool,
    detach: bool,
) -> None:
    """Begin a run that may rent, and follow it. :raises GxError: if nobody agrees, or it can't begin."""
    import msgspec

    from gx.cli.bill import tell_rehearsed, tell_spent
    from gx.cli.leave import agreed
    from gx.cli.run import carry_out

    plan = estimated(asked, None, terms, recipe, settings, place)
    terms = agreed(terms, plan, outlooks, is_yes=is_yes)
    asked = msgspec.structs.replace(asked, burst=terms)
    on_end = (lambda run: tell_rehearsed(place, run)) if terms.is_rehearsal else lambda run: tell_spent(place, run)
    carry_out(asked, settings, place, detach=detach, on_end=on_end)
