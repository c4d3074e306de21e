"""name → verified GGUF file: whether a model is on this machine, and how it gets here.

This file knows files and HTTP. What a source means is for `edge.catalogue`; what is inside a model, beyond its first
four bytes, is for the engine: no model, and no package that ships one, is ever loaded here. The invariant: a file under
its final name in `models_dir` has the sha256 that its source promised, because only a file that was hashed whole is
given that name. (A file that somebody put there by hand has no promise but the catalogue's.)

Beside NAME.gguf lie NAME.gguf.json (what it is), NAME.gguf.lock (one download at a time) and, while it is on its way,
NAME.gguf.part with NAME.gguf.part.json (how to resume).

ModelError codes: model.source (can't be read as a source), model.unknown, model.missing, model.offline, model.http,
model.digest, model.truncated, model.not_gguf, model.disk, model.busy.

Longer than most files here, because every step of a download speaks about one state, `_Part`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from edge.catalogue import BY_NAME, Missing, of_entry, parse
from gx.core.errors import ModelError

if TYPE_CHECKING:
    import httpx

__all__ = ["Missing", "ModelFile", "Progress", "digest", "fetch", "list_local", "remove", "resolve"]

Progress = Callable[[int, int | None], None]
"""`on_progress(done_bytes, total_bytes)`; `total_bytes` is `None` where the server didn't say."""

ATTEMPTS = 5
BACKOFF_S = 1.0
MAX_BACKOFF_S = 30.0
CHUNK_BYTES = 1 << 20
SPARE_DISK_BYTES = 64 << 20  # what a download leaves free for the log and for everybody else
MAGIC = b"GGUF"  # the first bytes of every version: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
_RETRIED_STATUSES = frozenset({408, 416, 425, 429, 500, 502, 503, 504})
_SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")
_Digests = dict[str, tuple[int, int, str]]  # path -> size_bytes, mtime_ns, sha256


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is on this machine. `source` says where it came from; `licence` is empty where nobody said."""

    name: str
    path: Path
    sha256: str
    size_bytes: int
    source: str
    licence: str


# ---------------------------------------------------------------------------------------------------- looking up


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
    note = _read_json(_beside(path, ".json"), _Sidecar)
    expected = wanted.sha256 or (note.sha256 if note is not None else found.sha256)
    if found.sha256 != expected:
        remedy = f"gx models rm {wanted.name}, then gx models pull {wanted.name}"
        raise _wrong_digest(path, expected, found.sha256, hint=f"the file was changed or damaged; {remedy}")
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
    files = [wanted.path, *(_beside(wanted.path, end) for end in (".json", ".part", ".part.json"))]
    freed_bytes = sum(file.stat().st_size for file in files if file.is_file())
    if not freed_bytes:
        held = f"its file belongs to the package {wanted.package}" if _packaged(wanted) else "gx models list"
        raise ModelError(f"there is nothing of `{wanted.name}` in {models_dir}", hint=held, code="model.missing")
    with _lock(wanted.path, is_waiting=False):
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
        known = (_read_json(cache_dir / "digests.json", _Digests) or {}).get(str(path))
        if known is not None and known[:2] == before:
            return known[2]
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if _stamp(path) == before:
            _remember(cache_dir, path, sha256)
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}", code="model.disk") from None
    return sha256


# ----------------------------------------------------------------------------------------------------- fetching


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

    `endpoint` and `token` default to HF_ENDPOINT and HF_TOKEN; the token goes to the hub only. `attempts` counts the
    failures in a row that brought not one new byte. A second process waits for the first and takes its file.

    :raises ModelError: as `resolve`, and `model.missing`, `.offline`, `.http`, `.digest`, `.truncated`, `.not_gguf`
        or `.disk`.
    """
    found = resolve(source, base_dir=Path.cwd(), models_dir=models_dir, endpoint=endpoint)
    if isinstance(found, ModelFile):
        return found
    if found.url is None:
        raise found.error()
    if offline:
        raise found.offline_error("gx is offline", otherwise="unset GX_OFFLINE, or `offline` in the settings")
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with _lock(found.path, is_waiting=True):
            again = resolve(source, base_dir=Path.cwd(), models_dir=models_dir, endpoint=endpoint)
            if isinstance(again, ModelFile):  # another process fetched it while this one waited
                return again
            with contextlib.closing(_Part(found.path, found.url)) as part:
                _download(found, part, token or os.environ.get("HF_TOKEN"), on_progress, attempts, backoff_s)
                return _keep(found, part, models_dir)
    except OSError as error:
        message = f"can't write to {models_dir}: {error.strerror or error}"
        hint = "free some space, or choose another folder with GX_MODELS_DIR"
        raise ModelError(message, hint=hint, code="model.disk") from None


