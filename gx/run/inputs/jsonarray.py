"""A JSON array cut into its elements while it streams, so that its size doesn't matter and one bad element fails alone.

Only brackets, strings and commas are looked at; whether an element is JSON is for its reader to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from gx.run.inputs.lines import CHUNK_BYTES, Line, read_some

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'  # possessive: a string without an end is given up at once
_OUTSIDE = re.compile(_STRING + rb'|["\[\]{},]', re.DOTALL)
_NESTED = re.compile(_STRING + rb'|["\[\]{}]', re.DOTALL)  # no commas: they separate nothing of ours
_INSIDE = re.compile(rb'["\\]')


class UnclosedError(Exception):
    """The array has no end, or something stands behind it; the line that it was noticed in, and what came."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line, self.message = line, message


def elements(stream: BinaryIO, max_bytes: int, *, line: int) -> Iterator[Line]:
    """The elements of the array whose "[" was just read in `line`.

    :raises UnclosedError: where it should have ended.
    """
    element = _Element(line, max_bytes)
    depth = 0
    is_text = is_escaped = is_ended = False
    while chunk := read_some(stream, CHUNK_BYTES):
        start = at = 0
        while not is_ended:
            if is_escaped:
                if at >= len(chunk):
                    break
                at, is_escaped = at + 1, False
            found = (_INSIDE if is_text else _NESTED if depth else _OUTSIDE).search(chunk, at)
            if found is None:
                break
            mark, at = found[0], found.end()
            if mark == b"\\":
                is_escaped = True
            elif mark == b'"':  # a string that this chunk doesn't hold to its end
                is_text = not is_text
            elif mark in b"[{":
                depth += 1
            elif depth and mark in b"]}":
                depth -= 1
            elif not depth and mark in b",]":
                element.add(chunk[start : at - 1])
                yield from element.take()
                start, is_ended = at, mark == b"]"
        element.add(chunk[start:])
    yield from () if is_ended else element.take()
    if not is_ended:
        raise UnclosedError(element.line, "expected `]` at the end of the array, got the end of the input")
    if not element.is_blank:
        raise UnclosedError(element.line, "expected nothing behind the array, got more")


class _Element:
    """The bytes of one element as they gather; let go once they are too many."""

    def __init__(self, line: int, max_bytes: int) -> None:
        self.line, self._max_bytes = line, max_bytes
        self._begin()

    def _begin(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self.is_blank = True

    def add(self, part: bytes) -> None:
        if self.is_blank:
            rest = part.lstrip()
            self.line += part.count(b"\n", 0, len(part) - len(rest))
            part, self.is_blank = rest, not rest
            self._first = self.line
        self.line += part.count(b"\n")
        self._size += len(part)
        if self._size <= self._max_bytes:
            self._parts.append(part)
        else:
            self._parts.clear()

    def take(self) -> Iterator[Line]:
        """The element, if there is one between these commas."""
        if not self.is_blank:
            content = b"".join(self._parts).rstrip() if self._size <= self._max_bytes else None
            yield Line(self._first, content, self._size)
        self._begin()
