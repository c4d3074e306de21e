"""What `gx memory add` and `import` are given, as memories to be written: texts, stdin, files of text or of JSON lines.

A line of JSON lines is what `gx memory export` writes: `{"body": …}` at the least. A file of text is one memory, with
its path as its source.
"""

from __future__ import annotations

import io
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from gx.core.errors import InputError, UsageError
from gx.core.memory import Draft, Kind, Source
from gx.core.memorycheck import check_draft
from gx.core.message import Label

LINES = (".jsonl", ".ndjson")
_LONGEST_LINE = 16 << 20
TEXTS = (".txt", ".md", ".markdown", ".rst", ".text")


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What the flags say; a line of JSON lines says more of itself, and counts more."""

    namespace: str
    kind: Kind
    label: Label
    by: str


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    body: str
    namespace: str | None = None
    kind: Kind | None = None
    label: Label | None = None
    at: float | None = None
    source: Source | None = None


def path_of(word: str) -> Path:
    """The path that a word names; a tilde that begins no user's name is a letter like others."""
    try:
        return Path(word).expanduser()
    except RuntimeError:
        return Path(word)


def is_there(path: Path) -> bool:
    """Whether there is something at a path, as far as anybody can tell."""
    try:
        return path.exists()
    except OSError:  # too long for a name, or behind a folder that can't be read
        return False


def is_document(word: str) -> bool:
    """Whether what was given is a folder, or a file that is read as a document and not as lines of memories."""
    path = path_of(word)
    try:
        if word == "-" or not path.exists():
            return False
        is_lines = path.suffix.lower() in LINES and stat.S_ISREG(path.stat().st_mode)
        return not is_lines or not _has_memories(path)
    except (OSError, ValueError):  # too long for a name, or not one
        return False


def _has_memories(path: Path) -> bool:
    """Whether the first line of a file is a memory."""
    with path.open("rb") as file:
        first = file.readline(_LONGEST_LINE)
    try:
        msgspec.json.decode(first, type=_Line)
    except msgspec.MsgspecError:
        return False
    return True


def drafts_of(words: list[str], given: Given, *, is_by_line: bool) -> Iterator[Draft]:
    """The memories of texts, files and "-", in that order. With `is_by_line` each line of a text is one.

    :raises UsageError: naming a file that isn't there. :raises InputError: if one can't be read, with its line.
    """
    for word in words:
        path = path_of(word)
        if word == "-":
            yield from _of_text(text_of(word), "stdin", "", given, is_by_line=is_by_line)
        elif _is_file(path):
            text = text_of(word)
            if path.suffix.lower() in LINES:
                yield from lines_of(text, word, given)
            else:
                yield from _of_text(text, word, str(path.resolve()), given, is_by_line=is_by_line)
        elif _looks_like_a_file(word):
            raise UsageError(f"there is no file {word}", hint="a text that looks like one can come on stdin: -")
        else:
            yield _draft(word, "", given)


def lines_of(text: str, name: str, given: Given) -> Iterator[Draft]:
    """The memories of JSON lines. :raises InputError: naming the line that is none, and what is wrong with it."""
    for number, line in enumerate(_lines(text), 1):
        if not line.strip():
            continue
        try:
            found = msgspec.json.decode(line, type=_Line)
        except msgspec.MsgspecError as error:
            raise InputError(f'{name}:{number}: expected a memory such as {{"body": "…"}}: {error}') from None
        source = found.source or Source()
        draft = Draft(
            body=found.body,
            namespace=found.namespace or given.namespace,
            kind=found.kind or given.kind,
            label=found.label or given.label,
            at=found.at,
            source=source if source.by else msgspec.structs.replace(source, by=given.by),
        )
        try:
            check_draft(draft)
        except UsageError as error:
            raise InputError(f"{name}:{number}: {error.message}", hint=error.hint) from None
        yield draft


def shown(text: str, width: int) -> str:
    """A text as one line of a table, without anything that a terminal would obey."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat[: width - 1] + "…" if len(flat) > width else flat


def _of_text(text: str, name: str, path: str, given: Given, *, is_by_line: bool) -> Iterator[Draft]:
    if not path and text.lstrip().startswith('{"'):
        yield from lines_of(text, name, given)
        return
    parts = _lines(text) if is_by_line else iter([text])
    for part in parts:
        if part.strip():
            yield _draft(part.strip(), path, given)


def _lines(text: str) -> Iterator[str]:
    """The lines, where only a newline ends one: JSON may hold the other separators of `str.splitlines` as they are."""
    return iter(io.StringIO(text, newline=None))


def _draft(body: str, path: str, given: Given) -> Draft:
    source = Source(by=given.by, path=path)
    return Draft(body=body, namespace=given.namespace, kind=given.kind, label=given.label, source=source)


def text_of(word: str) -> str:
    """All of a file, or of stdin for "-". :raises InputError: if it can't be read, or is no text."""
    try:
        content = sys.stdin.buffer.read() if word == "-" else path_of(word).read_bytes()
    except OSError as error:
        raise InputError(f"{word} can't be read: {error.strerror or error}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise InputError(f"{word}: expected text in UTF-8, got byte {byte:#04x} at {error.start}") from None


def _is_file(path: Path) -> bool:
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a folder", hint="name the files in it: gx memory add notes/*.md")
        return path.exists()
    except PermissionError as error:  # it may be there, so it is no text
        raise InputError(f"{path} can't be read: {error.strerror or error}") from None
    except (OSError, ValueError):  # too long for a name, or not one
        return False


def _looks_like_a_file(word: str) -> bool:
    if "://" in word or any(c.isspace() for c in word):
        return False
    from edge.knowledge.formats import format_of

    is_kind = word.lower().endswith((*LINES, *TEXTS)) or format_of(word) not in ("text", "code")
    return "/" in word or is_kind


def row_of(memory: Any) -> dict[str, Any]:
    """A memory as a line of JSON lines: what `import` reads, and its name."""
    made: dict[str, Any] = msgspec.to_builtins(memory)
    made.pop("seq", None)
    return {"uid": made["uid"], "namespace": made["namespace"], "kind": made["kind"], "body": made["body"],
            "label": memory.label.value, "at": memory.at, "source": made.get("source", {})}  # fmt: skip
