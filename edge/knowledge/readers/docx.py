"""DOCX through python-docx: paragraphs, headings by their style, and tables row by row."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any

from edge.knowledge.document import Draft, Unreadable

UNPACKED_BYTES = 256 << 20
"""What a file may unpack to. One of 64 MiB at a document's usual 1:4 fits; a bomb is 1:1000."""
_OLE = b"\xd0\xcf\x11\xe0"  # the container of old .doc files, and of encrypted .docx ([MS-CFB] 2.2)
_HEADING = re.compile(r"heading (\d)", re.IGNORECASE)


def read_docx(raw: bytes, draft: Draft) -> None:
    """A Word document, as far as its body goes: no headers, footers, notes or comments."""
    if raw.startswith(_OLE):
        raise Unreadable("it is encrypted, or an old .doc under this name")
    _check_unpacked(raw)
    import docx
    from docx.opc.exceptions import PackageNotFoundError
    from lxml.etree import LxmlError

    try:
        document = docx.Document(io.BytesIO(raw))
        draft.title = document.core_properties.title or ""
        for block in document.iter_inner_content():
            _add(block, draft)
    except (PackageNotFoundError, LxmlError, zipfile.BadZipFile, KeyError, ValueError, AttributeError) as error:
        raise Unreadable(f"it is a broken DOCX: {error}") from None


def _add(block: Any, draft: Draft) -> None:
    if hasattr(block, "rows"):
        for row in block.rows:
            draft.add(" | ".join(" ".join(cell.text.split()) for cell in row.cells) + "\n")
        draft.add("\n")
        return
    style = (block.style.name or "") if block.style is not None else ""
    heading = _HEADING.match(style)
    if heading is not None or style == "Title":
        draft.head(int(heading[1]) if heading is not None else 1, block.text)
    if block.text.strip():
        draft.add(block.text + "\n\n")


def _check_unpacked(raw: bytes) -> None:
    """By the archive's own directory; one that lies there is stopped by the limits of the process."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise Unreadable(f"it is a broken DOCX: {error}") from None
    unpacked_bytes = sum(entry.file_size for entry in entries)
    if unpacked_bytes > UNPACKED_BYTES:
        raise Unreadable(f"it unpacks to {unpacked_bytes:,} bytes; at most {UNPACKED_BYTES:,} are read")
