"""`gx cloud`: the app and the models on the account that containers are rented from, and whether all is ready.

Parse, call, print: what is done there is `cloud.deploy`'s. The SDK is loaded when a verb runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gx import output
from gx.cli.account import awaited, files_of, sdk, size_text
from gx.core.errors import UsageError
from gx.output import ExitCode

if TYPE_CHECKING:
    from cloud.cost import Rates
    from cloud.deploy import Deployed, Line

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Deploy and look after what bursts rent: an app at Modal, and the models on its volume.\n\nThe account is "
    "that of `modal token new`, or of MODAL_TOKEN_ID and MODAL_TOKEN_SECRET.",
)
JsonOpt = Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or text on stdout.")]
RecipeOpt = Annotated[Path | None, typer.Option("--recipe", help="The recipe whose models are meant.")]
T = TypeVar("T")


@app.command("deploy")
def deploy_app(
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="A model to upload as well.")] = None,
    recipe: RecipeOpt = None,
    as_json: JsonOpt = None,
) -> None:
    """Deploy the app of this gx, and upload the models that a recipe names. Costs nothing: no container starts.

    A model goes up once, under the SHA-256 of its file, and is checked; its adapters too. What goes up is the original
    file, which a GPU computes best, not a copy that was prepared for this machine.

    Example: gx cloud deploy --recipe recipe.yaml
    """
    from cloud.version import here

    deploy, account = sdk()
    files = files_of(recipe, model or [])
    output.note("deploying; the first image takes some minutes to build")
    name = awaited(deploy.deploy, account, is_told=not output.is_quiet())
    output.note(f"deployed {name}: {here()}")
    there = awaited(deploy.status, account)
    for sha256, file in files.items():
        if sha256 in there.models:
            output.note(f"{file.name}: is there already, as {sha256[:12]}")
            continue
        with _progress(file.name) as progress:
            awaited(deploy.upload, account, sha256, file, progress)
        output.note(f"{file.name}: is there now, as {sha256[:12]}, {size_text(file.stat().st_size)}")
    _show(awaited(deploy.status, account), None, files, as_json)


@app.command("status")
def status(recipe: RecipeOpt = None, as_json: JsonOpt = None) -> None:
    """Say what stands there: the app, the models with their sizes, and today's rates with their source.

    Example: gx cloud status --json | jq -r 'select(.kind == "rate") | [.gpu, .usd_per_hour] | @tsv'
    """
    deploy, account = sdk()
    from cloud import prices

    found = awaited(deploy.status, account)
    _show(found, awaited(prices.current, account), files_of(recipe, []), as_json)


@app.command("stop")
def stop(yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False, as_json: JsonOpt = None) -> None:
    """Stop the app and every container of it, whoever rents them. The models stay on the volume."""
    deploy, account = sdk()
    if not yes:
        if not output.has_person():
            raise UsageError("stopping ends every container, and there is no terminal to ask on", hint="add --yes")
        if not typer.confirm("Stop the app and every container of it?", err=True):
            output.note("nothing was stopped")
            raise typer.Exit(ExitCode.error)
    was_there = awaited(deploy.stop, account)
    if output.wants_json(as_json):
        output.emit([{"stopped": was_there}], as_json=True)
    output.note("stopped; `gx cloud deploy` brings it back" if was_there else "the app was not deployed")


@app.command("logs")
def logs(
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=20_000, help="The last N lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for further lines.")] = False,
    as_json: JsonOpt = None,
) -> None:
    """Print what the containers wrote: errors of their start, and what their benches say.

    Example: gx cloud logs -f --json | jq -r .text
    """
    deploy, account = sdk()
    is_json = output.wants_json(as_json)

    async def read() -> int:
        seen = 0
        async for line in deploy.logs(account, lines=lines, follow=follow):
            seen += 1
            _write_line(line, is_json=is_json)
        return seen

    if not awaited(read) and not follow:
        output.note("no container wrote anything in the last 30 days")


@app.command("doctor")
def doctor(recipe: RecipeOpt = None, as_json: JsonOpt = None) -> None:
    """Check whether a burst could begin: the SDK, a token, the account, the app, its version, the models.

    Each check is ok, warn or fail, with the command that helps. The exit code is 1 if one failed.
    """
    from gx.cli.cloudready import checks

    failed = False
    for check in checks(recipe):
        failed |= check.status == "fail"
        if output.wants_json(as_json):
            row = {"check": check.name, "status": check.status, "found": check.found, "advice": check.advice}
            output.emit([row], as_json=True)
        else:
            advice = f"{'':17}→ {check.advice}\n" if check.advice else ""
            output.write(f"{check.status:<4}  {check.name:<9}  {check.found}\n{advice}")
    raise typer.Exit(ExitCode.error if failed else ExitCode.ok)


def _progress(name: str) -> Any:
    """A bar on stderr, where a terminal can draw one."""
    from gx.cli.models import _progress as bar

    return bar(name)


# ── showing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _show(found: Deployed, rates: Mapping[str, Rates] | None, files: Mapping[str, Path], as_json: bool | None) -> None:
    rows = list(_rows(found, rates, files))
    if output.wants_json(as_json):
        output.emit(rows, as_json=True)
        return
    state = "not deployed" if found.app is None else found.app
    if found.app is not None:
        state += f", {found.version or 'of an unknown gx'}" + ("" if found.is_current() else "  (not this gx's)")
    output.write(f"app: {state}\n")
    if not found.models:
        output.write("models: none on the volume\n")
    output.emit([row for row in rows if row["kind"] == "model"], columns=["sha256", "size", "name"], as_json=False)
    if rates:
        output.write("\n")
        columns = ["gpu", "usd_per_s", "usd_per_hour", "source", "date"]
        shown = [row | {"usd_per_s": f"{row['usd_per_s']:.6f}"} for row in rows if row["kind"] == "rate"]
        output.emit(shown, columns=columns, as_json=False)
        output.note("rates are of a container: its GPU, 2 cores, 8 GiB of memory; for large models it has more")
    if found.app is not None and not found.is_current():
        output.note("what stands there was not deployed from this gx; `gx cloud deploy` does it anew")


def _rows(found: Deployed, rates: Mapping[str, Rates] | None, files: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    version = found.version
    yield {
        "kind": "app",
        "app": found.app,
        "gx": None if version is None else version.gx,
        "code": None if version is None else version.code,
        "deployed": None if version is None else _time(version.at),
        "is_current": found.is_current(),
    }
    names = _names() | {sha256: file.name for sha256, file in files.items()}
    for sha256, size in found.models.items():
        named = {"sha256": sha256, "name": names.get(sha256, ""), "size": size_text(size), "size_bytes": size}
        yield {"kind": "model", **named}
    for gpu, one in (rates or {}).items():
        price = {"usd_per_s": one.usd_per_s, "usd_per_hour": round(3600 * one.usd_per_s, 4)}
        yield {"kind": "rate", "gpu": gpu, **price, "source": one.source, "date": one.date}


def _names() -> dict[str, str]:
    """What the models on this machine are called, by SHA-256."""
    from edge import models
    from gx.settings import load

    return {found.sha256: found.name for found in models.list_local(load().models_dir)}


def _write_line(line: Line, *, is_json: bool) -> None:
    if is_json:
        row = {"time": _time(line.at), "source": line.source, "container": line.container, "text": line.text}
        output.emit([row], as_json=True)
        return
    text = "".join(c if c.isprintable() or c == "\t" else "�" for c in line.text)
    output.write(f"{_time(line.at)[11:23]}  {line.container[-8:]:<8}  {text}\n")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
