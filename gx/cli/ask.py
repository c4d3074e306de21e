"""`gx ask`: one question, and the answer as plain text; on a terminal, as it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gx import output
from gx.cli import inline
from gx.cli.inline import MODEL
from gx.cli.map import MaxTokensOpt, ModelOpt, SeedOpt, SystemOpt, TemperatureOpt
from gx.cli.place import WorkspaceOpt
from gx.core.errors import UsageError
from gx.output import ExitCode

if TYPE_CHECKING:
    from gx.node.client import RunEnd

HELP = """\
Ask a model one question; the answer goes to stdout as plain text.

-i FILE gives it something to read first; - is stdin. The same question of the same model is answered from the log.

\b
Examples:
    gx ask 'What is a lease in a queue?'
    git diff | gx ask 'Describe this change in one line.' -i -
"""
NAME = "ask"
MOST_BYTES = 4 << 20
"""Of what is read with -i: more than any context holds."""
DRAIN_S = 0.0
"""After a Ctrl-C: there is but one answer, and whoever stops it doesn't want the rest."""
_ALONE = "{{ params.question }}"
_WITH = "{{ params.context }}\n\n{{ params.question }}"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("ask", help=HELP)(ask)


def ask(
    question: Annotated[str, typer.Argument(help="What is asked.", show_default=False)],
    model: ModelOpt = MODEL,
    inputs: Annotated[
        str | None, typer.Option("--inputs", "-i", metavar="FILE", help="A text to read first; - is stdin.")
    ] = None,
    system: SystemOpt = "",
    max_tokens: MaxTokensOpt = None,
    temperature: TemperatureOpt = None,
    seed: SeedOpt = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask anew, whatever the log knows.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes.")] = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """The verb itself; its help text is HELP."""
    import msgspec

    from gx import settings
    from gx.cli import running
    from gx.cli.streaming import Answer
    from gx.node.workspace import Workspace

    output.set_mode(quiet=True)
    context = None if inputs is None else _read(inputs)
    params = {"question": question} if context is None else {"question": question, "context": context}
    text = inline.recipe(
        NAME,
        model,
        step={"prompt": _ALONE if context is None else _WITH},
        system=system,
        sampling={"max_tokens": max_tokens, "temperature": temperature, "seed": seed},
        params={name: {"type": "string", "default": ""} for name in params},
    )
    asked = inline.submission(text, NAME, params=params, fresh=fresh)
    found = msgspec.structs.replace(settings.load(workspace=workspace), drain_s=DRAIN_S)
    place = Workspace.find(found.workspace)
    answer = Answer(place.folder)
    end = running.execute(
        asked, found, place, on_records=answer.take, with_input=False, beside=answer.follow, show_progress=False
    )
    answer.leave()
    output.set_mode(quiet=quiet)
    if answer.note:
        output.note(answer.note)
    raise typer.Exit(_finished(end))


def _finished(end: RunEnd) -> ExitCode:
    """Say what went wrong, if something did: the answer speaks for itself."""
    for _, code, message in end.first_errors:
        output.note(f"no answer: {code}: {message}")
    if end.error is not None:
        output.show_error(end.error)
    elif end.exit_code is ExitCode.interrupted:
        output.note(f"interrupted: {end.reason}" if end.reason else "interrupted")
    return end.exit_code


def _read(file: str) -> str:
    """The text of a file, or of stdin. :raises UsageError: if it is none, or too long."""
    named = "stdin" if file == "-" else file
    if file == "-":
        inline.require_piped("a text", "git diff | gx ask 'What changed?' -i -")
    try:
        with open(0 if file == "-" else file, "rb", closefd=file != "-") as stream:
            content = stream.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"-i: expected a file, got {file}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"-i: expected UTF-8 text in {named}, got a byte 0x{error.object[error.start]:02x}") from None
    if len(content) > MOST_BYTES:
        raise UsageError(f"-i: expected at most {MOST_BYTES:,} bytes, got more in {named}", hint="gx map takes rows")
    return text
