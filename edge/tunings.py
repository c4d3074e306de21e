"""How models are best computed on this machine: measured in a child process, kept in gx's cache, found by the bench.

A choice holds for one file, one build of the engine and one CPU with so many cores; whatever of these changes, it isn't
found any more. It knows files and a child process, and no weights; the engine isn't loaded here.

Invariant: what can't be read counts as not there, and the engine's defaults hold.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path

import msgspec

from edge.cpu import cpu_model, default_threads
from edge.ended import why
from edge.engine.tuning import Tuning
from edge.sidecars import read_json, write_json
from edge.tune import Tuned
from gx.core.errors import ModelError
from gx.core.ids import digest_of
from gx.core.message import Value

__all__ = ["DISTURBED", "SECONDS", "Note", "Tuned", "chosen_tuning", "find", "find_note", "key_of", "make"]

SECONDS = 45.0
"""For the defaults and what is varied; copies come on top."""
PATIENCE = 10
"""How many times as long a measurement may take before it is ended: on some machines one trial takes a minute."""
START_S = 120.0
"""And how long its process may take to load the model, from a disk that is slow."""
FOLDER = "tunings"
DISTURBED = 0.1
"""The share of the processors that others may take while threads are compared."""


class Note(Value, frozen=True, kw_only=True):
    """A choice and what it is for. `sha256` is the model's, also where `file_bytes` are those of a prepared copy.

    `engine` is the binding's version, and a digest of the libraries that it was built with.
    """

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


def make(
    path: Path,
    sha256: str,
    *,
    seconds: float = SECONDS,
    longest_s: float | None = None,
    cache_dir: Path | None = None,
) -> tuple[Note, Tuned]:
    """Measure a model in a process of its own, and keep what is chosen; takes about a minute.

    That process is ended after `longest_s`; `None` stands for `PATIENCE` times as many `seconds`, and `START_S`.

    :raises ModelError: if it can't be measured, with what that process said last, or the choice can't be kept.
    """
    command = [sys.executable, "-P", "-m", "edge.tune", str(path), str(seconds)]
    most_s = PATIENCE * seconds + START_S if longest_s is None else longest_s
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=most_s)
    except subprocess.TimeoutExpired as error:
        hint = "it may be too large for this machine; `gx doctor -m` says what it needs"
        raise ModelError(f"{path} was not measured within {most_s:g} s", code="model.tune", hint=hint) from error
    if done.returncode != 0:
        reason = why(done.returncode, done.stderr.decode("utf-8", "replace"))
        raise ModelError(f"{path} can't be tuned: {reason}", code="model.tune")
    tuned = msgspec.json.decode(done.stdout, type=Tuned)
    folder = _folder(cache_dir)
    note = Note(
        sha256=sha256,
        file_bytes=path.stat().st_size,
        engine=_engine(),
        cpu=cpu_model(),
        cores=default_threads(),
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
    return folder / f"{sha256}-{key_of(Path(path).stat().st_size, _engine(), cpu_model(), default_threads())}.json"


def _engine() -> str:
    """The binding's version, and what tells its libraries from those of another build."""
    built = metadata.distribution("llama_cpp_python")
    listed = [line for line in (built.read_text("RECORD") or "").splitlines() if _is_library(line.partition(",")[0])]
    override = os.environ.get("LLAMA_CPP_LIB_PATH")
    return f"{built.version}+{digest_of(sorted(listed), _libraries(override, is_listed=bool(listed)))[:12]}"


def _libraries(override: str | None, *, is_listed: bool) -> list[tuple[str, int, int]]:
    """The names, sizes and dates of the libraries, where no digests of them are listed, or others take their place."""
    spec = None if override or is_listed else util.find_spec("llama_cpp")  # which doesn't load it
    folders = [override] if override else (spec.submodule_search_locations or []) if spec else []
    files = [file for folder in folders for file in Path(folder).rglob("*") if _is_library(file.name)]
    return sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def _is_library(name: str) -> bool:
    return ".so" in name or name.endswith((".dylib", ".dll", ".metal", ".metallib"))


def _folder(cache_dir: Path | None) -> Path:
    if cache_dir is None:
        import platformdirs

        cache_dir = Path(platformdirs.user_cache_dir("gx", appauthor=False))
    return cache_dir / FOLDER
