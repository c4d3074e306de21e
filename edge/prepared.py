"""Faster copies of models: where they are, and how one is made. It knows files and a child process, and no weights.

A copy belongs to the digest of the file that it was made from, and stands in `prepared/` of the models folder with a
note of what was measured. It is only ever made because somebody asked; from then on the bench loads it in place of its
source, under its source's digest, since it is the same model with other kernels.

Invariant: a copy without its note isn't there: the note is written last.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from edge.ended import why
from edge.prepare import KINDS, Kind, Measured
from edge.sidecars import lock, read_json, write_json
from gx.core.errors import ModelError
from gx.core.message import Value

__all__ = ["KINDS", "Copy", "Kind", "copies", "find", "make", "remove"]

FOLDER = "prepared"


class Copy(Value, frozen=True, kw_only=True):
    """A prepared copy of the file with the digest `sha256`."""

    sha256: str
    kind: Kind
    measured: Measured


def find(models_dir: Path, sha256: str) -> tuple[Path, Copy] | None:
    """The copy of that model: its file, and what was measured. The fastest, of several."""
    found = [(path, copy) for path, copy in copies(models_dir) if copy.sha256 == sha256]
    return max(found, key=lambda pair: pair[1].measured.rates[1], default=None)


def copies(models_dir: Path) -> list[tuple[Path, Copy]]:
    """All copies that are there."""
    notes = sorted((models_dir / FOLDER).glob("*.json"))
    found = [(note.with_suffix(".gguf"), read_json(note, Copy)) for note in notes]
    return [(path, copy) for path, copy in found if copy is not None and path.is_file()]


def make(source: Path, sha256: str, kind: Kind, models_dir: Path) -> tuple[Path, Copy]:
    """Make a copy in a process of its own, and measure it; takes a minute for a small model.

    :raises ModelError: if it can't be made, with what that process said last.
    """
    folder = models_dir / FOLDER
    path = folder / f"{sha256}-{kind}.gguf"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"{folder} can't be made: {error.strerror}", code="model.disk") from error
    with lock(path, is_waiting=True):
        command = [sys.executable, "-P", "-m", "edge.prepare", str(source), str(path), kind]
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            path.with_name(f"{path.name}.part").unlink(missing_ok=True)
            reason = why(done.returncode, done.stderr.decode("utf-8", "replace"))
            raise ModelError(f"no {kind} copy of {source} could be made: {reason}", code="model.prepare")
        copy = Copy(sha256=sha256, kind=kind, measured=msgspec.json.decode(done.stdout, type=Measured))
        write_json(path.with_suffix(".json"), copy)
    return path, copy


def remove(models_dir: Path, sha256: str) -> int:
    """Delete the copies of that model; how many bytes that freed."""
    freed = 0
    for path, copy in copies(models_dir):
        if copy.sha256 == sha256:
            freed += path.stat().st_size
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
    return freed
