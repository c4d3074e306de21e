"""Values as JSON between a node and its clients, and errors as values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from gx.core import errors
from gx.core.errors import GxError, RecipeError
from gx.core.message import Value
from gx.node.names import meant, told


class Problem(Value, frozen=True, kw_only=True):
    """An error: which of `gx.core.errors` it is, and what it says. A recipe's has its place."""

    kind: str
    message: str
    code: str = "error"
    hint: str = ""
    file: str = ""
    line: int | None = None
    col: int | None = None
    snippet: str = ""


def problem_of(error: GxError) -> Problem:
    """An error as it travels."""
    place: dict[str, Any] = {}
    if isinstance(error, RecipeError):
        place = {"file": error.file, "line": error.line, "col": error.col, "snippet": error.snippet}
    return Problem(kind=type(error).__name__, message=error.message, code=error.code, hint=error.hint, **place)


def error_of(problem: Problem) -> GxError:
    """The error that a problem was; one that this gx doesn't know is a `GxError`."""
    kind = getattr(errors, problem.kind, GxError)
    if kind is RecipeError:
        return RecipeError(
            problem.message,
            file=problem.file,
            line=problem.line,
            col=problem.col,
            snippet=problem.snippet,
            hint=problem.hint,
        )
    if not (isinstance(kind, type) and issubclass(kind, GxError)):
        kind = GxError
    made: GxError = kind(problem.message, hint=problem.hint)
    made.code = problem.code
    return made


def _encoded(value: Any) -> Any:
    if isinstance(value, Path):
        return told(str(value))
    raise NotImplementedError(f"{type(value).__name__} does not travel")


def _decoded(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(meant(value))
    if kind is GxError:
        return None
    raise NotImplementedError(f"{kind.__name__} does not travel")


_ENCODER = msgspec.json.Encoder(enc_hook=_encoded)
encode = _ENCODER.encode
_DECODERS: dict[Any, msgspec.json.Decoder[Any]] = {}


def decode(content: bytes, kind: Any) -> Any:
    """A value of that type. :raises msgspec.MsgspecError: if it is none."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.json.Decoder(kind, dec_hook=_decoded)
    return decoder.decode(content)
