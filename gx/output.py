"""stdout is data, stderr is narration: how results, notes and errors are shown, and what exit codes mean.

Nothing here knows what is shown. Rows are JSON lines when stdout is not a terminal, an aligned table when it is.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from gx.core.errors import GxError, InputError, RecipeError, SettingsError, UsageError
from gx.core.inert import inert

if TYPE_CHECKING:
    from rich.console import Console


class ExitCode(IntEnum):
    """What the caller of gx can tell from its exit status."""

    ok = 0  # everything was done
    error = 1  # gx could not do it; stderr says why
    usage = 2  # the command line, the recipe or the input can't be used
    some_failed = 3  # the run ended, and some tasks failed
    budget = 4  # the run stopped at its budget
    deadline = 5  # the run stopped at its deadline
    waiting = 6  # the run waits for a person
    interrupted = 130  # stopped by Ctrl-C or a signal
    closed_pipe = 141  # whoever read stdout went away, as in `gx run … | head -1`: 128 and the number of SIGPIPE


_WIDE = 240
"""Columns of a table that goes to a file or a pipe."""


class _Mode:
    """How this process shows things; set once by the command line."""

    json: bool | None = None
    quiet: bool = False


def set_mode(*, as_json: bool | None = None, quiet: bool = False) -> None:
    """Force JSON lines (True) or tables (False) on stdout; silence notes."""
    _Mode.json = as_json
    _Mode.quiet = quiet


def is_quiet() -> bool:
    return _Mode.quiet


def wants_json(as_json: bool | None = None) -> bool:
    """Whether stdout gets JSON lines: a flag decides, else whether stdout is a terminal."""
    if as_json is not None:
        return as_json
    if _Mode.json is not None:
        return _Mode.json
    return not sys.stdout.isatty()


def has_person() -> bool:
    """Whether a person may be told something, and do something about it: stdin and stderr are a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def has_colour(stream: TextIO) -> bool:
    """Whether `stream` may be coloured: a terminal, no NO_COLOR, no TERM=dumb."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def console(stream: TextIO | None = None) -> Console:
    """A rich console on stderr (or `stream`) that keeps to NO_COLOR, TERM=dumb and `--quiet`."""
    from rich.console import Console

    target = stream or sys.stderr
    colour = has_colour(target)
    width = None if target.isatty() else _WIDE
    is_silent = _Mode.quiet and target is sys.stderr
    return Console(file=target, no_color=not colour, highlight=False, quiet=is_silent, width=width)


def shown(text: str, stream: TextIO) -> str:
    """The text as `stream` gets it: on a terminal with nothing in it that the terminal would obey, else as it is."""
    return inert(text) if stream.isatty() else text


def data_out() -> IO[bytes]:
    """Where bytes of results go: stdout, exactly; on a terminal, with nothing in them that it would obey."""
    return cast("IO[bytes]", _Inert()) if sys.stdout.isatty() else sys.stdout.buffer


class _Inert(io.RawIOBase):
    """UTF-8 for the terminal on stdout, made harmless; a character may come in two pieces."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        sys.stdout.buffer.write(inert(self._decode(content)).encode())
        return len(content)

    def flush(self) -> None:
        sys.stdout.buffer.flush()


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """What can't be written in the block, and flushed, is stdout's; afterwards nothing is left for the interpreter.

    :raises GxError: if stdout can't be written. :raises BrokenPipeError: if whoever read it went away.
    """
    try:
        yield
    except OSError as error:
        forget_stdout()
        if isinstance(error, BrokenPipeError):
            raise
        why = error.strerror or str(error)
        raise GxError(f"stdout can't be written: {why}", hint="make room there, or send it elsewhere") from None


def forget_stdout() -> None:
    """Let what was not written go to nobody: else the interpreter tries again at its end, and exits with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write(text: str) -> None:
    """Text on stdout, at once; on a terminal with nothing in it that it would obey. :raises GxError: as `writing`."""
    put(shown(text, sys.stdout))


def put(text: str) -> None:
    """Text on stdout, at once and as it is. :raises GxError: as `writing`."""
    with writing():
        sys.stdout.write(text)
        sys.stdout.flush()


def note(text: str) -> None:
    """One line of narration on stderr; silence once nobody reads it."""
    if _Mode.quiet:
        return
    try:
        print(shown(text, sys.stderr), file=sys.stderr, flush=True)  # noqa: T201
    except OSError:  # a closed pipe or terminal
        _Mode.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def emit(rows: Iterable[dict[str, Any]], *, columns: Sequence[str] | None = None, as_json: bool | None = None) -> None:
    """Rows on stdout: JSON lines as they come, or one aligned table of `columns` (all keys of the first row).

    :raises GxError: as `writing`.
    """
    if wants_json(as_json):
        with writing():
            for row in rows:
                sys.stdout.write(shown(json.dumps(row, ensure_ascii=False, default=str), sys.stdout) + "\n")
            sys.stdout.flush()
        return
    from rich.table import Table

    kept = list(rows)
    if not kept:
        return
    names = list(columns or kept[0])
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(cell(name), overflow="fold")
    for row in kept:
        table.add_row(*(cell(row.get(name)) for name in names))
    drawn = console(sys.stdout)
    drawn.file = made = io.StringIO()  # rich itself would end the process where nobody reads
    drawn.print(table)
    put(made.getvalue())


def cell(value: Any) -> str:
    """A value as a table shows it, with rich's markup and control characters made harmless."""
    from rich.markup import escape

    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, dict | list):
        return escape(inert(json.dumps(value, ensure_ascii=False, default=str)))
    return escape(inert(str(value)))


def exit_code_of(error: GxError) -> ExitCode:
    """2 for what the user typed or gave, 1 for the rest."""
    return (
        ExitCode.usage if isinstance(error, RecipeError | UsageError | InputError | SettingsError) else ExitCode.error
    )


def show_error(error: GxError) -> None:
    """An error on stderr: its place, what was expected and what came, the line with a caret, what to do."""
    colour = has_colour(sys.stderr)
    red, dim, plain = ("\x1b[31m", "\x1b[2m", "\x1b[0m") if colour else ("", "", "")
    place = f"{error.place}: " if isinstance(error, RecipeError) and error.place else ""
    place, message, hint = (shown(text, sys.stderr) for text in (place, error.message, error.hint))
    lines = [f"{place}{red}error:{plain} {message}"]
    if isinstance(error, RecipeError) and error.snippet:
        lines.append(f"  {shown(error.snippet, sys.stderr)}")
        if error.col:
            pad = "".join("\t" if c == "\t" else " " for c in error.snippet[: error.col - 1])
            lines.append(f"  {pad}{red}^{plain}")
    if hint:
        lines.append(f"{dim}hint:{plain} {hint}")
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()
