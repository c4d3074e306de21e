"""`gx memory stats`, `compact`, `rebuild` and `reembed`: how the memory stands, and its file made again.

Parse, ask the workspace's node, print; while it works on the file, how far it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gx import output
from gx.cli import memoryeval
from gx.cli.memoryasking import Asking, JsonOpt, ModelOpt, QuietOpt, model_of, tell, told_how_far
from gx.cli.place import WorkspaceOpt
from gx.core.words import counted

if TYPE_CHECKING:
    from gx.core.memory import MemoryStats
    from gx.node.memories import How


def register(app: typer.Typer) -> None:
    """Add the verbs to `gx memory`."""
    app.command("stats")(stats)
    app.command("compact")(compact)
    app.command("rebuild")(rebuild)
    app.command("reembed")(reembed)
    memoryeval.register(app)


def stats(as_json: JsonOpt = None, quiet: QuietOpt = False, workspace: WorkspaceOpt = None) -> None:
    """Say what is remembered in each namespace, and by which model it is embedded.

    Example: gx memory stats
    """
    from gx.core.memory import MemoryStats

    output.set_mode(quiet=quiet)
    _show(Asking(workspace, makes=False).ask("GET", "", None, MemoryStats), as_json)


def compact(as_json: JsonOpt = None, quiet: QuietOpt = False, workspace: WorkspaceOpt = None) -> None:
    """Write the memory's file anew without the room that forgotten memories left in it. Vectors are kept.

    Example: gx memory compact
    """
    _renew("compact", None, as_json, quiet, workspace)


def rebuild(as_json: JsonOpt = None, quiet: QuietOpt = False, workspace: WorkspaceOpt = None) -> None:
    """Make the memory again from the log, and compute its vectors anew. It answers as it did.

    Example: gx memory rebuild
    """
    _renew("rebuild", None, as_json, quiet, workspace)


def reembed(
    model: ModelOpt = None, as_json: JsonOpt = None, quiet: QuietOpt = False, workspace: WorkspaceOpt = None
) -> None:
    """Compute all vectors anew, by another model or by the one in use, which the workspace keeps from then on.

    Where some have no vector, as after it was interrupted, only those are made.

    Example: gx memory reembed --model bge-small
    """
    _renew("reembed", model, as_json, quiet, workspace)


def _renew(how: How, model: str | None, as_json: bool | None, quiet: bool, workspace: Path | None) -> None:
    from gx.core.memory import MemoryStats
    from gx.node.memoryroutes import Renewal

    output.set_mode(quiet=quiet)
    asking = Asking(workspace, makes=False)
    asked = Renewal(how=how, model=model_of(model))
    with told_how_far(asking):
        stats: MemoryStats = asking.ask("POST", "/renewal", asked, MemoryStats)
    _show(stats, as_json)


def _show(stats: MemoryStats, as_json: bool | None) -> None:
    import msgspec

    tell(stats.notes)
    output.emit([msgspec.to_builtins(one) for one in stats.namespaces], as_json=as_json)
    by = f"embedded by {stats.model} ({stats.dimensions} dimensions)" if stats.model else "without an embedding model"
    count = counted(stats.memories, "memory", "memories")
    output.note(f"{count}, {stats.vectors:,} with a vector, {by}, in {stats.bytes:,} bytes")
