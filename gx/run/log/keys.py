"""Which keys may have a result in the log, so that DuckDB need not scan all of them for each batch of new tasks.

It holds the hashes of the keys, eight bytes each, and nothing of the results. The invariant: a key that had a result at
the time of the last `learn` is never left out by `among`; one that had none hardly ever passes.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections.abc import Collection

from gx.run.log.file import LogFile

PAGE = 100_000


class KnownKeys:
    """The keys of one file up to some event."""

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self._learning = threading.Lock()
        self._upto = -1
        self._hashes = array("q")

    def learn(self, upto: int) -> None:
        """Read the keys of the results at `seq` <= `upto` that were not read before; a million take some second."""
        sql = "SELECT DISTINCT key FROM events WHERE type = 'task.succeeded' AND seq BETWEEN ? AND ?"
        with self._learning:
            if upto <= self._upto:
                return
            hashes = array("q", self._hashes)
            for first in range(self._upto + 1, upto + 1, PAGE):
                hashes.extend(hash(key) for (key,) in self._file.ask(sql, [first, min(upto, first + PAGE - 1)]))
            self._hashes, self._upto = array("q", sorted(hashes)), upto

    def among(self, keys: Collection[str]) -> list[str]:
        """Those of `keys` that may have a result."""
        hashes = self._hashes
        places = ((key, hash(key)) for key in keys)
        return [
            key for key, value in places if (at := bisect_left(hashes, value)) < len(hashes) and hashes[at] == value
        ]
