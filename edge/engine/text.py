"""Tokens' bytes back into text, as they come: whole characters only, cut before the first stop string.

It knows bytes and strings; it knows no tokens and no model.

Invariant: what `push` has given out, joined, is always a prefix of `text`, and never contains a stop string's start
that could still become one.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """The text of one answer. Bytes that aren't UTF-8 become U+FFFD; empty stop strings are ignored."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(s for s in stop if s)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._given: list[str] = []
        self.is_stopped = False

    @property
    def text(self) -> str:
        """Everything so far, with what is held back."""
        return "".join(self._given) + self._held

    def push(self, piece: bytes) -> str:
        """Add a token's bytes and return the text that is now certain; nothing after a stop string."""
        if self.is_stopped:
            return ""
        self._held += self._decoder.decode(piece)
        ends = [at for at in (self._held.find(s) for s in self._stop) if at >= 0]
        if ends:
            self._held, self.is_stopped = self._held[: min(ends)], True
            return self._give(len(self._held))
        return self._give(len(self._held) - self._pending())

    def close(self) -> str:
        """End the answer: return what was held back, and U+FFFD for a character that never became whole."""
        if not self.is_stopped:
            self._held += self._decoder.decode(b"", final=True)
        return self._give(len(self._held))

    def _give(self, length: int) -> str:
        given, self._held = self._held[:length], self._held[length:]
        if given:
            self._given.append(given)
        return given

    def _pending(self) -> int:
        """How many characters at the end could be the start of a stop string."""
        longest = max((len(s) for s in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(s.startswith(tail) for s in self._stop):
                return length
        return 0