class _Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """What lies beside a model, for people and for `list_local`."""

    sha256: str
    size_bytes: int
    source: str
    licence: str


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the server said of the whole file. `etag` is a strong one, as If-Range demands (RFC 9110, 13.1.5)."""

    url: str
    sha256: str
    etag: str | None
    total_bytes: int | None


class _Again(Exception):
    """An attempt that failed and may be repeated; `error` is what it becomes when attempts run out."""

    def __init__(self, error: ModelError) -> None:
        super().__init__(error.message)
        self.error = error


class _Part:
    """The bytes of a download so far: NAME.part, the sha256 of what is in it, and what was told of the whole.

    Invariant: the hash covers exactly the `done_bytes` bytes in the file; what an earlier process left is hashed anew.
    """

    def __init__(self, target: Path, url: str) -> None:
        self.path, self._note = _beside(target, ".part"), _beside(target, ".part.json")
        self.told = _read_json(self._note, _Told)
        self.has_answer = False
        self._file = self.path.open("a+b")
        self._hash, self._head, self.done_bytes = hashlib.sha256(), b"", 0
        if self.told is None or self.told.url != url:
            self.restart()
        self._file.seek(0)
        while chunk := self._file.read(CHUNK_BYTES):
            self._count(chunk)

    @property
    def is_complete(self) -> bool:
        return self.told is not None and self.told.total_bytes == self.done_bytes

    @property
    def can_be_gguf(self) -> bool:
        """Whether the bytes so far can be the beginning of a GGUF file."""
        return MAGIC.startswith(self._head)

    def restart(self) -> None:
        self._file.truncate(0)
        self._hash, self._head, self.done_bytes, self.told = hashlib.sha256(), b"", 0, None

    def learn(self, told: _Told) -> None:
        if told != self.told:
            _write_json(self._note, told)
        self.told = told

    def append(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._count(chunk)

    def sha256(self) -> str:
        """The digest of all bytes, once they are safe on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._hash.hexdigest()

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()
        if not self.done_bytes:
            self.delete()

    def _count(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self._head = (self._head + chunk[: len(MAGIC)])[: len(MAGIC)]
        self.done_bytes += len(chunk)


def _download(
    wanted: Missing, part: _Part, token: str | None, on_progress: Progress, attempts: int, backoff_s: float
) -> None:
    """Receives until the part is whole. Only failures in a row without a new byte are counted."""
    import httpx

    best_bytes, fruitless = part.done_bytes, 0
    with httpx.Client(follow_redirects=True, timeout=httpx.Timeout(60.0, connect=10.0)) as client:
        while not part.is_complete:
            try:
                _receive(client, wanted, part, token, on_progress)
                return
            except _Again as error:
                failure = error.error
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
                if not part.has_answer and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                    raise _unreachable(wanted, reason) from None
                failure = _truncated(part, reason) if part.has_answer else _unreachable(wanted, reason)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise ModelError(f"{wanted.url} can't be fetched: {error}", code="model.http") from None
            fruitless = 0 if part.done_bytes > best_bytes else fruitless + 1
            best_bytes = max(best_bytes, part.done_bytes)
            if fruitless >= attempts:
                raise failure
            time.sleep(min(backoff_s * 2**fruitless, MAX_BACKOFF_S))


def _receive(client: httpx.Client, wanted: Missing, part: _Part, token: str | None, on_progress: Progress) -> None:
    """One request: the rest of the file, or all of it where the server can't or won't give the rest."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "gx"}  # identity: lengths are those of the file
    if token and wanted.is_from_hub:
        headers["Authorization"] = f"Bearer {token}"
    if part.done_bytes:
        headers["Range"] = f"bytes={part.done_bytes}-"
        if part.told is not None and part.told.etag is not None:
            headers["If-Range"] = part.told.etag
    with client.stream("GET", str(wanted.url), headers=headers) as response:
        part.has_answer = True
        if response.status_code not in (200, 206):
            failure = _refused(wanted, response, token)
            if response.status_code == 416:  # there is nothing behind the part: a length was a lie
                failure = _truncated(part, "the server has no more")
                part.restart()
            raise _Again(failure) if response.status_code in _RETRIED_STATUSES else failure
        kind = response.headers.get("content-type", "content of an unknown type")
        if kind.startswith("text/html"):
            raise _not_gguf(wanted, kind)
        told = _told_by(wanted, response)
        if response.status_code == 200:
            part.restart()
        elif told != part.told or not response.headers.get("content-range", "").startswith(f"bytes {part.done_bytes}-"):
            part.restart()  # bytes of another file, or of another place in it
            raise _Again(_truncated(part, "the file changed on the server"))
        part.learn(told)
        _check_space(part, told.total_bytes)
        for chunk in response.iter_raw():  # as they come: what was received before a break is kept
            part.append(chunk)
            if not part.can_be_gguf:
                part.delete()
                raise _not_gguf(wanted, kind)
            on_progress(part.done_bytes, told.total_bytes)
    if told.total_bytes is not None and part.done_bytes > told.total_bytes:
        part.delete()
        raise _truncated(part, "the server sent more than it announced")
    if told.total_bytes is not None and part.done_bytes < told.total_bytes:
        raise _Again(_truncated(part, "the server ended early"))


def _keep(wanted: Missing, part: _Part, models_dir: Path) -> ModelFile:
    """Checks a whole part against its promise and gives it its final name."""
    expected = wanted.sha256 or (part.told.sha256 if part.told is not None else "nothing")
    got = part.sha256()
    if got != expected:
        part.delete()
        hint = "the download was deleted; pull it again, or check the sha256 with whoever published it"
        raise _wrong_digest(wanted.path, expected, got, hint=hint)
    side = _Sidecar(sha256=got, size_bytes=part.done_bytes, source=wanted.source, licence=wanted.licence)
    _write_json(_beside(wanted.path, ".json"), side)
    part.path.replace(wanted.path)
    part.delete()  # what is left of it: the note
    _remember(models_dir, wanted.path.resolve(), got)
    return ModelFile(name=wanted.name, path=wanted.path, **msgspec.structs.asdict(side))


def _told_by(wanted: Missing, response: httpx.Response) -> _Told:
    """What the answer says of the whole file. The hub's own answers name the sha256 of a large file: in
    `x-linked-etag` before the redirect to the store (what huggingface_hub reads), or as the ETag itself."""
    answers = (*response.history, response)
    home = answers[0].url.netloc
    hub = [answer.headers for answer in answers if wanted.is_from_hub and answer.url.netloc == home]
    etags = [h.get(name, "").removeprefix("W/").strip('"') for name in ("x-linked-etag", "etag") for h in hub]
    promised = next((etag.lower() for etag in etags if _SHA256.fullmatch(etag.lower())), None)
    sha256 = wanted.sha256 or promised
    if sha256 is None:
        hint = f"find it where the model is published and write {wanted.source}#sha256=<64 hex digits>"
        raise ModelError(f"{wanted.url} does not say its sha256", hint=hint, code="model.source")
    if promised not in (None, sha256):
        raise _wrong_digest(wanted.path, sha256, str(promised), hint="the file on the hub is another one by now")
    etag = response.headers.get("etag", "")
    own = "content-length" if response.status_code == 200 else "content-range"  # `bytes 7-99/100`
    lengths = [*(h.get("x-linked-size", "") for h in hub), response.headers.get(own, "").rpartition("/")[2]]
    total = next((int(length) for length in lengths if length.isdigit()), None)
    return _Told(url=str(wanted.url), sha256=sha256, etag=etag if etag.startswith('"') else None, total_bytes=total)


def _check_space(part: _Part, total_bytes: int | None) -> None:
    free_bytes = shutil.disk_usage(part.path.parent).free
    needed_bytes = (total_bytes or 0) - part.done_bytes + SPARE_DISK_BYTES
    if total_bytes is not None and needed_bytes > free_bytes:
        figures = f"{needed_bytes / 1e9:.2f} GB needed in {part.path.parent}, {free_bytes / 1e9:.2f} GB free"
        hint = "gx models rm NAME, or choose another folder with GX_MODELS_DIR"
        raise ModelError(f"the disk is too full: {figures}", hint=hint, code="model.disk")


@contextlib.contextmanager
def _lock(target: Path, *, is_waiting: bool) -> Iterator[None]:
    """The right to write `target`, held by one thread of one process; the kernel frees it when its holder dies."""
    with _beside(target, ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if is_waiting else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ModelError(f"{target.name} is being downloaded by another process", code="model.busy") from None
        yield


def _packaged(wanted: Missing) -> Path | None:
    """The model's file in the Python package that ships it. The package is found, never imported: that loads llama."""
    spec = importlib.util.find_spec(wanted.package) if wanted.package else None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [Path(folder) / BY_NAME[wanted.name].file for folder in folders]
    return next((file for file in files if file.is_file()), None)


def _describe(wanted: Missing, path: Path, models_dir: Path) -> ModelFile:
    note = _read_json(_beside(path, ".json"), _Sidecar)
    return ModelFile(
        name=wanted.name,
        path=path,
        sha256=digest(path, cache_dir=models_dir),
        size_bytes=path.stat().st_size,
        source=note.source if note is not None else wanted.source,
        licence=note.licence if note is not None else wanted.licence,
    )


def _wrong_digest(path: Path, expected: str, got: str, *, hint: str) -> ModelError:
    message = f"{path.name} has the wrong sha256: expected {expected}, got {got}"
    return ModelError(message, hint=hint, code="model.digest")


def _not_gguf(wanted: Missing, what: str) -> ModelError:
    hint = "a login or error page in between? open the address in a browser"
    return ModelError(f"{wanted.url} gave {what}, not a GGUF file", hint=hint, code="model.not_gguf")


def _truncated(part: _Part, reason: str) -> ModelError:
    total = part.told.total_bytes if part.told is not None else None
    message = f"{part.path.stem}: got {part.done_bytes} of {total if total is not None else 'unknown'} bytes: {reason}"
    return ModelError(message, hint="run it again: it goes on where it stopped", code="model.truncated")


def _unreachable(wanted: Missing, reason: str) -> ModelError:
    host = urlsplit(str(wanted.url)).netloc
    mirror = "; or set HF_ENDPOINT to a mirror" if wanted.is_from_hub else ""
    return wanted.offline_error(f"{host} can't be reached ({reason})", otherwise=f"check the network{mirror}")


def _refused(wanted: Missing, response: httpx.Response, token: str | None) -> ModelError:
    status = response.status_code
    page = str(wanted.url).partition("/resolve/")[0]
    if status in (401, 403) and wanted.is_from_hub:  # the hub answers 401 for a repository that isn't there, too
        sent = "HF_TOKEN was sent and is not enough" if token else "set HF_TOKEN to a token of yours"
        hint = f"is the name right? if the model is gated, accept its terms at {page}; {sent}"
    elif status == 404:
        hint = f"check the names of the repository and the file at {page}"
    else:
        hint = "try again later; what came so far is kept" if status in _RETRIED_STATUSES else ""
    return ModelError(f"{wanted.url} answered HTTP {status} {response.reason_phrase}", hint=hint, code="model.http")


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _remember(cache_dir: Path, path: Path, sha256: str) -> None:
    """Adds to `digests.json`. Two writers may lose each other's line, and a folder may be read-only: hashed again."""
    file = cache_dir / "digests.json"
    kept = (_read_json(file, _Digests) or {}) | {str(path): (*_stamp(path), sha256)}
    with contextlib.suppress(OSError):
        cache_dir.mkdir(parents=True, exist_ok=True)
        _write_json(file, kept)


def _read_json(path: Path, kind: type[T]) -> T | None:
    """The file's value; `None` if it is missing or was cut short (each such file can be made again)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def _write_json(path: Path, value: Any) -> None:
    draft = _beside(path, f".{os.getpid()}-{threading.get_ident()}")
    draft.write_bytes(msgspec.json.encode(value))
    draft.replace(path)
