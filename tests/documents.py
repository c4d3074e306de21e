"""Documents made for tests, in the formats that can't be written by hand."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import docx


def pdf(*pages: str, outline: bool = False) -> bytes:
    """A PDF 1.4 with a line of text a page, where none has brackets; with an outline, its entries are "Part n"."""
    n = len(pages)
    kids = " ".join(f"{4 + 2 * k} 0 R" for k in range(n))
    first = 4 + 2 * n
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R{f' /Outlines {first} 0 R' if outline else ''} >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {n} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for k, text in enumerate(pages):
        content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        page = f"/Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * k} 0 R"
        objects.append(f"<< /Type /Page {page} /Resources << /Font << /F1 3 0 R >> >> >>")
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    if outline:
        objects.append(f"<< /Type /Outlines /First {first + 1} 0 R /Last {first + n} 0 R /Count {n} >>")
        for k in range(n):
            after = f"/Next {first + 2 + k} 0 R " if k + 1 < n else ""
            objects.append(f"<< /Title (Part {k + 1}) /Parent {first} 0 R {after}/Dest [{4 + 2 * k} 0 R /Fit] >>")
    return _pdf(objects)


def _pdf(objects: Sequence[str]) -> bytes:
    made, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(made))
        made += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    trailer = f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(made)}\n%%EOF\n"
    return made + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}".encode()


def endless_pdf() -> bytes:
    """A PDF of two kilobytes that draws a form that draws ten forms, ten deep: ten thousand million words."""
    resources = "/Resources << /Font << /F1 3 0 R >> /XObject << /X {} 0 R >> >>"
    draw = "/X Do\n" * 10
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 5 0 R {resources.format(6)} >>",
        f"<< /Length {len(draw)} >>\nstream\n{draw}\nendstream",
    ]
    for depth in range(10):
        content = draw if depth < 9 else "BT /F1 1 Tf 1 1 Td (word) Tj ET"
        form = f"/Type /XObject /Subtype /Form /BBox [0 0 9 9] {resources.format(7 + depth)}"
        objects.append(f"<< {form} /Length {len(content)} >>\nstream\n{content}\nendstream")
    return _pdf(objects)


def word() -> bytes:
    """A DOCX with two headings, a paragraph under each, and a table."""
    document = docx.Document()
    document.core_properties.title = "The report"
    document.add_heading("First", 1)
    document.add_paragraph("Snow fell on the quay.")
    document.add_heading("Second", 2)
    document.add_paragraph("The ferry waited.")
    table = document.add_table(1, 2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "boats", "7"
    held = io.BytesIO()
    document.save(held)
    return held.getvalue()


def bomb(megabytes: int) -> bytes:
    """A DOCX of a few kilobytes a hundred megabytes, whose body is one run of that many letters."""
    held = io.BytesIO()
    source = zipfile.ZipFile(io.BytesIO(word()))
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in source.namelist():
            if entry != "word/document.xml":
                archive.writestr(entry, source.read(entry))
        name = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
        with archive.open("word/document.xml", "w") as body:
            body.write(f'<w:document xmlns:w="{name}"><w:body>'.encode())
            for _ in range(megabytes):
                body.write(b"<w:p><w:r><w:t>" + b"a" * (1 << 20) + b"</w:t></w:r></w:p>")
            body.write(b"</w:body></w:document>")
    return held.getvalue()
