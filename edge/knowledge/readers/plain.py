"""Bytes as text: which encoding they are in, and plain text and Markdown, whose text is taken as it stands."""

from __future__ import annotations

import codecs
import io
import itertools

from edge.knowledge.document import Draft, Unreadable
from gx.core.extras import installing

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SAMPLE_BYTES = 32 << 10
"""What the encoding is guessed from: the guess costs milliseconds a kilobyte, and more bytes rarely change it."""


def decode(raw: bytes) -> str:
    """The text of a file: by its byte order mark, else UTF-8, else by the likeliest encoding of its first bytes.

    :raises Unreadable: if it is no text in any encoding.
    """
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), None)
    if encoding is None and b"\0" in raw:
        raise Unreadable("it is not text: it has zero bytes")
    try:
        text = raw.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise Unreadable(f"it is broken: byte {error.start} is no {encoding.upper()}") from None
        text = _guessed(raw)
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def read_text(raw: bytes, draft: Draft) -> None:
    """Plain text: one section."""
    draft.add(decode(raw))


def read_markdown(raw: bytes, draft: Draft) -> None:
    """CommonMark: the source as it stands, a section at each heading. What looks like one inside a fence is none."""
    from markdown_it import MarkdownIt

    text = decode(raw)
    blocks = ["heading", "lheading", "fence", "code", "html_block", "list", "blockquote"]
    tokens = MarkdownIt("zero").enable(blocks).parse(text)
    lines = lines_of(text)
    done = 0
    for opening, content in itertools.pairwise(tokens):
        if opening.type != "heading_open" or opening.map is None or opening.level:
            continue
        draft.add("".join(lines[done : opening.map[0]]))
        draft.head(int(opening.tag[1:]), content.content)
        done = opening.map[0]
    draft.add("".join(lines[done:]))


def lines_of(text: str) -> list[str]:
    """The lines with their ends, where only a newline ends one: not the form feeds and others of `str.splitlines`."""
    return io.StringIO(text, newline="\n").readlines()


def _guessed(raw: bytes) -> str:
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        raise Unreadable(f"it is not UTF-8; for other encodings: {installing('knowledge')}") from None
    best = from_bytes(raw[:SAMPLE_BYTES]).best()
    if best is None:
        raise Unreadable("it is not text in an encoding that is known")
    return raw.decode(best.encoding, "replace")
