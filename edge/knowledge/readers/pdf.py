"""PDF through PDFium: the text of each page, under the heading that the file's own outline puts over it."""

from __future__ import annotations

from typing import Any

from edge.knowledge.document import Draft, Unreadable

MOST_OUTLINE = 10_000
"""An outline longer than this is no table of contents."""


def read_pdf(raw: bytes, draft: Draft) -> None:
    """A PDF. A page that is a picture has no text; a file of such pages is told as one without."""
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(raw)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise Unreadable("it is encrypted, and opens with a password only") from None
        raise Unreadable(f"it is a broken PDF: {error}") from None
    try:
        draft.title = (pdf.get_metadata_dict(skip_empty=True) or {}).get("Title", "")
        outline = _outline(pdf)
        has_text = False
        for number in range(len(pdf)):
            text = _page(pdf, number)
            for level, heading in outline.get(number, ()):
                draft.head(level, heading)
            draft.turn(number + 1)
            draft.add(text)
            has_text = has_text or bool(text.strip())
        if not has_text:
            raise Unreadable("there is no text on its pages: pictures of text, perhaps, as a scanner makes them")
    except pypdfium2.PdfiumError as error:
        raise Unreadable(f"it is a broken PDF: {error}") from None
    finally:
        pdf.close()


def _page(pdf: Any, number: int) -> str:
    page = pdf[number]
    content = page.get_textpage()
    try:
        # U+FFFE is PDFium's sign for a hyphen that broke a word at the end of a line.
        text = str(content.get_text_bounded()).replace("\r\n", "\n").replace("\ufffe\n", "").replace("\ufffe", "")
    finally:
        content.close()
        page.close()
    return text.replace("\0", "").rstrip() + "\n\n"


def _outline(pdf: Any) -> dict[int, list[tuple[int, str]]]:
    """What the outline begins on each page, from 0: levels from 1, and headings."""
    found: dict[int, list[tuple[int, str]]] = {}
    for count, mark in enumerate(pdf.get_toc(max_depth=6)):
        target = mark.get_dest()
        page = target.get_index() if target is not None else None
        if page is not None:
            found.setdefault(page, []).append((mark.level + 1, mark.get_title()))
        if count >= MOST_OUTLINE:
            break
    return found
