"""Rows of an OpenAI batch file as turns: their messages, and the options of their body.

The format: https://platform.openai.com/docs/guides/batch. What gx can't honour (images, tools) fails the row by name.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import msgspec

from gx.core.errors import GxError
from gx.core.message import Message, Sampling

Role = Literal["system", "user", "assistant"]
_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "logit_bias": "logit_bias",
}
_REFUSED = ("tools", "functions", "n")
_MOST_TOP_LOGPROBS = 20


class _JsonSchema(msgspec.Struct):
    schema: dict[str, Any] | None = None


class _ResponseFormat(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: _JsonSchema | None = None


class _Body(msgspec.Struct):
    """What of a body says how the answer is written."""

    response_format: _ResponseFormat | None = None


class BatchRowError(GxError):
    """A batch row that asks for what gx can't give."""

    code = "row"


def messages(row: dict[str, Any], head: tuple[Message, ...]) -> tuple[Message, ...]:
    """The row's messages, after those of the agent's persona where the row brings no system message of its own."""
    found = []
    for number, raw in enumerate(row.get("messages") or ()):
        role = "system" if raw.get("role") == "developer" else raw.get("role")
        if role not in ("system", "user", "assistant"):
            raise BatchRowError(f"messages[{number}]: expected the role system, user or assistant, got {role!r}")
        found.append(Message(role=cast("Role", role), content=_text(raw.get("content"), number)))
    if not found:
        raise BatchRowError("expected messages, got none")
    return tuple(found) if found[0].role == "system" else (*head, *found)


def _text(content: Any, number: int) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        kinds = {str(part.get("type")) if isinstance(part, dict) else type(part).__name__ for part in content}
        if kinds <= {"text"}:
            return "\n".join(str(part.get("text", "")) for part in content)
        raise BatchRowError(f"messages[{number}]: expected text, got {', '.join(sorted(kinds - {'text'}))}")
    raise BatchRowError(f"messages[{number}]: expected text, got {type(content).__name__}")


def options(
    row: dict[str, Any], sampling: Sampling, schema: dict[str, Any] | None, *, chooses: bool = False
) -> tuple[Sampling, dict[str, Any] | None]:
    """The agent's sampling and schema, with what the row's body sets in their place.

    An agent that `chooses` weighs its own schema, and writes to that of a row. :raises BatchRowError: if the body asks
    for what gx can't give.
    """
    body = row.get("body") or {}
    for name in _REFUSED:
        if body.get(name) and not (name == "n" and body[name] == 1):
            raise BatchRowError(f"body.{name} is not supported")
    changes: dict[str, Any] = {ours: body[theirs] for theirs, ours in _SAMPLING.items() if body.get(theirs) is not None}
    if stop := body.get("stop"):
        changes["stop"] = (stop,) if isinstance(stop, str) else stop
    if body.get("logprobs") is not None or body.get("top_logprobs"):
        changes["logprobs"] = _logprobs(body)
    try:
        merged = msgspec.convert(msgspec.structs.asdict(sampling) | changes, Sampling)
        asked = msgspec.convert(body, _Body).response_format or _ResponseFormat()
    except msgspec.ValidationError as error:
        raise BatchRowError(f"body: {error}") from None
    if asked.type == "json_schema":
        schema = None if asked.json_schema is None else asked.json_schema.schema
    elif asked.type == "json_object":
        schema = {"type": "object"}
    elif chooses and body.get("logprobs"):
        raise BatchRowError("body.logprobs is not supported where the agent chooses: no token is written")
    try:
        msgspec.msgpack.encode((merged, schema))  # as they travel to the bench
    except OverflowError:
        raise BatchRowError("body: expected whole numbers of at most 64 bits, got a longer one") from None
    return merged, schema


def _logprobs(body: dict[str, Any]) -> int | None:
    """How many of the likeliest tokens the body wants to be told of with each token; `None` if not even its own."""
    asked, top = body.get("logprobs"), body.get("top_logprobs")
    if not isinstance(asked, bool | None):
        raise BatchRowError(f"body.logprobs: expected true or false, got {_json(asked)}")
    if top and not asked:
        raise BatchRowError("body.top_logprobs: expected `logprobs: true` beside it")
    if isinstance(top, bool) or not isinstance(top, int | None) or not 0 <= (top or 0) <= _MOST_TOP_LOGPROBS:
        expected = f"a whole number from 0 to {_MOST_TOP_LOGPROBS}"
        raise BatchRowError(f"body.top_logprobs: expected {expected}, got {_json(top)}")
    return (top or 0) if asked else None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
