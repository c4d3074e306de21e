"""A recipe that is typed on the command line: made in memory, as JSON, which is YAML too.

Invariant: text from the command line is content, and no template, unless it is the prompt.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gx.cli.place import seconds
from gx.core.errors import RecipeError, UsageError

if TYPE_CHECKING:
    from gx.node.client import Submission

MODEL = "smollm2"
"""The model that is asked where none is named: the one that needs no download."""
_SIGNS = ("{{", "{%", "{#")


def recipe(
    name: str,
    model: str,
    *,
    step: Mapping[str, Any],
    system: str = "",
    output: Mapping[str, Any] | None = None,
    grammar: str | None = None,
    sampling: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
) -> str:
    """The text of a recipe of one step. :raises UsageError: in the words of the command line, if it can't be one."""
    agent: dict[str, Any] = {"model": "m", "persona": literal(system)} if system else {"model": "m"}
    drawn = {key: value for key, value in (sampling or {}).items() if value is not None}
    if drawn:
        agent["sampling"] = drawn
    if output is not None:
        agent["output"] = output
    if grammar is not None:
        agent["grammar"] = grammar
    made: dict[str, Any] = {"version": 1, "name": name, "models": {"m": model}, "agents": {"a": agent}}
    if params:
        made["params"] = params
    made["steps"] = [{"id": name, "agent": "a", **step}]
    text = json.dumps(made, ensure_ascii=False)
    _check(text)
    return text


def literal(text: str) -> str:
    """A template that renders to exactly this text."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if any(sign in text for sign in _SIGNS) else text


def grammar_of(file: Path | None, output: Mapping[str, Any] | None) -> str | None:
    """The grammar in a file. :raises UsageError: if it can't be read, or the answers have a shape by another option."""
    if file is None:
        return None
    if output is not None:
        raise UsageError("expected one of --schema, --choice and --grammar, got two")
    try:
        return file.read_text("utf-8-sig")
    except OSError as error:
        raise UsageError(f"--grammar: expected a file, got {file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--grammar: expected a grammar in {file}, got what isn't UTF-8") from None


def schema_of(file: Path | None, choices: list[str] | None) -> dict[str, Any] | None:
    """The JSON Schema of the answers; `None` for plain text.

    :raises UsageError: if both are given, or what is given can't be used.
    """
    if file is not None and choices:
        raise UsageError("expected --schema or --choice, got both")
    if choices:
        words = [word.strip() for text in choices for word in text.split(",")]
        if "" in words or len(set(words)) < max(2, len(words)):
            raise UsageError(f"--choice: expected different words with commas between, got {','.join(choices)!r}")
        return {"enum": words}
    if file is None:
        return None
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise UsageError(f"--schema: expected a file, got {file}: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(f"--schema: expected a JSON Schema in {file}, got: {error}") from None
    except RecursionError:
        raise UsageError(f"--schema: expected a JSON Schema in {file}, got one nested too deeply") from None
    if not isinstance(found, dict):
        raise UsageError(f"--schema: expected a JSON Schema, an object, in {file}", hint='{"type": "string"}')
    return found


def submission(
    text: str,
    name: str,
    *,
    inputs: str | None = None,
    fmt: str | None = None,
    params: dict[str, str] | None = None,
    limit: int | None = None,
    run_name: str | None = None,
    fresh: bool = False,
    deadline: str | None = None,
    budget: int | None = None,
    notify: list[str] | None = None,
) -> Submission:
    """What a node is asked for. :raises UsageError: if the deadline is none."""
    from gx.node.client import Submission

    here = str(Path.cwd())
    return Submission(
        recipe_text=text,
        recipe_file=f"gx {name}",
        recipe_folder=here,
        folder=here,
        params=params or {},
        inputs=inputs,
        input_format=fmt,
        limit=limit,
        name=run_name,
        fresh=fresh,
        deadline_s=None if deadline is None else seconds(deadline, flag="--deadline"),
        budget_tokens=budget,
        notify=tuple(notify or ()),
    )


def require_piped(what: str, example: str) -> None:
    """:raises UsageError: if stdin is a terminal, where nobody knows that something is waited for."""
    if sys.stdin.isatty():
        raise UsageError(f"expected {what} on stdin, got a terminal", hint=f"{example}; or name a file with -i")


def _check(text: str) -> None:
    """What is wrong with it, without the places of a file that nobody has."""
    from gx.flow.parse import plan_recipe

    if text.encode("utf-8", "replace").decode() != text:
        raise UsageError("expected UTF-8 on the command line")
    try:
        plan_recipe(text, None)
    except RecipeError as error:
        raise UsageError(error.message, hint=error.hint) from None
