"""Content by its digest: what was written or read lately from memory, the rest from the log.

Bounded by bytes, so that neither inputs nor results pile up however long a run is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection

from gx.core.errors import LogError
from gx.core.event import Blob, Ref
from gx.core.ids import digest

CAPACITY_BYTES = 32 * 1024 * 1024


class Contents:
    """A least-recently-used cache before the log's blobs. `load` fetches those that are not here."""

    def __init__(
        self, load: Callable[[Collection[Ref]], dict[Ref, bytes]], capacity_bytes: int = CAPACITY_BYTES
    ) -> None:
        self._load = load
        self._capacity = capacity_bytes
        self._kept: OrderedDict[Ref, bytes] = OrderedDict()
        self._bytes = 0

    def put(self, content: bytes) -> Blob:
        """The blob of `content`, which is to be committed with the event that names it."""
        blob = Blob(digest=digest(content), content=content)
        self._keep(blob.digest, content)
        return blob

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

    def _keep(self, ref: Ref, content: bytes) -> None:
        if ref in self._kept:
            self._kept.move_to_end(ref)
            return
        self._kept[ref] = content
        self._bytes += len(content)
        while self._bytes > self._capacity and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= len(dropped)
