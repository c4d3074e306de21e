"""The transfer of one file over HTTP: asked for, resumed, tried again, and checked before it gets its name.

This file knows HTTP, and what the hub says in its headers. It doesn't know what a source means (`edge.catalogue`),
which models are here or whose turn it is to fetch one (`edge.models`), nor how a part lies on the disk
(`edge.sidecars`); httpx is loaded by the first transfer. The invariant: a file gets its final name only after all of
its bytes were hashed, and to the promised sha256; what came before a break is kept, so that the next request goes on.

ModelError codes: model.offline (nobody answers), model.http, model.source (nobody says the sha256), model.digest,
model.truncated, model.not_gguf, model.disk.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edge.catalogue import Missing
from edge.sidecars import Part, Sidecar, Told, beside, write_json
from gx.core.errors import ModelError

if TYPE_CHECKING:
    import httpx

Progress = Callable[[int, int | None], None]
"""`on_progress(done_bytes, total_bytes)`; `total_bytes` is `None` where the server didn't say."""

ATTEMPTS = 5
BACKOFF_S = 1.0
MAX_BACKOFF_S = 30.0
SPARE_DISK_BYTES = 64 << 20  # what a download leaves free for the log and for everybody else
_RETRIED_STATUSES = frozenset({408, 416, 425, 429, 500, 502, 503, 504})
_SHA256 = re.compile(r"[0-9a-f]{64}")


def download(
    wanted: Missing,
    *,
    token: str | None,
    on_progress: Progress,
    attempts: int = ATTEMPTS,
    backoff_s: float = BACKOFF_S,
) -> Sidecar:
    """Fetches `wanted.url` to `wanted.path`, from where an earlier attempt stopped; gives what its note says.

    Blocking. The caller holds the file's lock, and has made its folder. `token` goes to the hub only; `attempts` counts
    the failures in a row that brought not one new byte.

    :raises ModelError: with each of the codes above; `model.disk` here is a disk that is found too full beforehand.
    :raises OSError: if the file can't be written.
    """
    with contextlib.closing(Part(wanted.path, str(wanted.url))) as part:
        _receive_all(wanted, part, token, on_progress, attempts, backoff_s)
        return _keep(wanted, part)


class _Again(Exception):
    """An attempt that failed and may be repeated; `error` is what it becomes when attempts run out."""

    def __init__(self, error: ModelError) -> None:
        super().__init__(error.message)
        self.error = error


def _receive_all(
    wanted: Missing, part: Part, token: str | None, on_progress: Progress, attempts: int, backoff_s: float
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


def _receive(client: httpx.Client, wanted: Missing, part: Part, token: str | None, on_progress: Progress) -> None:
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


def _told_by(wanted: Missing, response: httpx.Response) -> Told:
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
        raise wrong_digest(wanted.path, sha256, str(promised), hint="the file on the hub is another one by now")
    etag = response.headers.get("etag", "")
    own = "content-length" if response.status_code == 200 else "content-range"  # `bytes 7-99/100`
    lengths = [*(h.get("x-linked-size", "") for h in hub), response.headers.get(own, "").rpartition("/")[2]]
    total = next((int(length) for length in lengths if length.isdigit()), None)
    return Told(url=str(wanted.url), sha256=sha256, etag=etag if etag.startswith('"') else None, total_bytes=total)


def _check_space(part: Part, total_bytes: int | None) -> None:
    free_bytes = shutil.disk_usage(part.path.parent).free
    needed_bytes = (total_bytes or 0) - part.done_bytes + SPARE_DISK_BYTES
    if total_bytes is not None and needed_bytes > free_bytes:
        figures = f"{needed_bytes / 1e9:.2f} GB needed in {part.path.parent}, {free_bytes / 1e9:.2f} GB free"
        hint = "gx models rm NAME, or choose another folder with GX_MODELS_DIR"
        raise ModelError(f"the disk is too full: {figures}", hint=hint, code="model.disk")


def _keep(wanted: Missing, part: Part) -> Sidecar:
    """Checks a whole part against its promise and gives it its final name."""
    expected = wanted.sha256 or (part.told.sha256 if part.told is not None else "nothing")
    got = part.sha256()
    if got != expected:
        part.delete()
        hint = "the download was deleted; pull it again, or check the sha256 with whoever published it"
        raise wrong_digest(wanted.path, expected, got, hint=hint)
    side = Sidecar(sha256=got, size_bytes=part.done_bytes, source=wanted.source, licence=wanted.licence)
    write_json(beside(wanted.path, ".json"), side)
    part.path.replace(wanted.path)
    part.delete()  # what is left of it: the note
    return side


def wrong_digest(path: Path, expected: str, got: str, *, hint: str) -> ModelError:
    """A file that isn't what was promised, as an error; `hint` is what to do with it."""
    message = f"{path.name} has the wrong sha256: expected {expected}, got {got}"
    return ModelError(message, hint=hint, code="model.digest")


def _not_gguf(wanted: Missing, what: str) -> ModelError:
    hint = "a login or error page in between? open the address in a browser"
    return ModelError(f"{wanted.url} gave {what}, not a GGUF file", hint=hint, code="model.not_gguf")


def _truncated(part: Part, reason: str) -> ModelError:
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
