"""What is read of each format: the text, its sections, and where they stand."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.knowledge.document import Document, Skipped
from edge.knowledge.extraction import Extractor
from tests.documents import pdf, word


@pytest.fixture(scope="module")
def extractor() -> Iterator[Extractor]:
    with Extractor() as extractor:
        yield extractor


def read(extractor: Extractor, path: Path, raw: bytes | str) -> Document:
    raw = raw.encode() if isinstance(raw, str) else raw
    path.write_bytes(raw)
    document = extractor.extract(str(path))
    assert isinstance(document, Document), document
    assert document.sha256 == hashlib.sha256(raw).hexdigest()
    return document


def parts(document: Document) -> list[tuple[tuple[str, ...], str]]:
    return [(one.headings, document.text[one.start : one.end].strip()) for one in document.sections]


def test_markdown_has_a_section_a_heading_but_not_for_what_looks_like_one(extractor: Extractor, tmp_path: Path) -> None:
    text = "---\nx: 1\n\n# A *b*\n\nOne.\n\n```sh\n# no heading\n```\n\nDeep\n----\n\n- # nor this\n\n# Z\nlast"
    document = read(extractor, tmp_path / "a.md", text)
    assert document.text == text and document.title == "A *b*"
    assert [one.headings for one in document.sections] == [(), ("A *b*",), ("A *b*", "Deep"), ("Z",)]
    assert parts(document)[-1][1] == "# Z\nlast"


def test_html_is_what_a_reader_sees(extractor: Extractor, tmp_path: Path) -> None:
    page = (
        "<title> The  page </title><style>p{}</style><script>alert('x')</script><body>"
        "<h1>One</h1>text <b>bold</b>, and<p>par&amp;graph<br>line</p><ul><li>a</li><li>b</li></ul>"
        "<table><tr><th>k</th><th>v</th></tr><tr><td>1</td><td>2</td></tr></table>"
        "<h2>Two <i>x</i></h2><pre>a\n  b</pre><noscript>no</noscript><template>nor</template><!-- c -->end"
    )
    document = read(extractor, tmp_path / "a.html", page)
    assert document.title == "The page"
    assert parts(document) == [
        (("One",), "One\n\ntext bold, and\n\npar&graph\nline\n\na\nb\n\nk | v\n1 | 2"),
        (("One", "Two x"), "Two x\n\na\n  b\n\nend"),
    ]


def test_html_says_its_own_encoding(extractor: Extractor, tmp_path: Path) -> None:
    raw = "<meta charset=windows-1252><p>caf\u00e9 \u2014 na\u00efve".encode("cp1252")
    assert read(extractor, tmp_path / "a.html", raw).text.strip() == "caf\u00e9 \u2014 na\u00efve"


def test_a_pdf_has_a_section_a_page_under_what_its_outline_says(extractor: Extractor, tmp_path: Path) -> None:
    document = read(extractor, tmp_path / "a.pdf", pdf("First page.", "Second page.", outline=True))
    assert parts(document) == [(("Part 1",), "First page."), (("Part 2",), "Second page.")]
    assert [one.page for one in document.sections] == [1, 2]
    assert read(extractor, tmp_path / "b.pdf", pdf("Bare.")).title == "b.pdf"


def test_a_docx_has_its_headings_and_tables(extractor: Extractor, tmp_path: Path) -> None:
    document = read(extractor, tmp_path / "a.docx", word())
    assert document.title == "The report"
    assert parts(document) == [
        (("First",), "First\n\nSnow fell on the quay."),
        (("First", "Second"), "Second\n\nThe ferry waited.\n\nboats | 7"),
    ]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_row_says_its_columns(extractor: Extractor, tmp_path: Path, mark: str) -> None:
    rows = [["name", "said"], ["Ida", '"Yes\nand no"'], ["Bo", ""], ["Cy", "x", "more"]]
    document = read(extractor, tmp_path / "a.csv", "\n".join(mark.join(row) for row in rows))
    assert document.text == "name: Ida; said: Yes and no\nname: Bo\nname: Cy; said: x; more\n"


def test_json_lines_are_rows(extractor: Extractor, tmp_path: Path) -> None:
    lines = '{"a": 1, "b": "two\\u2028x", "c": null, "d": {"e": [1]}}\n\n["f"]\n'
    assert read(extractor, tmp_path / "a.jsonl", lines).text == 'a: 1; b: two x; d: {"e":[1]}\n["f"]\n'


def test_code_has_a_section_a_definition(extractor: Extractor, tmp_path: Path) -> None:
    text = "import os\n\n@mark\ndef a():\n    pass\n\nclass B:\n    x = 1\n    def c(self): ...\n\nX = a()\n"
    document = read(extractor, tmp_path / "a.py", text)
    assert document.text == text and document.title == "a.py"
    assert [one.headings for one in document.sections] == [(), ("a",), ("B",), ("B", "c"), ()]
    assert parts(document)[1][1].startswith("@mark")
    rust = "use x;\npub(crate) async fn go(a: u8) {\n}\n\nimpl Tree {\n}\nstatic int add(int a) {\n}\n"
    assert [one.headings for one in read(extractor, tmp_path / "a.rs", rust).sections] == [
        (), ("go",), ("Tree",), ("add",),
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "cp1251"])
def test_text_is_read_in_its_own_encoding(extractor: Extractor, tmp_path: Path, encoding: str) -> None:
    text = "Съешь же ещё этих мягких французских булок, да выпей чаю.\n" * 4
    assert read(extractor, tmp_path / "a.txt", text.replace("\n", "\r\n").encode(encoding)).text == text


@pytest.mark.parametrize(
    ("name", "raw", "reason"),
    [
        ("a.txt", b"", "it is empty"),
        ("a.txt", b" \n\t", "there is no text in it"),
        ("a", b"\x7fELF\0\0", "it is not text: it has zero bytes"),
        ("a.png", b"\x89PNG", "files of the kind .png are not read"),
        ("a.pdf", b"no pdf", "it is a broken PDF"),
        ("a.pdf", pdf("x").replace(b"(x) Tj", b"       "), "there is no text on its pages"),
        ("a.pdf", pdf("cut short")[:200], "it is a broken PDF"),
        ("a.docx", b"PK\x03\x04 cut", "it is a broken DOCX"),
        ("a.docx", word()[:-200], "it is a broken DOCX"),
        ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "it is encrypted, or an old .doc"),
        ("a.jsonl", b'{"a": 1}\n{"b"\n', "it is broken in line 2"),
        ("a.html", b"<script>1</script>", "there is no text in it"),
    ],
)
def test_what_cannot_be_read_is_skipped_with_its_reason(
    extractor: Extractor, tmp_path: Path, name: str, raw: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(raw)
    skipped = extractor.extract(str(tmp_path / name))
    assert isinstance(skipped, Skipped) and skipped.reason.startswith(reason)


def test_an_encrypted_pdf_is_skipped(extractor: Extractor, tmp_path: Path) -> None:
    key = f"<< /Filter /Standard /V 1 /R 2 /O <{'ab' * 32}> /U <{'cd' * 32}> /P -4 >>"
    trailer = f"trailer << /Encrypt {key} /ID [<00> <00>] "
    (tmp_path / "a.pdf").write_bytes(pdf("x").replace(b"trailer << ", trailer.encode()))
    skipped = extractor.extract(str(tmp_path / "a.pdf"))
    assert isinstance(skipped, Skipped) and skipped.reason.startswith("it is encrypted")


def test_whoever_asks_for_documents_loads_no_library_that_reads_them() -> None:
    heavy = ["docx", "lxml", "pypdfium2", "selectolax", "charset_normalizer", "markdown_it", "numpy", "llama_cpp"]
    heavy += ["duckdb", "typer", "rich", "anyio"]
    code = (
        "import sys, edge.knowledge.chunks, edge.knowledge.changes, edge.knowledge.extraction\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
