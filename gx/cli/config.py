"""`gx config`: every setting, its value and where it came from. No rules here: `gx.settings` has them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gx import output

_HELP = """\
Show every setting, its value and its source.

Flags win over GX_* variables, these over the nearest gx.toml at or above the current folder, that over the user's
config.toml, and that over the defaults. An empty value leaves the choice to gx.

\b
Examples:
\b
    gx config
    GX_THREADS=4 gx config --json | jq -r 'select(.setting == "threads").source'
    cat "$(gx config path)"
"""

JsonOpt = Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or a table on stdout.")]
_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None, help=_HELP)


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    app.add_typer(_app, name="config")


@_app.callback(help=_HELP)
def config(ctx: typer.Context, as_json: JsonOpt = None) -> None:
    """The settings in force; its help text is _HELP. :raises SettingsError: naming the source that can't be read."""
    if ctx.invoked_subcommand is not None:
        return
    from gx import settings

    settings.load()  # types that hold of the whole
    found = settings.explain()
    rows = ({"setting": name, "value": _plain(s.value), "source": s.source} for name, s in found.items())
    output.emit(rows, columns=["setting", "value", "source"], as_json=as_json)


@_app.command("path")
def path() -> None:
    """Print the path of the user's settings file, whether or not it exists.

    Example: $EDITOR "$(gx config path)"
    """
    from gx import settings

    file = settings.user_config_file()
    output.write(f"{file}\n")
    if not file.is_file():
        output.note("it does not exist yet; it holds TOML, such as: threads = 4")
    if (project := settings.project_config_file(Path.cwd())) is not None:
        output.note(f"this project's own is {project}")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
