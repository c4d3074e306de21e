"""What a file becomes when it is read: its text, and the sections that the text falls into.

Invariant: the sections of a document stand in its text in order, touch each other, and cover it from end to end; so a
place in the text is a place in the document, and what is cut from it can be shown where it stands.
"""

from __future__ import annotations

from gx.core.message import Value


class Limits(Value, frozen=True, kw_only=True):
    """What reading one file may cost; a file that costs more is skipped.

    `memory_bytes` is the address space of the process that reads, beyond what it has when it starts. `cpu_s` is its
    processor time and `wall_s` the time that the file is waited for. `text_chars` is what a document may hold.
    """

    file_bytes: int = 64 << 20
    text_chars: int = 8_000_000
    memory_bytes: int = 1 << 30
    cpu_s: int = 20
    wall_s: float = 30.0


class Skipped(Value, frozen=True, kw_only=True):
    """A file or folder that isn't read, and why, for people. `path` is as it was found."""

    path: str
    reason: str


class Section(Value, frozen=True, kw_only=True):
    """A part of a document: `text[start:end]`, in characters. `headings` is the path to it, the outermost first.

    `page` counts from 1; `None` where the format has no pages.
    """

    start: int
    end: int
    headings: tuple[str, ...] = ()
    page: int | None = None


class Document(Value, frozen=True, kw_only=True):
    """What was read of a file. `title` is its own, or the name of the file; `format` is a name of `formats.FORMATS`.

    `sha256` is of the bytes that were read: the file may be another one by the time that it is looked at again.
    """

    path: str
    title: str
    format: str
    text: str
    sections: tuple[Section, ...]
    sha256: str = ""


class Unreadable(Exception):
    """A file that can't be read as what it claims to be; the message is the reason of its `Skipped`."""


class Draft:
    """A document that is being written, piece by piece.

    :raises Unreadable: from `add`, once the text is longer than `text_chars`.
    """

    def __init__(self, text_chars: int) -> None:
        self.title = ""
        self._parts: list[str] = []
        self._n_chars, self._text_chars = 0, text_chars
        self._marks: list[tuple[int, tuple[str, ...], int | None]] = [(0, (), None)]
        self._headings: list[tuple[int, str]] = []
        self._page: int | None = None

    def add(self, text: str) -> None:
        """Write what comes next."""
        text = _whole(text)
        self._n_chars += len(text)
        if self._n_chars > self._text_chars:
            raise Unreadable(f"its text is longer than {self._text_chars:,} characters")
        self._parts.append(text)

    def head(self, level: int, heading: str) -> None:
        """Begin a section under a heading of that level, 1 for the outermost; its text is for the caller to add."""
        heading = _whole(" ".join(heading.split()))
        self._headings = [(above, name) for above, name in self._headings if above < level]
        if heading:
            self._headings.append((level, heading))
            self.title = self.title or heading
        self._mark()

    def turn(self, page: int) -> None:
        """Begin a page, in a section of its own."""
        self._page = page
        self._mark()

    def document(self, path: str, name: str, format_name: str, sha256: str) -> Document:
        """The whole, where sections without a letter are none. :raises Unreadable: if there is no text at all."""
        text = "".join(self._parts)
        if not text.strip():
            raise Unreadable("there is no text in it")
        marks = [mark for mark, after in zip(self._marks, self._ends(), strict=True) if text[mark[0] : after].strip()]
        starts = [0, *(start for start, _, _ in marks[1:]), len(text)]
        sections = tuple(
            Section(start=starts[n], end=starts[n + 1], headings=headings, page=page)
            for n, (_, headings, page) in enumerate(marks)
        )
        title = _whole(" ".join(self.title.split())) or name
        return Document(path=path, title=title, format=format_name, text=text, sections=sections, sha256=sha256)

    def _mark(self) -> None:
        self._marks.append((self._n_chars, tuple(name for _, name in self._headings), self._page))

    def _ends(self) -> list[int]:
        return [*(start for start, _, _ in self._marks[1:]), self._n_chars]


def _whole(text: str) -> str:
    """The text, where half a character, which some formats let through, is a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
