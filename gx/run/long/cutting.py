"""A text cut into parts of about one size, at the ends of sections, paragraphs, lines, sentences or words. Pure.

Invariant: the parts are the text, in order and without gaps; none is empty or longer than `size`.
"""

from __future__ import annotations

import re

Span = tuple[int, int]
"""[start, stop), in characters."""

_ENDS = tuple(map(re.compile, (r"\n(?=#)|\n\s*\n", r"\n", r"[.!?…]['\")\]]?\s|[。！？]", r"\s")))
"""Where a cut may be, the best kind first; it is made behind the match."""


def parts(text: str, size: int) -> tuple[Span, ...]:
    """The parts of a text, each of at most `size` characters, and of at least half as many but for the last."""
    spans: list[Span] = []
    start = 0
    while len(text) - start > size:
        stop = _cut(text, start + (size + 1) // 2, start + size)
        spans.append((start, stop))
        start = stop
    return (*spans, (start, len(text))) if start < len(text) else tuple(spans)


def _cut(text: str, least: int, most: int) -> int:
    """The best place for a cut in that range, the last of its kind; the end of the range where there is none."""
    for kind in _ENDS:
        found = [match.end() for match in kind.finditer(text, least - 1, most) if match.end() >= least]
        if found:
            return found[-1]
    return most
