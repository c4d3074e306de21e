"""Of which gx the code is that is here, and what an app ships. It knows no landlord, and loads nothing to tell."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from gx import __version__
from gx.core.message import Value

SHIPPED = ("gx", "edge", "cloud")
"""The packages whose source the app ships, as `cloud.app` has them."""


class Version(Value, frozen=True, kw_only=True):
    """Of which gx an app is: its version, and the start of the SHA-256 of the source that it ships. `at` is when."""

    gx: str
    code: str
    at: float = 0.0

    def __str__(self) -> str:
        return f"gx {self.gx}, code {self.code}"


def root() -> Path:
    """The folder of the packages that are here."""
    import gx

    return Path(gx.__file__).resolve().parent.parent


@cache
def here() -> Version:
    """The gx that is here, as it was when this was first asked: a process goes on with the code that it has loaded,
    whatever stands on the disk by then. What is deployed is hashed by a process of its own.
    """
    return _on_disk()


def is_changed() -> bool:
    """Whether other code than that stands on the disk by now, so that what is loaded later doesn't go with it.

    What can't be read is about to be changed, and what couldn't be when this was to be asked first has been.
    """
    if not here.cache_info().currsize:
        return True
    try:
        return _on_disk() != here()
    except OSError:
        return True


def _on_disk() -> Version:
    found, folder = hashlib.sha256(), root()
    for package in SHIPPED:
        for file in sorted((folder / package).rglob("*.py")):
            found.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
    return Version(gx=__version__, code=found.hexdigest()[:12])
