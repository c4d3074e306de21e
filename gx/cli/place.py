"""Which workspace a verb means: its flag, else the settings, else the nearest one; and the node that owns it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gx.core.errors import NotFound, UsageError

if TYPE_CHECKING:
    from gx.node.call import Client
    from gx.node.workspace import Workspace

RunArg = Annotated[str, typer.Argument(help="A run, by its id or the start of it.", show_default=False)]
WorkspaceOpt = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        help="The .gx folder; by default the nearest one above, else one in your data folder.",
        show_default=False,
    ),
]


def workspace_of(flag: Path | None) -> Workspace:
    """The workspace. :raises SettingsError: if a setting can't be read."""
    from gx import settings
    from gx.node.workspace import Workspace

    return Workspace.find(settings.load(workspace=flag).workspace)


def node_of(flag: Path | None, *, lingers: bool = True) -> Client:
    """The node, started where none is up: what is asked may be about a run that isn't live.

    :raises NotFound: if there is no log that it could be about, unless the node stays anyway (not `lingers`).
    """
    from gx.node.start import ensure

    place = workspace_of(flag)
    if lingers and not place.has_log():
        raise NotFound(f"there is no run in {place.folder}", hint="`gx run RECIPE` makes one")
    place.make()
    return ensure(place.folder, lingers=lingers)


def seconds(text: str, *, flag: str) -> float:
    """The seconds of a duration on the command line. :raises UsageError: if it is none."""
    from gx.flow.scalars import seconds_of

    if (found := seconds_of(text)) is None:
        raise UsageError(f"{flag}: expected a duration such as 90s, 30m or 2h, got {text!r}")
    return found
