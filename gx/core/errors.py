"""Every error that gx shows to a person, as one tree.

GxError
├── UsageError          a flag or an argument that can't be used
├── RecipeError         a recipe that can't run, with its place (file:line:col)
├── InputError          input that can't be read as rows
├── ModelError          a model that is missing, damaged or can't be fetched
├── SettingsError       a setting with a wrong value, and which source it came from
├── WorkspaceError      a `.gx` folder that can't be owned, read or written
├── LogError            an event log that is damaged, newer than this gx, or can't be written
├── QueryError          SQL that the log refuses or can't answer
├── NotFound            no such run, task or step
├── BenchError          the engine's process can't start or answer
└── CloudError          containers can't be rented, or don't answer

A message says what was expected and what came; `hint` says what to do. A traceback is never shown for these.
An error that crosses a process travels as `message.Failure`, never as an exception.
"""

from __future__ import annotations


class GxError(Exception):
    """Base of all errors that are shown without a traceback.

    `code` is stable and machine-readable; `hint` may be empty.
    """

    code = "error"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code


def ours(error: Exception) -> GxError:
    """The error itself where it is one of these, or came out of a group of tasks; any other is a bug, of the code
    `internal`, says what it is, and is logged with where it came from.
    """
    first = error
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    if isinstance(first, GxError):
        return first
    import logging  # most processes never need it

    logging.getLogger("gx").error("a bug", exc_info=error)
    return GxError(f"{type(first).__name__}: {first}", code="internal")


class UsageError(GxError):
    code = "usage"


class RecipeError(GxError):
    """A recipe that can't run. `line` and `col` count from 1; `snippet` is the line of the file."""

    code = "recipe"

    def __init__(
        self,
        message: str,
        *,
        file: str = "",
        line: int | None = None,
        col: int | None = None,
        snippet: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.file, self.line, self.col, self.snippet = file, line, col, snippet

    @property
    def place(self) -> str:
        """`file:line:col`, or as much of it as is known."""
        return ":".join(str(part) for part in (self.file, self.line, self.col) if part not in ("", None))


class InputError(GxError):
    code = "input"


class ModelError(GxError):
    code = "model"


class SettingsError(GxError):
    code = "settings"


class WorkspaceError(GxError):
    code = "workspace"


class LogError(GxError):
    code = "log"


class QueryError(GxError):
    code = "query"


class NotFound(GxError):
    code = "not_found"


class BenchError(GxError):
    code = "bench"


class CloudError(GxError):
    code = "cloud"
