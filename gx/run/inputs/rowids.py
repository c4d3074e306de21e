"""Ids that are unique within an input: the second row that brings "X" runs as "X#2".

Every id seen is remembered as 64 bits in an open-addressed table, at 16 to 32 bytes an id, since a set of strings would
outgrow a large input's machine. Two ids that share their 64 bits (1 in 10⁵ inputs of 10⁷ rows) cost a "#2", no row.
"""

from __future__ import annotations

import hashlib
from array import array

_BEGIN = 1 << 10


class RowIds:
    """Gives each row its id. `repeats` counts the rows whose id was taken."""

    def __init__(self) -> None:
        self.repeats = 0
        self._slots = array("Q", bytes(8 * _BEGIN))
        self._count = 0
        self._next: dict[str, int] = {}  # of ids that came again: the number to try next

    def unique(self, row_id: str) -> str:
        """`row_id` if it is new, else "row_id#2", "row_id#3"…: the first of them that is new."""
        if self._add(row_id):
            return row_id
        self.repeats += 1
        number = self._next.get(row_id, 2)
        while not self._add(candidate := f"{row_id}#{number}"):
            number += 1
        self._next[row_id] = number + 1
        return candidate

    def _add(self, row_id: str) -> bool:
        raw = hashlib.blake2b(row_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        key = int.from_bytes(raw, "little") or 1  # 0 marks a free slot
        if not self._put(self._slots, key):
            return False
        self._count += 1
        if 2 * self._count > len(self._slots):
            larger = array("Q", bytes(16 * len(self._slots)))
            for old in self._slots:
                if old:
                    self._put(larger, old)
            self._slots = larger
        return True

    @staticmethod
    def _put(slots: array[int], key: int) -> bool:
        """Whether `key` was new. Linear probing; the table is at most half full."""
        mask = len(slots) - 1
        at = key & mask
        while slots[at]:
            if slots[at] == key:
                return False
            at = (at + 1) & mask
        slots[at] = key
        return True
