"""name → verified GGUF file: which models are on this machine, and what each of them is.

This file knows the models folder, and the packages that ship a model. What a source means is for `edge.catalogue`, how
a file comes over the network for `edge.download`; what is inside a model, beyond its first four bytes, is for the
engine: no model, and no package that ships one, is ever loaded here. The invariant: a file under its final name in
`models_dir` has the sha256 that its source promised, because only a file that was hashed whole is given that name. (A
file that somebody put there by hand has no promise but the catalogue's.) What was hashed is remembered in digests.json.

ModelError codes: model.source (can't be read as a source), model.unknown, model.missing, model.offline, model.http,
model.digest, model.truncated, model.not_gguf, model.disk, model.busy, model.convert.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
from pathlib import Path

import msgspec

from edge.catalogue import BY_NAME, Missing, of_entry, parse
from edge.download import ATTEMPTS, BACKOFF_S, Progress, download, wrong_digest
from edge.sidecars import MAGIC, Sidecar, beside, lock, read_json, write_json
from edge.weights import convert, weights_of
from gx.core.errors import ModelError

__all__ = ["Missing", "ModelFile", "Progress", "digest", "fetch", "list_local", "remove", "resolve"]

_Digests = dict[str, tuple[int, int, str]]  # path -> size_bytes, mtime_ns, sha256


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is on this machine. `source` says where it came from; `licence` is empty where nobody said."""

    name: str
    path: Path
    sha256: str
    size_bytes: int
    source: str
    licence: str


def resolve(source: str, *, base_dir: Path, models_dir: Path, endpoint: str | None = None) -> ModelFile | Missing:
    """The file that `source` names, if it is on this machine; never touches the network.

    `base_dir` is what relative paths start from (the recipe's folder). A file is hashed once, then remembered.

    :raises ModelError: `model.source` or `model.unknown` if `source` names nothing; `model.not_gguf` or `model.digest`
        if a file is there and is not what it should be.
    """
    wanted = parse(source, base_dir, models_dir, endpoint)
    path = _packaged(wanted) or wanted.path
    if not path.is_file():
        return wanted
    found = _describe(wanted, path, models_dir)
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            hint = "it does not begin with `GGUF`; the engine reads no other format"
            raise ModelError(f"{path} is not a GGUF file", hint=hint, code="model.not_gguf")
    note = read_json(beside(path, ".json"), Sidecar)
    expected = wanted.sha256 or (note.sha256 if note is not None else found.sha256)
    if found.sha256 != expected:
        remedy = f"gx models rm {wanted.name}, then gx models pull {wanted.name}"
        raise wrong_digest(path, expected, found.sha256, hint=f"the file was changed or damaged; {remedy}")
    return found


def list_local(models_dir: Path) -> list[ModelFile]:
    """Every model in `models_dir`, and those that came in a package, by name. Files are not checked, only described."""
    found: dict[str, ModelFile] = {}
    for name, entry in BY_NAME.items():
        wanted = of_entry(entry, models_dir, None)
        if path := _packaged(wanted):
            found[name] = _describe(wanted, path, models_dir)
    for path in models_dir.glob("*.gguf"):
        by_hand = Missing(name=path.stem, source=str(path), path=path)
        wanted = of_entry(BY_NAME[path.stem], models_dir, None) if path.stem in BY_NAME else by_hand
        if path.is_file():
            found.setdefault(path.stem, _describe(wanted, path, models_dir))
    return [found[name] for name in sorted(found)]


def remove(name: str, models_dir: Path) -> int:
    """Deletes the model's file and whatever was downloaded of it; gives the freed bytes. `name` may be a source.

    :raises ModelError: `model.missing` if there is nothing of it in `models_dir`, which is the only folder that is
        ever deleted from; `model.busy` if another process is downloading it.
    """
    wanted = parse(name, Path.cwd(), models_dir, None)
    if wanted.path.parent.resolve() != models_dir.resolve():
        hint = f"gx deletes only in {models_dir}"
        raise ModelError(f"{wanted.path} is not gx's to delete", hint=hint, code="model.source")
    files = [wanted.path, *(beside(wanted.path, end) for end in (".json", ".part", ".part.json"))]
    freed_bytes = sum(file.stat().st_size for file in files if file.is_file())
    if not freed_bytes:
        held = f"its file belongs to the package {wanted.package}" if _packaged(wanted) else "gx models list"
        raise ModelError(f"there is nothing of `{wanted.name}` in {models_dir}", hint=held, code="model.missing")
    with lock(wanted.path, is_waiting=False):
        for file in files:
            file.unlink(missing_ok=True)
    return freed_bytes


