"""The verbs of `gx` as one Typer app. Each verb has a file of its own.

Verbs import what they need when they run, so that `gx --help` loads no engine, no DuckDB, no Modal and no Textual.
"""

from __future__ import annotations

from typing import Annotated

import typer

from gx import __version__, output
from gx.cli import (
    answer,
    ask,
    audit,
    burst,
    cloud,
    config,
    diff,
    doctor,
    evaluate,
    export,
    fork,
    gc,
    health,
    history,
    live,
    map,
    memory,
    memorykeep,
    models,
    monitor,
    recipes,
    replay,
    report,
    run,
    spend,
    steer,
    why,
)
from gx.cli.menu import Menu, Verbs

EPILOG = """\
A first run: `gx init`, then `gx run recipe.yaml`. Kill it, run it again, and only the rest is done.

Exit codes: 0 all done; 1 error; 2 usage or bad recipe; 3 some tasks failed; 4 budget reached; 5 deadline passed;
6 waiting for a person; 130 interrupted; 141 nobody reads on."""


app = typer.Typer(
    name="gx",
    cls=Verbs,
    help="Run fleets of LLM agents on your own machine against GGUF models, and never lose a finished row.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        output.write(f"gx {__version__}\n")
        raise typer.Exit(0)


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Shown by `gx --help` through the app's own help text."""


run.register(app)
map.register(app)
ask.register(app)
recipes.register(app)
evaluate.register(app)
live.register(app)
monitor.register(app)
steer.register(app)
answer.register(app)
history.register(app)
health.register(app)
gc.register(app)
why.register(app)
audit.register(app)
export.register(app)
report.register(app)
fork.register(app)
diff.register(app)
replay.register(app)
burst.register(app)
spend.register(app)
app.add_typer(cloud.app, name="cloud", cls=Menu)
memories = typer.Typer(help=memory.HELP, no_args_is_help=True, rich_markup_mode=None)
memory.register(memories)
memorykeep.register(memories)
app.add_typer(memories, name="memory", cls=Menu)
app.add_typer(models.app, name="models", cls=Menu)
config.register(app)
doctor.register(app)
