"""Models that a Python package carries as bare weights: where they are, and how a GGUF file is made of them.

It knows files and a child process, and no weights: the package is found and never imported, since it loads torch.
Invariant: a file under the model's own name is whole, and made from weights with the digest that the catalogue has.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

from edge.catalogue import Missing
from edge.ended import why
from edge.sidecars import Sidecar, beside, write_json
from gx.core.errors import ModelError

_NEEDED = ("gguf", "numpy", "safetensors")
FOLDER = "model"
"""Where such a package keeps what it carries."""


def weights_of(wanted: Missing) -> Path | None:
    """The folder with the model's weights; `None` if no package brings them, or what converts them is lacking."""
    if wanted.weights is None or any(importlib.util.find_spec(name) is None for name in _NEEDED):
        return None
    spec = importlib.util.find_spec(wanted.weights)
    folders = [Path(place) / FOLDER for place in spec.submodule_search_locations or ()] if spec is not None else []
    return next((folder for folder in folders if (folder / "model.safetensors").is_file()), None)


def convert(wanted: Missing, folder: Path) -> Sidecar:
    """Make `wanted.path` of the weights in `folder`, in a process of its own; takes a second or two for a small model.

    The caller holds the file's lock, and has made its folder.

    :raises ModelError: `model.convert` if it can't be made, with that process's last words; `model.digest` if the
        weights aren't those that the catalogue knows.
    """
    part = beside(wanted.path, ".part")
    try:
        command = [sys.executable, "-P", "-m", "edge.convert", str(folder), str(part)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            reason = why(done.returncode, done.stderr)
            raise ModelError(f"`{wanted.name}` could not be made from {folder}: {reason}", code="model.convert")
        if done.stdout != wanted.weights_sha256:
            hint = f"install the package {wanted.weights} again"
            message = f"weights in {folder} have the wrong sha256: expected {wanted.weights_sha256}, got {done.stdout}"
            raise ModelError(message, hint=hint, code="model.digest")
        with part.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        side = Sidecar(
            sha256=sha256, size_bytes=part.stat().st_size, source=f"package:{wanted.weights}", licence=wanted.licence
        )
        write_json(beside(wanted.path, ".json"), side)
        part.replace(wanted.path)
    finally:
        part.unlink(missing_ok=True)
    return side