def digest(path: Path, *, cache_dir: Path | None = None) -> str:
    """The sha256 of a file, in hex, remembered by path, size and time of change in `cache_dir` (the user's cache).

    :raises ModelError: `model.disk` if the file can't be read.
    """
    if cache_dir is None:
        import platformdirs

        cache_dir = Path(platformdirs.user_cache_dir("gx", appauthor=False))
    path = path.resolve()
    try:
        before = _stamp(path)
        known = (read_json(cache_dir / "digests.json", _Digests) or {}).get(str(path))
        if known is not None and known[:2] == before:
            return known[2]
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if _stamp(path) == before:
            _remember(cache_dir, path, sha256)
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}", code="model.disk") from None
    return sha256


def fetch(
    source: str,
    *,
    models_dir: Path,
    offline: bool,
    on_progress: Progress,
    endpoint: str | None = None,
    token: str | None = None,
    attempts: int = ATTEMPTS,
    backoff_s: float = BACKOFF_S,
) -> ModelFile:
    """The model's file, downloaded if it is not on this machine. Blocking; what came before a failure is kept.

    Where a package brings its weights, the file is made of them instead, and the network isn't asked.

    `endpoint` and `token` default to HF_ENDPOINT and HF_TOKEN; the token goes to the hub only. `attempts` counts the
    failures in a row that brought not one new byte. A second process waits for the first and takes its file.

    :raises ModelError: as `resolve`, and `model.missing`, `.offline`, `.http`, `.digest`, `.truncated`, `.not_gguf`,
        `.disk` or `.convert`.
    """
    found = resolve(source, base_dir=Path.cwd(), models_dir=models_dir, endpoint=endpoint)
    if isinstance(found, ModelFile):
        return found
    if found.url is None:
        raise found.error()
    folder = weights_of(found)
    if offline and folder is None:
        raise found.offline_error("gx is offline", otherwise="unset GX_OFFLINE, or `offline` in the settings")
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with lock(found.path, is_waiting=True):
            again = resolve(source, base_dir=Path.cwd(), models_dir=models_dir, endpoint=endpoint)
            if isinstance(again, ModelFile):  # another process fetched it while this one waited
                return again
            if folder is not None:
                side = convert(found, folder)
                on_progress(side.size_bytes, side.size_bytes)
            else:
                token = token or os.environ.get("HF_TOKEN")
                side = download(found, token=token, on_progress=on_progress, attempts=attempts, backoff_s=backoff_s)
            _remember(models_dir, found.path.resolve(), side.sha256)
            return ModelFile(name=found.name, path=found.path, **msgspec.structs.asdict(side))
    except OSError as error:
        message = f"can't write to {models_dir}: {error.strerror or error}"
        hint = "free some space, or choose another folder with GX_MODELS_DIR"
        raise ModelError(message, hint=hint, code="model.disk") from None


def _packaged(wanted: Missing) -> Path | None:
    """The model's file in the Python package that ships it. The package is found, never imported: that loads llama."""
    spec = importlib.util.find_spec(wanted.package) if wanted.package else None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [Path(folder) / BY_NAME[wanted.name].file for folder in folders]
    return next((file for file in files if file.is_file()), None)


def _describe(wanted: Missing, path: Path, models_dir: Path) -> ModelFile:
    note = read_json(beside(path, ".json"), Sidecar)
    return ModelFile(
        name=wanted.name,
        path=path,
        sha256=digest(path, cache_dir=models_dir),
        size_bytes=path.stat().st_size,
        source=note.source if note is not None else wanted.source,
        licence=note.licence if note is not None else wanted.licence,
    )


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _remember(cache_dir: Path, path: Path, sha256: str) -> None:
    """Adds to `digests.json`. Two writers may lose each other's line, and a folder may be read-only: hashed again."""
    file = cache_dir / "digests.json"
    kept = (read_json(file, _Digests) or {}) | {str(path): (*_stamp(path), sha256)}
    with contextlib.suppress(OSError):
        cache_dir.mkdir(parents=True, exist_ok=True)
        write_json(file, kept)
