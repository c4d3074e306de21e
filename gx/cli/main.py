"""The `gx` command: groups its verbs, shows errors, and maps them to exit codes. Each verb has a file of its own.

Verbs import what they need when they run, so that `gx --help` loads no engine, no DuckDB, no Modal and no Textual.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gx import __version__, output
from gx.cli import config, doctor, evaluate, history, models, recipes, run
from gx.core.errors import GxError

EPILOG = """\
A first run: `gx init`, then `gx run recipe.yaml`. Kill it, run it again, and only the rest is done.

Exit codes: 0 all done; 1 error; 2 usage or bad recipe; 3 some tasks failed; 4 budget reached; 5 deadline passed;
6 waiting for a person; 130 interrupted."""


class Verbs(TyperGroup):
    """A group that lists its verbs in the order of their use and suggests the nearest for a mistyped one."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; a reader of its output that goes away interrupts it."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(output.ExitCode.interrupted) from None


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
        sys.stdout.write(f"gx {__version__}\n")
        raise typer.Exit(0)


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Shown by `gx --help` through the app's own help text."""


run.register(app)
recipes.register(app)
evaluate.register(app)
history.register(app)
app.add_typer(models.app, name="models")
config.register(app)
doctor.register(app)


def main() -> None:
    """Run the command line; what goes wrong ends in one message and an exit code, never in a traceback."""
    _fill_closed_streams()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app(prog_name="gx")
    except GxError as error:
        output.show_error(error)
        sys.exit(output.exit_code_of(error))
    except KeyboardInterrupt:
        sys.exit(output.ExitCode.interrupted)
    except RuntimeError as error:
        if str(error) != "Query interrupted":  # what DuckDB makes of a KeyboardInterrupt
            raise
        sys.exit(output.ExitCode.interrupted)


def _terminated(number: int, frame: FrameType | None) -> None:
    """To be told to go is what Ctrl-C is at that moment, even where a shell has that one ignored."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)


def _fill_closed_streams() -> None:
    """Open what the caller closed (`>&-`) on /dev/null, before the log gets one of those numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    main()
