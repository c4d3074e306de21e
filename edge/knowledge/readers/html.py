"""HTML: what a reader of the page would see, a line a block and a section a heading. Scripts and styles are no text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from edge.knowledge.document import Draft
from edge.knowledge.readers.plain import decode

_UNSEEN = ["script", "style", "template", "noscript", "svg", "math", "iframe", "object", "canvas", "select"]
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BROKEN = (
    "address aside body br caption dd details dialog div dt fieldset figcaption figure footer form header hr html"
    " legend li main nav summary tbody tfoot thead tr"
)
_LINES = frozenset(_BROKEN.split())
_PARAGRAPHS = frozenset({"p", "table", "ul", "ol", "dl", "pre", "blockquote", "section", "article", *_HEADINGS})
_DECLARED = re.compile(rb"<meta[^>]{1,200}?charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)


def read_html(raw: bytes, draft: Draft) -> None:
    """A page. Runs of blanks are one space, but in `pre`; the cells of a row are told apart by a bar."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(_text(raw))
    title = tree.css_first("title")
    draft.title = " ".join(title.text().split()) if title is not None else ""
    tree.strip_tags([*_UNSEEN, "head"])
    gap, verbatim = "", 0
    for node, is_opening in _walk(tree.root):
        tag = node.tag
        if tag == "-text":
            if not is_opening:
                continue
            text = node.text_content or ""
            words = text if verbatim else " ".join(text.split())
            if not words.strip():
                gap = gap or " "
                continue
            draft.add((gap or " " * text[0].isspace()) + words)
            gap = " " if text[-1].isspace() else ""
            continue
        verbatim += (1 if is_opening else -1) * (tag == "pre")
        if tag in _PARAGRAPHS:
            gap = "\n\n"
        elif tag in _LINES:
            gap = gap if gap.startswith("\n") else "\n"
        elif tag in ("td", "th") and is_opening:
            gap = gap if gap.startswith("\n") else " | "
        if tag in _HEADINGS and is_opening:
            draft.add(gap)
            gap = ""
            draft.head(_HEADINGS[tag], node.text())


def _walk(root: Any) -> Iterator[tuple[Any, bool]]:
    """Each node below `root` as it opens (True) and as it closes (False), in the order of the page."""
    node = root.child if root is not None else None
    while node is not None:
        yield node, True
        after = node.child
        while after is None:
            yield node, False
            after = node.next
            if after is None:
                node = node.parent
                if node is None or node == root:
                    return
        node = after


def _text(raw: bytes) -> str:
    """By what the page declares, where its bytes bear that out; else as any text."""
    declared = _DECLARED.search(raw[:4096])
    if declared is not None:
        try:
            return raw.decode(declared[1].decode("ascii"))
        except (LookupError, UnicodeDecodeError):
            pass
    return decode(raw)
