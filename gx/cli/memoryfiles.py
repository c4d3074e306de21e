"""`gx memory add PATH…`: files are compared with what is remembered of them, read, cut, and handed to the node.

Files are read and cut here, in a thread and a process beside it, while the node embeds what came before; what a file
holds can't harm the node. A document is handed over whole: all of its parts are remembered, or none is. So whoever is
killed begins again, and only what is missing is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gx import output
from gx.cli.ahead import ahead
from gx.cli.memoryasking import Asking, model_of, tell, told_how_far
from gx.core.errors import GxError
from gx.core.memory import Draft, Kind, Replaced, Source
from gx.core.words import counted

if TYPE_CHECKING:
    from edge.knowledge.changes import Changes
    from edge.knowledge.document import Skipped
    from edge.knowledge.reading import Read
    from gx.cli.memoryinput import Given
    from gx.node.memoryroutes import Documents

PAGE_PARTS = 256
"""Parts that are handed over at once: enough for the engine to be busy, few enough to tell how it goes."""
PAGE_PATHS = 500
AHEAD = 64
"""Documents that may be ready before the node takes them."""
TELL_EVERY_S = 5.0
LONGEST_PATH = 4096
"""As `gx.core.memorycheck` has it."""


def add_documents(
    words: list[str], given: Given, workspace: Path | None, *, as_json: bool | None, model: str | None = None
) -> bool:
    """Have the files at or below the paths remembered as they are now. Whether none of them had to be skipped.

    `model` is the source of an embedding model, in place of the settings'.

    :raises InputError: if a path isn't there. :raises GxError: what the node refuses.
    """
    from edge.knowledge.document import Limits
    from edge.knowledge.extraction import Extractor
    from edge.knowledge.reading import read
    from edge.knowledge.walk import found
    from gx.cli.memoryinput import path_of
    from gx.core.memorycheck import check_namespace
    from gx.node.memoryroutes import Documents, Standing

    check_namespace(given.namespace)
    limits, model = Limits(), model or model_of(None)
    given_paths = [path_of(word) for word in words]
    seen = list(found(given_paths, limits))
    asking = Asking(workspace, makes=True)
    roots = tuple(str(path.resolve()) for path in given_paths)
    asked = Standing(namespace=given.namespace, paths=roots, model=model)
    there: Documents = asking.ask("POST", "/documents", asked, Documents)
    tell(there.notes)
    changes = _changes(seen, there, given, roots)
    telling = _Telling(changes, output.wants_json(as_json))
    replacing = _Replacing(asking, given, model)
    telling.skipped(changes.skipped)
    for n in range(0, len(changes.removed), PAGE_PATHS):
        page = changes.removed[n : n + PAGE_PATHS]
        replacing.send(page, [])
        telling.done([(path, 0) for path in page])
    todo = [one.path for one in (*changes.new, *changes.changed)]
    if todo:
        count, limit, overlap = _measure(there.model, asking)
        with (
            Extractor(limits) as extractor,
            closing(ahead(read(todo, extractor, count, limit, overlap), AHEAD)) as documents,
        ):  # it ends before the extractor, whose child it would have started again
            for ready in _pages(documents, telling):
                try:
                    replacing.send(
                        [one.path for one in ready], [draft for one in ready for draft in _drafts(one, given)]
                    )
                except GxError:
                    telling.broken()
                    raise
                telling.done([(one.path, len(one.chunks)) for one in ready])
    if not todo:
        with told_how_far(asking):
            replacing.send([], [])  # whoever was interrupted before may have left some without a vector
    tell(note for note in replacing.notes if note not in there.notes)
    telling.end(given.namespace)
    return not telling.n_skipped


class _Replacing:
    """Hands documents to the node; keeps what it says of them, each once."""

    def __init__(self, asking: Asking, given: Given, model: str | None) -> None:
        self._asking, self._namespace, self._model = asking, given.namespace, model
        self.notes: dict[str, None] = {}

    def send(self, paths: Iterable[str], drafts: list[Draft]) -> None:
        from gx.node.memoryroutes import Replace

        asked = Replace(namespace=self._namespace, paths=tuple(paths), memories=tuple(drafts), model=self._model)
        replaced: Replaced = self._asking.ask("POST", "/replace", asked, Replaced)
        self.notes |= dict.fromkeys(replaced.notes)


class _Telling:
    """What is said while it goes: a record a document on stdout, what is skipped and how far it is on stderr."""

    def __init__(self, changes: Changes, wants_json: bool) -> None:
        import time

        self._clock, self._wants_json, self.n_skipped = time.monotonic, wants_json, 0
        self._changes, self._told_s = changes, self._clock()
        self._status = dict.fromkeys(changes.removed, "removed")
        self._status |= {one.path: "new" for one in changes.new} | {one.path: "changed" for one in changes.changed}
        self._n_read = self._n_parts = 0

    def skipped(self, skipped: Iterable[Skipped]) -> None:
        for one in skipped:
            self.n_skipped += 1
            output.note(f"skipped: {_plain(one.path)}: {_plain(one.reason)}")
            if self._wants_json:
                output.emit([{"path": one.path, "status": "skipped", "reason": one.reason}], as_json=True)

    def done(self, documents: Iterable[tuple[str, int]]) -> None:
        for path, n_parts in documents:
            status = self._status[path]
            self._n_read += status != "removed"
            self._n_parts += n_parts
            if self._wants_json:
                output.emit([{"path": path, "status": status, "parts": n_parts}], as_json=True)
        if self._clock() - self._told_s >= TELL_EVERY_S:
            self._told_s = self._clock()
            output.note(f"{self._so_far()}, {counted(self._n_parts, 'part')} so far")

    def broken(self) -> None:
        """It ends here, for a reason that is told by itself."""
        output.note(f"{self._so_far()} are remembered; the same command goes on with the rest")

    def _so_far(self) -> str:
        total = len(self._changes.new) + len(self._changes.changed)
        return f"{self._n_read:,} of {counted(total, 'document')}"

    def end(self, namespace: str) -> None:
        removed, same = len(self._changes.removed), len(self._changes.unchanged)
        more = [
            text
            for count, text in (
                (removed, f"{removed:,} forgotten that are gone"),
                (same, f"{same:,} as they were"),
                (self.n_skipped, f"{self.n_skipped:,} skipped"),
            )
            if count
        ]
        said = f"{counted(self._n_read, 'document')} remembered in {namespace}, in {counted(self._n_parts, 'part')}"
        said = said if self._n_read else f"no new document for {namespace}"
        output.note("; ".join([said, *more]))


def _changes(seen: list[Any], there: Documents, given: Given, roots: tuple[str, ...]) -> Changes:
    """What became of the files; one that stands under another label, or in parts of several digests, has changed."""
    from edge.knowledge.changes import changes
    from edge.knowledge.document import Skipped

    known = {one.path: one.sha256 if one.label is given.label else "" for one in there.documents}
    fit = [
        Skipped(path=one.path, reason="its path is too long") if len(one.path) > LONGEST_PATH else one for one in seen
    ]
    return changes(fit, known, roots=roots)


def _measure(source: str, asking: Asking) -> tuple[Callable[[Any], list[int]], int, int]:
    """How documents are cut: what counts tokens, the most of a part, and the most that two parts share."""
    from edge.knowledge.counting import about
    from edge.knowledge.reading import CHUNK_TOKENS, OVERLAP_TOKENS
    from gx import settings, wiring

    model = wiring.embedding_model(source, settings.load(), asking.place.folder.parent) if source else None
    if model is None:
        return about, CHUNK_TOKENS, OVERLAP_TOKENS
    return wiring.token_count(model), min(CHUNK_TOKENS, model.text_tokens or CHUNK_TOKENS), OVERLAP_TOKENS


def _pages(read: Iterable[Read | Skipped], telling: _Telling) -> Iterator[list[Read]]:
    """Documents in pages of about so many parts; what can't be read is told at once."""
    from edge.knowledge.document import Skipped

    page, n_parts = list[Any](), 0
    for one in read:
        if isinstance(one, Skipped):
            telling.skipped([one])
            continue
        if page and n_parts + len(one.chunks) > PAGE_PARTS:
            yield page
            page, n_parts = [], 0
        page.append(one)
        n_parts += len(one.chunks)
    if page:
        yield page


def _drafts(read: Read, given: Given) -> list[Draft]:
    from edge.knowledge.reading import heading_of

    return [
        Draft(
            body=chunk.text.replace("\0", "\ufffd"),
            namespace=given.namespace,
            kind=Kind.chunk,
            label=given.label,
            source=Source(
                by=given.by,
                path=read.path,
                ordinal=chunk.ordinal,
                heading=heading_of(read.title, chunk.headings).replace("\0", "\ufffd"),
                page=chunk.page,
                sha256=read.sha256,
            ),
        )
        for chunk in read.chunks
    ]


def _plain(text: str) -> str:
    """A text on one line, without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else "�" for c in text)
