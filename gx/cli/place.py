"""Which workspace a verb means: its flag, else the settings, else the nearest one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gx.node.workspace import Workspace


def workspace_of(flag: Path | None) -> Workspace:
    """The workspace. :raises SettingsError: if a setting can't be read."""
    from gx import settings
    from gx.node.workspace import Workspace

    return Workspace.find(settings.load(workspace=flag).workspace)
