"""A row, and how one line, object or file becomes one. A bad one becomes a row with an error; nothing is raised."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from gx.core.ids import canonical
from gx.core.message import Value
from gx.run.inputs.lines import Line

_BYTE = re.compile(r" ?\(byte (\d+)\)$")
_PATH = re.compile(r" - at `[^`]*`$")  # msgspec's, which says nothing where no type was asked for
MAX_DEPTH = 200
"""How deep a row may be nested: Python's stack holds some 300 for who walks through it (`gx.flow.withheld`)."""
_TOO_DEEP = "expected JSON that is nested less deeply"


class Row(Value, frozen=True, kw_only=True):
    """A row of the input. `index` counts from 0 and `line` from 1; a file of a folder has no line.

    `value` is the canonical JSON of an object, or `None` where `error` says why it can't be used. `id` is unique
    within the input. A batch row has its own messages.
    """

    index: int
    line: int | None = None
    id: str
    value: bytes | None = None
    error: str | None = None
    is_batch: bool = False


class Read(NamedTuple):
    """A row before it has its index; `id` is `None` where it brings none."""

    line: int | None
    value: bytes | None = None
    error: str | None = None
    id: str | None = None
    is_batch: bool = False


def text_fault(content: bytes) -> str | None:
    """Why `content` isn't text; `None` if it is."""
    if (at := content.find(0)) >= 0:
        return f"expected text, got a NUL byte at offset {at}"
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return f"expected UTF-8, got the byte 0x{content[error.start]:02x} at offset {error.start}"
    return None


def size_fault(size: int, max_bytes: int) -> str:
    return f"expected a row of at most {max_bytes:,} bytes, got {size:,}"


def text_row(line: Line, max_bytes: int) -> Read:
    """A row {text} of a plain line."""
    if line.content is None:
        return Read(line.number, error=size_fault(line.size, max_bytes))
    if fault := text_fault(line.content):
        return Read(line.number, error=fault)
    return Read(line.number, canonical({"text": line.content.decode()}))


def json_row(line: Line, max_bytes: int) -> Read:
    """A row of a line of JSON: an object as it is, a string as {text}, anything else as {value}."""
    if line.content is None:
        return Read(line.number, error=size_fault(line.size, max_bytes))
    if fault := text_fault(line.content):
        return Read(line.number, error=fault)
    try:
        value = msgspec.json.decode(line.content)
        if _is_deep(value, line.content):
            return Read(line.number, error=_TOO_DEEP)
        if isinstance(value, dict):
            return _object_row(line.number, value)
        return Read(line.number, canonical({"text": value} if isinstance(value, str) else {"value": value}))
    except msgspec.DecodeError as error:  # its subclass says that a number is out of range
        return Read(line.number, error=_malformed(str(error), line.content))
    except RecursionError:
        return Read(line.number, error=_TOO_DEEP)


def _is_deep(value: Any, content: bytes) -> bool:
    """Whether it is nested more than `MAX_DEPTH` deep, level by level; most texts haven't so many brackets."""
    if content.count(b"[") + content.count(b"{") <= MAX_DEPTH:
        return False
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        parts = (part for one in level for part in (one.values() if isinstance(one, dict) else one))
        level = [part for part in parts if isinstance(part, dict | list)]
    return bool(level)


def _malformed(message: str, content: bytes) -> str:
    found = _BYTE.search(message)
    if found is None:
        return f"malformed JSON: {_PATH.sub('', message)}"
    col = len(content[: int(found[1])].decode("utf-8", "replace")) + 1
    return f"malformed JSON at col {col}: {_BYTE.sub('', message).removeprefix('JSON is malformed: ')}"


def _object_row(line: int, value: dict[str, Any]) -> Read:
    body = value.get("body")
    if (row_id := _id(value.get("custom_id"))) and isinstance(body, dict) and "messages" in body:
        messages = body["messages"]
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            return Read(line, error="expected body.messages to be a list of objects, got something else", id=row_id)
        made = {"id": row_id, "messages": messages, "body": body, "text": _last_user_text(messages)}
        return Read(line, canonical(made), id=row_id, is_batch=True)
    return Read(line, canonical(value), id=_id(value.get("id")))


def _id(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value) or None


def _last_user_text(messages: list[dict[str, Any]]) -> str:
    for message in reversed(messages):
        content = message.get("content")
        if message.get("role") != "user":
            continue
        if isinstance(content, list):
            parts = [part.get("text") for part in content if isinstance(part, dict)]
            return "\n".join(part for part in parts if isinstance(part, str))
        return content if isinstance(content, str) else ""
    return ""
