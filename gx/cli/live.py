"""`gx wait`, `gx node`: the end of a run, and the process that runs are in. Each asks the workspace's node."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Annotated

import typer

from gx import output
from gx.cli.menu import Menu
from gx.cli.place import RunArg, WorkspaceOpt, node_of
from gx.cli.ps import JsonOpt, ps, status_of
from gx.core.errors import NotFound

if TYPE_CHECKING:
    from gx.node.call import Client
    from gx.node.client import RunEnd

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
    from gx.node.call import NodeGone, find

    client = find(workspace_of(workspace).folder)
    if client is None:
        output.note("no node is up")
        return
    with contextlib.suppress(NodeGone):
        if names := ", ".join(one["run"] for one in client.ask("GET", "/v1/node")["runs"]):
            output.note(f"what is running of {names} ends first; `gx requeue RUN` takes it back at once")
    with contextlib.suppress(NodeGone):  # that is what was asked for
        client.ask("POST", "/v1/node/leave")
    while find(client.folder) is not None:
        time.sleep(0.05)
    output.note("the node ended")


@node_app.command("status")
def status(as_json: JsonOpt = None, workspace: WorkspaceOpt = None) -> None:
    """Say which node is up: its process, its epoch, how many runs it has."""
    found = status_of(workspace)
    if found is None:
        output.note("no node is up")
        return
    row = {name: getattr(found, name) for name in ("pid", "gx", "workspace", "epoch", "seq", "stays")}
    output.emit([row | {"runs": len(found.runs)}], as_json=as_json)


# ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _end_of(client: Client, run: str) -> RunEnd:
    """The end of a run, once it is there. Another node, where one dies meanwhile.

    A run that waits for a person is waited for only where there may be one.
    """
    from gx.cli.progress import asking
    from gx.node import wire
    from gx.node.call import NodeGone
    from gx.node.problem import decode
    from gx.node.start import ensure

    waited, told = 0, set[str]()
    while True:
        with contextlib.suppress(NodeGone):
            try:
                for line in client.lines(f"/v1/runs/{run}/watch", results="false"):
                    frame = decode(line, wire.Frame)
                    for note in () if frame.progress is None else frame.progress.notes:
                        if note not in told:
                            told.add(note)
                            output.note(f"note: {note}")
                    if frame.end is not None:
                        return wire.ended(frame.end)
                    waited = waited + 1 if frame.progress is not None and frame.progress.waits else 0
                    if waited > WAITS_FRAMES and frame.progress is not None and not output.has_person():
                        for text in asking(run, frame.progress):
                            output.note(text)
                        raise typer.Exit(output.ExitCode.waiting)
            except NotFound:
                return wire.ended(client.ask("GET", f"/v1/runs/{run}/end", kind=wire.End, timeout_s=None))
        client = ensure(client.folder)
