"""What crosses the plane's border, byte by byte, for whoever must show what did and what did not.

Messages are written as they are on the wire, after their headers; what is sent by HTTP keeps its body as a file of the
plane's folder already, so only its headers are. Nothing is ever read back here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class Record:
    """A file that only grows; one without a path keeps nothing."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def write(self, name: str, headers: Mapping[str, str | bytes] | None, body: bytes = b"") -> None:
        """One message or request, by the name of its RPC or by its path."""
        if self._path is None:
            return
        lines = [b"%s: %s" % (key.encode(), _bytes(value)) for key, value in (headers or {}).items()]
        with self._path.open("ab") as out:
            out.write(b"\n".join([name.encode(), *lines, body, b""]))


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
