"""`gx ps`, `gx wait`, `gx node`: what runs now, and the process that it runs in.

Each asks the workspace's node. Where none is up, nothing runs: `gx ps` says so, and nothing is started for it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gx import output
from gx.cli.menu import Menu
from gx.cli.place import RunArg, WorkspaceOpt, node_of
from gx.core.errors import NotFound

if TYPE_CHECKING:
    from gx.node.call import Client
    from gx.node.client import RunEnd
    from gx.node.status import BenchNow, NodeStatus, RunStatusNow

JsonOpt = Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or a table on stdout.")]
WAITS_FRAMES = 4
"""Frames, four a second, that say that the run waits for a person, before that is believed."""
node_app = typer.Typer(
    name="node", help="The process that owns the workspace and keeps the model loaded.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb in (ps, wait):
        app.command(verb.__name__)(verb)
    app.add_typer(node_app, name="node", cls=Menu)


def ps(as_json: JsonOpt = None, workspace: WorkspaceOpt = None) -> None:
    """List what runs now: live runs with their progress, backlog, pace and time to go, and the benches.

    Example: gx ps --json | jq -r 'select(.kind == "run").left_s'
    """
    found = _status(workspace)
    if found is None:
        output.note("nothing is running: no node is up")
        return
    runs, benches = map(_run_row, found.runs), map(_bench_row, found.benches)
    if output.wants_json(as_json):
        output.emit([*runs, *benches], as_json=True)
        return
    output.emit([_shown_run(run) for run in found.runs], as_json=False)
    if not found.runs:
        sys.stdout.write("no live run\n")
    for bench in found.benches:
        sys.stdout.write(_bench_line(bench) + "\n")
    sys.stdout.write(f"node: process {found.pid}, {found.seq + 1:,} events, {found.usd:.2f} USD spent\n")
    sys.stdout.flush()


def wait(
    run: RunArg,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes.")] = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """Wait until a run is over, and exit with its exit code.

    Example: RUN=$(gx run recipe.yaml --detach); gx wait $RUN && gx export $RUN
    """
    from gx.cli import running

    output.set_mode(quiet=quiet)
    raise typer.Exit(running.finish(_end_of(node_of(workspace), run)))


@node_app.command("start")
def start(workspace: WorkspaceOpt = None) -> None:
    """Start the node, or let the one that is up stay, until `gx node stop`."""
    client = node_of(workspace, lingers=False)
    client.ask("POST", "/v1/node/stay")
    output.note(f"the node of {client.folder} is up, and stays")


@node_app.command("stop")
def stop(workspace: WorkspaceOpt = None) -> None:
    """End the node. Live runs are drained first: what is running ends, and the rest can be resumed."""
    from gx.cli.place import workspace_of
    from gx.node.call import find

    client = find(workspace_of(workspace).folder)
    if client is None:
        output.note("no node is up")
        return
    client.ask("POST", "/v1/node/leave")
    while find(client.folder) is not None:
        time.sleep(0.05)
    output.note("the node ended")


@node_app.command("status")
def status(as_json: JsonOpt = None, workspace: WorkspaceOpt = None) -> None:
    """Say which node is up: its process, its epoch, how many runs it has."""
    found = _status(workspace)
    if found is None:
        output.note("no node is up")
        return
    row = {name: getattr(found, name) for name in ("pid", "gx", "workspace", "epoch", "seq", "stays")}
    output.emit([row | {"runs": len(found.runs)}], as_json=as_json)


# ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _status(workspace: Path | None) -> NodeStatus | None:
    from gx.cli.place import workspace_of
    from gx.node.call import NodeGone, find
    from gx.node.status import NodeStatus

    client = find(workspace_of(workspace).folder)
    try:
        return None if client is None else client.ask("GET", "/v1/node", kind=NodeStatus)
    except NodeGone:
        return None


def _end_of(client: Client, run: str) -> RunEnd:
    """The end of a run, once it is there. Another node, where one dies meanwhile.

    A run that waits for a person is waited for only where there may be one.
    """
    from gx.cli.progress import asking
    from gx.node import wire
    from gx.node.call import NodeGone
    from gx.node.problem import decode
    from gx.node.start import ensure

    waited = 0
    while True:
        try:
            for line in client.lines(f"/v1/runs/{run}/watch", results="false"):
                frame = decode(line, wire.Frame)
                if frame.end is not None:
                    return wire.ended(frame.end)
                waited = waited + 1 if frame.progress is not None and frame.progress.waits else 0
                if waited > WAITS_FRAMES and frame.progress is not None and not output.has_person():
                    for text in asking(run, frame.progress):
                        output.note(text)
                    raise typer.Exit(output.ExitCode.waiting)
        except NotFound:
            return wire.ended(client.ask("GET", f"/v1/runs/{run}/end", kind=wire.End, timeout_s=None))
        except NodeGone:
            client = ensure(client.folder)


# ── showing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _run_row(run: RunStatusNow) -> dict[str, Any]:
    row = {name: getattr(run, name) for name in run.__struct_fields__ if name != "progress"}
    progress = {name: getattr(run.progress, name) for name in run.progress.__struct_fields__}
    return {"kind": "run", **row, **progress}


def _bench_row(bench: BenchNow) -> dict[str, Any]:
    return {"kind": "bench", **{name: getattr(bench, name) for name in bench.__struct_fields__}}


def _shown_run(run: RunStatusNow) -> dict[str, Any]:
    from gx.cli.progress import duration

    now = run.progress
    return {
        "run": run.run,
        "status": run.status,
        "done": f"{now.done:,}/{now.total:,}{'' if now.is_total_final else '+'}",
        "failed": f"{now.failed:,}",
        "running": f"{now.running:,}",
        "backlog": f"{run.backlog:,}",
        "tokens/s": "" if run.tokens_per_s is None else f"{run.tokens_per_s:,.1f}",
        "to go": "" if run.left_s is None else duration(run.left_s),
        "clients": "detached" if run.is_detached else f"{run.clients}",
    }


def _bench_line(bench: BenchNow) -> str:
    parts = [f"bench {bench.worker}: {bench.slots_busy} of {bench.slots} slots busy"]
    if bench.threads:
        parts.append(f"{bench.threads} threads")
    if bench.prompt_tokens_per_s:
        parts.append(f"{bench.prompt_tokens_per_s:,.0f} prompt tok/s")
    if bench.written_tokens_per_s:
        parts.append(f"{bench.written_tokens_per_s:,.0f} tok/s written")
    if bench.cached_share is not None:
        parts.append(f"{100 * bench.cached_share:.0f} % of prompts from the cache")
    return ", ".join(parts)
