"""Content by its digest: what was written or read lately from memory, the rest from the log.

Bounded by bytes, so that neither inputs nor results pile up however long a run is. A prompt is not kept: nobody reads
one back while it runs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from itertools import islice

from gx.core.errors import LogError
from gx.core.event import Blob, Ref
from gx.core.ids import digest
from gx.core.message import Label

CAPACITY_BYTES = 16 << 20
AHEAD = 8192
"""The most contents that are loaded before they are asked for."""
LEAST_AHEAD = 64
"""Items that may wait however large they are, so that workers never do."""
_ENTRY_BYTES = 300
"""What an entry takes beside its content: the digest, the head of the bytes and a place in the dict; measured."""


def blob_of(content: bytes, label: Label = Label.shared) -> Blob:
    """The blob of `content`, which is to be committed with the event that names it."""
    return Blob(digest=digest(content), content=content, label=label)


class Contents:
    """A least-recently-used cache before the log's blobs. `load` fetches those that are not here, `measure` says how
    many bytes they have.
    """

    def __init__(
        self,
        load: Callable[[Collection[Ref]], dict[Ref, bytes]],
        measure: Callable[[Collection[Ref]], dict[Ref, int]],
        capacity_bytes: int = CAPACITY_BYTES,
    ) -> None:
        self._load, self._measure = load, measure
        self._capacity = capacity_bytes
        self._kept: OrderedDict[Ref, bytes] = OrderedDict()
        self._bytes = 0

    def put(self, content: bytes, label: Label = Label.shared) -> Blob:
        """`blob_of(content)` with that label, which is kept, since somebody will ask for it soon."""
        blob = blob_of(content, label)
        self._keep(blob.digest, content)
        return blob

    def bring(self, refs: Collection[Ref], later: Iterator[Ref]) -> dict[Ref, bytes]:
        """The content of each of `refs` that is still there. If the log must be asked, it is asked at once for those of
        `later` that half the cache holds: a question costs a scan of all digests, however few it is about.
        """
        if all(ref in self._kept for ref in refs):
            return self.find(refs)
        mean_bytes = self._bytes / len(self._kept) if self._kept else _ENTRY_BYTES
        ahead = islice(later, min(AHEAD, int(self._capacity / 2 / mean_bytes)))
        return self.find(dict.fromkeys([*refs, *ahead]))

    def is_outrun_by(self, waiting: int) -> bool:
        """Whether so many items that wait would push each other out, to be read back one by one, which is slow."""
        mean_bytes = self._bytes / len(self._kept) if self._kept else 0
        return waiting > LEAST_AHEAD and waiting * mean_bytes > self._capacity / 2

    def get(self, refs: Collection[Ref]) -> dict[Ref, bytes]:
        """The content of each ref. :raises LogError: if one was erased."""
        found = self.find(refs)
        for ref in refs:
            if ref not in found:
                raise LogError(f"the content {ref} was erased", code="log.erased", hint="run again with --fresh")
        return found

    def find(self, refs: Collection[Ref]) -> dict[Ref, bytes]:
        """The content of each ref that is still there."""
        found = {ref: self._kept[ref] for ref in refs if ref in self._kept}
        for ref in found:
            self._kept.move_to_end(ref)
        if missing := [ref for ref in dict.fromkeys(refs) if ref not in found]:
            loaded = self._load(missing)
            for ref, content in loaded.items():
                self._keep(ref, content)
            found.update(loaded)
        return found

    def sizes(self, refs: Collection[Ref]) -> dict[Ref, int]:
        """The bytes of each content that is still there, which isn't read for that."""
        found = {ref: len(self._kept[ref]) for ref in refs if ref in self._kept}
        missing = [ref for ref in refs if ref not in found]
        return found | self._measure(missing) if missing else found

    def _keep(self, ref: Ref, content: bytes) -> None:
        if ref in self._kept:
            self._kept.move_to_end(ref)
            return
        self._kept[ref] = content
        self._bytes += len(content) + _ENTRY_BYTES
        while self._bytes > self._capacity and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= len(dropped) + _ENTRY_BYTES
