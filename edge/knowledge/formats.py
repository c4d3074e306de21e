"""Which reader a file is for, by the end of its name; and what is never read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath

from edge.knowledge.document import Draft
from edge.knowledge.readers.code import read_code, read_python
from edge.knowledge.readers.docx import read_docx
from edge.knowledge.readers.html import read_html
from edge.knowledge.readers.pdf import read_pdf
from edge.knowledge.readers.plain import read_markdown, read_text
from edge.knowledge.readers.rows import read_csv, read_json_lines

Read = Callable[[bytes, Draft], None]

_CODE = (
    "c cc cpp cxx h hh hpp cs go java kt kts scala swift rs zig js mjs cjs jsx ts tsx vue php rb pl pm lua r jl dart ex"
    " exs erl hs ml mli fs clj sql sh bash zsh fish ps1 proto thrift graphql tf cmake gradle groovy nim v vhd asm s"
)
FORMATS: dict[str, Read] = {
    "text": read_text,
    "markdown": read_markdown,
    "html": read_html,
    "pdf": read_pdf,
    "docx": read_docx,
    "csv": read_csv,
    "jsonl": read_json_lines,
    "python": read_python,
    "code": read_code,
}
_ENDINGS: dict[str, str] = {
    **dict.fromkeys(_CODE.split(), "code"),
    **dict.fromkeys(("md", "markdown", "mdown", "mkd"), "markdown"),
    **dict.fromkeys(("html", "htm", "xhtml"), "html"),
    **dict.fromkeys(("csv", "tsv"), "csv"),
    **dict.fromkeys(("jsonl", "ndjson"), "jsonl"),
    **dict.fromkeys(("py", "pyi", "pyw"), "python"),
    "pdf": "pdf",
    "docx": "docx",
}
_UNREAD = (
    "png jpg jpeg gif webp bmp tif tiff ico mp3 mp4 m4a wav flac ogg avi mov mkv webm zip gz bz2 xz zst 7z rar tar"
    " exe dll so dylib a o class jar pyc whl gguf safetensors onnx pt bin db sqlite duckdb parquet woff woff2 ttf otf"
    " doc xls xlsx ppt pptx odt ods odp epub"
)


def format_of(path: str) -> str | None:
    """The format that a name promises: a key of `FORMATS`, "text" for an unknown ending; `None` for what isn't read."""
    ending = PurePath(path).suffix.removeprefix(".").lower()
    if ending in _UNREAD.split():
        return None
    return _ENDINGS.get(ending, "text")
