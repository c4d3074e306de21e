"""Files by their SHA-256, on disk: what mounts and volumes are made of. A file enters only if its digest is true."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import grpclib
from grpclib.const import Status


class Contents:
    """A folder of files named by their digest."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def path(self, sha256: str) -> Path:
        return self._folder / sha256

    def has(self, sha256: str) -> bool:
        return self.path(sha256).exists()

    def put(self, data: bytes, sha256: str) -> None:
        """:raises GRPCError: INVALID_ARGUMENT, if the data has another digest."""
        self._check(hashlib.sha256(data).hexdigest(), sha256)
        part = self._folder / f"{sha256}.part"
        part.write_bytes(data)
        part.replace(self.path(sha256))

    def adopt(self, file: Path, sha256: str) -> None:
        """Take a file that lies on the same disk. :raises GRPCError: INVALID_ARGUMENT, if it has another digest."""
        with file.open("rb") as source:
            self._check(hashlib.file_digest(source, "sha256").hexdigest(), sha256)
        file.replace(self.path(sha256))

    def link(self, sha256: str, place: Path) -> None:
        """Put a file at `place` that nobody will write to: a hard link where the disk allows it."""
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.path(sha256), place)
        except OSError:
            shutil.copyfile(self.path(sha256), place)

    def write(self, digests: list[str], place: Path) -> None:
        """Write a file of its own at `place`, from one content or from several blocks in order."""
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{place.name}.part")
        with part.open("wb") as out:
            for sha256 in digests:
                with self.path(sha256).open("rb") as source:
                    shutil.copyfileobj(source, out)
        part.replace(place)

    def _check(self, came: str, expected: str) -> None:
        if came != expected:
            raise grpclib.GRPCError(Status.INVALID_ARGUMENT, f"expected content {expected}, got {came}")


def below(root: Path, path: str) -> Path:
    """An absolute path inside a container, below the folder that stands for its `/`.

    :raises GRPCError: INVALID_ARGUMENT, if it leaves that folder.
    """
    place = Path(os.path.normpath(root / path.lstrip("/")))
    if not place.is_relative_to(root):
        raise grpclib.GRPCError(Status.INVALID_ARGUMENT, f"{path!r} leaves its folder")
    return place
