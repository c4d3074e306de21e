"""Documents into chunks: what is embedded, found and cited. Pure, but for the port that counts tokens.

Invariant: a chunk's text is a slice of the document's; none has more tokens than the limit; in order, each begins and
ends behind the one before it; and together they hold all of the text but blanks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edge.knowledge.document import Document
from edge.knowledge.pieces import Count, Piece, pieces
from gx.core.errors import UsageError
from gx.core.message import Value

SMALL = 4
"""A section of less than a chunk's such part shares a chunk with what follows: a heading alone says little."""


class Chunk(Value, frozen=True, kw_only=True):
    """`document.text[start:end]`, number `ordinal` of the document. `tokens` counts the special ones around it, too.

    `headings` is the path to the section that it stands in; of several, what they share. `page` is where it begins.
    """

    ordinal: int
    start: int
    end: int
    text: str
    tokens: int
    headings: tuple[str, ...] = ()
    page: int | None = None


def chunks(document: Document, count: Count, limit: int, overlap: int) -> list[Chunk]:
    """Cut a document into chunks of at most `limit` tokens, as `count` counts them.

    A cut is made at the end of a section, else of a paragraph, else of a sentence or line. Where a section goes on in
    the next chunk, that one repeats the last sentences of at most `overlap` tokens. `count` is asked a few times a
    document, for all of its texts at once.

    :raises UsageError: if `overlap` isn't less than half of `limit`, or a character doesn't fit into `limit`.
    """
    if not 0 <= overlap * 2 < limit:
        raise UsageError(f"expected an overlap of 0 to less than half of {limit} tokens, got {overlap}")
    around = count([""])[0]
    room = limit - around
    found = pieces(document, count, room, around)
    groups = _packed(found, room, overlap)
    texts = [_slice(document, group) for group in groups]
    tokens = count(texts) if texts else []
    while any(n > limit for n in tokens):  # the tokens of a whole can be more than those of its parts
        ends = [0, *(group[-1].end for group in groups)]
        groups = _in_order(
            part
            for group, n, end in zip(groups, tokens, ends, strict=False)
            for part in (_split(document, group, end, count, around, n) if n > limit else [group])
        )
        tokens = count([_slice(document, group) for group in groups])
    return [_chunk(document, group, n, ordinal) for ordinal, (group, n) in enumerate(zip(groups, tokens, strict=True))]


def _packed(found: Sequence[Piece], room: int, overlap: int) -> list[list[Piece]]:
    """The pieces of each chunk: as many as there is room for, and a cut in a good place where one is near."""
    groups: list[list[Piece]] = []
    group: list[Piece] = []
    size = 0
    for piece in found:
        goes_on = bool(group) and piece.section == group[-1].section
        is_full = size + piece.tokens > room
        ends_section = not goes_on and size * SMALL >= room
        ends_paragraph = size * 2 >= room and size + piece.paragraph_tokens > room and piece.paragraph_tokens > 0
        if group and (is_full or ends_section or ends_paragraph):
            groups.append(group)
            group = _tail(group, min(overlap, room - piece.tokens)) if goes_on else []
            size = sum(one.tokens for one in group)
        group.append(piece)
        size += piece.tokens
    return [*groups, group] if group else groups


def _tail(group: Sequence[Piece], most: int) -> list[Piece]:
    """The last pieces of the last section, as far as they have at most so many tokens; never the whole chunk."""
    kept: list[Piece] = []
    for piece in reversed(group[1:]):
        if piece.section != group[-1].section or piece.tokens > most:
            break
        kept.append(piece)
        most -= piece.tokens
    kept.reverse()
    return kept


def _in_order(groups: Iterable[list[Piece]]) -> list[list[Piece]]:
    """The groups, where none repeats all of the one before it: that one may have been cut shorter."""
    made: list[list[Piece]] = []
    for group in groups:
        made.append([piece for piece in group if not made or piece.start > made[-1][0].start])
    return made


def _split(
    document: Document, group: list[Piece], end: int, count: Count, around: int, tokens: int
) -> list[list[Piece]]:
    """A group that is too long: without what it repeats, up to `end`, or else in two."""
    if group[0].end <= end:
        return [[piece for piece in group if piece.end > end]]
    if len(group) > 1:
        middle = len(group) // 2
        return [group[:middle], group[middle:]]
    section = document.sections[group[0].section]
    piece = group[0]
    alone = Document(
        path=document.path,
        title="",
        format=document.format,
        text=document.text[: piece.end],
        sections=(type(section)(start=piece.start, end=piece.end),),
    )
    halves = pieces(alone, count, tokens - around - 1, around)
    return [[Piece(start=h.start, end=h.end, section=piece.section, tokens=h.tokens)] for h in halves]


def _slice(document: Document, group: Sequence[Piece]) -> str:
    return document.text[group[0].start : group[-1].end]


def _chunk(document: Document, group: Sequence[Piece], tokens: int, ordinal: int) -> Chunk:
    first, last = document.sections[group[0].section], document.sections[group[-1].section]
    return Chunk(
        ordinal=ordinal,
        start=group[0].start,
        end=group[-1].end,
        text=_slice(document, group),
        tokens=tokens,
        headings=_shared(first.headings, last.headings),
        page=first.page,
    )


def _shared(first: tuple[str, ...], last: tuple[str, ...]) -> tuple[str, ...]:
    """The path of both: the longer one if it goes through the other, as from an introduction into a first section."""
    n_same = next((n for n, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), None)
    return last if n_same is None and len(last) >= len(first) else first[:n_same] if n_same is not None else last
