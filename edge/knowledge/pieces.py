"""The smallest parts that a document is cut into: sentences and lines, and of those too long for a chunk, halves.

Offsets and numbers only; what a token is, is asked of a port.

Invariant: pieces are in order, don't overlap, begin and end with a letter (no blank), and leave out nothing but blanks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from edge.knowledge.document import Document
from gx.core.errors import UsageError
from gx.core.message import Value

Count = Callable[[Sequence[str]], list[int]]
"""The tokens of each text, as the embedding model takes it: with the special tokens that stand around every text."""

_BY_LINE = frozenset({"csv", "jsonl", "python", "code"})
_PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n\s*")
_LINE_END = re.compile(r"\n\s*")
_SENTENCE_END = re.compile(
    r"(?<=[.!?…])[\"'”’)\]]?\s+(?=[\"'“‘(\[]?[^\W_a-z])"  # a blank, and no small letter behind it
    r"|(?<=[。！？])"
    r"|\n(?=\s*(?:[-*+•#>|]|\d+[.)])\s)"  # the items of a list
)


class Piece(Value, frozen=True, kw_only=True):
    """`text[start:end]` in the section of that number. `paragraph_tokens` is of the paragraph that it opens, or 0."""

    start: int
    end: int
    section: int
    tokens: int
    paragraph_tokens: int = 0


def pieces(document: Document, count: Count, room: int, around: int) -> list[Piece]:
    """The pieces of a document, each of at most `room` tokens without the `around` special ones.

    :raises UsageError: if a single character has more tokens than that.
    """
    text = document.text
    spans = [span for number, _ in enumerate(document.sections) for span in _sentences(document, number)]
    tokens = [n - around for n in count([text[start:end] for start, end, _, _ in spans])]
    while any(n > room for n in tokens):
        cut, is_new = [], []
        for span, n in zip(spans, tokens, strict=True):
            parts = _halves(text, span, room, n)
            cut += parts
            is_new += [n if len(parts) == 1 else None] * len(parts)
        fresh = iter(count([text[s:e] for (s, e, _, _), n in zip(cut, is_new, strict=True) if n is None]))
        tokens = [next(fresh) - around if n is None else n for n in is_new]
        spans = cut
    return _with_paragraphs(spans, tokens)


def _sentences(document: Document, number: int) -> Iterator[tuple[int, int, int, bool]]:
    """`(start, end, section, whether it opens a paragraph)` of the sentences, or lines, of a section."""
    section, text = document.sections[number], document.text
    ends = _LINE_END if document.format in _BY_LINE else _SENTENCE_END
    for paragraph_start, paragraph_end in _between(text, section.start, section.end, _PARAGRAPH_END):
        opens = True
        for start, end in _between(text, paragraph_start, paragraph_end, ends):
            yield start, end, number, opens
            opens = False


def _between(text: str, start: int, end: int, ends: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """What stands between the matches, and what of a match is no blank, without the blanks around it."""
    done = start
    for match in ends.finditer(text, start, end):
        blank = match.end() - len(match[0]) + len(match[0].rstrip())
        if (span := _trimmed(text, done, blank)) is not None:
            yield span
        done = blank
    if (span := _trimmed(text, done, end)) is not None:
        yield span


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    part = text[start:end]
    kept = part.strip()
    if not kept:
        return None
    start += len(part) - len(part.lstrip())
    return start, start + len(kept)


def _halves(text: str, span: tuple[int, int, int, bool], room: int, tokens: int) -> list[tuple[int, int, int, bool]]:
    """A span that is too long as two: at the blank that is nearest to its middle, or else in the middle."""
    start, end, section, opens = span
    if tokens <= room:
        return [span]
    if end - start == 1:
        message = f"a chunk of {room} tokens has no room for the {tokens} tokens of {text[start:end]!r}"
        raise UsageError(message, hint="expected a limit of at least some ten tokens")
    middle = (start + end) // 2
    reach = (end - start) // 4
    near = [
        place
        for place in (_last_blank(text, middle - reach, middle), _first_blank(text, middle, middle + reach))
        if place is not None
    ]
    at = min(near, key=lambda place: abs(place - middle), default=middle)
    parts = (_trimmed(text, start, at), _trimmed(text, at, end))
    kept = [part for part in parts if part is not None]
    return [(*part, section, opens and n == 0) for n, part in enumerate(kept)]


def _first_blank(text: str, start: int, end: int) -> int | None:
    found = re.compile(r"\s").search(text, start, end)
    return found.start() if found is not None else None


def _last_blank(text: str, start: int, end: int) -> int | None:
    found = re.search(r"\s\S*\Z", text[start:end])
    return start + found.start() if found is not None else None


def _with_paragraphs(spans: Sequence[tuple[int, int, int, bool]], tokens: Sequence[int]) -> list[Piece]:
    made: list[Piece] = []
    paragraph = 0
    for (start, end, section, opens), n in zip(reversed(spans), reversed(tokens), strict=True):
        paragraph += n
        total = paragraph if opens else 0
        made.append(Piece(start=start, end=end, section=section, tokens=n, paragraph_tokens=total))
        paragraph = 0 if opens else paragraph
    made.reverse()
    return made
