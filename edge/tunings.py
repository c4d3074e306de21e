"""How models are best computed on this machine: measured in a child process, kept in gx's cache, found by the bench.

A choice holds for one file, one version of the engine and one CPU with so many cores; whatever of these changes, it
isn't found any more. It knows files and a child process, and no weights.

Invariant: what can't be read counts as not there, and the engine's defaults hold.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import msgspec

from edge.cpu import cores, cpu_model
from edge.engine.tuning import Tuning
from edge.sidecars import read_json, write_json
from edge.tune import Tuned
from gx.core.errors import ModelError
from gx.core.ids import digest_of
from gx.core.message import Value

__all__ = ["DISTURBED", "SECONDS", "Note", "Tuned", "chosen_tuning", "find", "find_note", "key_of", "make"]

SECONDS = 45.0
"""For the defaults and what is varied; copies come on top."""
FOLDER = "tunings"
DISTURBED = 0.1
"""The share of the processors that others may take while threads are compared."""


class Note(Value, frozen=True, kw_only=True):
    """A choice and what it is for. `sha256` is the model's, also where `file_bytes` are those of a prepared copy."""

    sha256: str
    file_bytes: int
    engine: str
    cpu: str
    cores: int
    tuning: Tuning
    gain: float
    slots: int


def find(sha256: str, path: str, *, cache_dir: Path | None = None) -> Tuning:
    """How to compute that model from that file; the defaults where that was never measured."""
    note = find_note(sha256, path, cache_dir=cache_dir)
    return note.tuning if note is not None else Tuning()


def find_note(sha256: str, path: str, *, cache_dir: Path | None = None) -> Note | None:
    """What was chosen for that model and that file on this machine, with this engine."""
    folder = _folder(cache_dir)
    if not any(folder.glob(f"{sha256}-*.json")):
        return None
    try:
        return read_json(_place(folder, sha256, path), Note)
    except (OSError, metadata.PackageNotFoundError):
        return None


def make(path: Path, sha256: str, *, seconds: float = SECONDS, cache_dir: Path | None = None) -> tuple[Note, Tuned]:
    """Measure a model in a process of its own, and keep what is chosen; takes about a minute.

    :raises ModelError: if it can't be measured, with what that process said last, or the choice can't be kept.
    """
    command = [sys.executable, "-P", "-m", "edge.tune", str(path), str(seconds)]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        why = said[-1] if said else f"its process ended with {done.returncode}"
        raise ModelError(f"{path} can't be tuned: {why}", code="model.tune")
    tuned = msgspec.json.decode(done.stdout, type=Tuned)
    folder = _folder(cache_dir)
    note = Note(
        sha256=sha256,
        file_bytes=path.stat().st_size,
        engine=_engine(),
        cpu=cpu_model(),
        cores=cores(),
        tuning=chosen_tuning(tuned),
        gain=tuned.calibration.gain,
        slots=tuned.calibration.slots,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(_place(folder, sha256, str(path)), note)
    except OSError as error:
        raise ModelError(f"{folder} can't be written: {error.strerror}", code="model.disk") from error
    return note, tuned


def chosen_tuning(tuned: Tuned) -> Tuning:
    """What was chosen; without threads where others were at work, since fewer are faster only as long as they are."""
    tuning = tuned.calibration.chosen.tuning
    return msgspec.structs.replace(tuning, threads=None) if tuned.others > DISTURBED else tuning


def key_of(file_bytes: int, engine: str, cpu: str, n_cores: int) -> str:
    """What a choice for a model depends on, in a few letters."""
    return digest_of(file_bytes, engine, cpu, n_cores)[:16]


def _place(folder: Path, sha256: str, path: str) -> Path:
    return folder / f"{sha256}-{key_of(Path(path).stat().st_size, _engine(), cpu_model(), cores())}.json"


def _engine() -> str:
    return metadata.version("llama_cpp_python")


def _folder(cache_dir: Path | None) -> Path:
    if cache_dir is None:
        import platformdirs

        cache_dir = Path(platformdirs.user_cache_dir("gx", appauthor=False))
    return cache_dir / FOLDER
