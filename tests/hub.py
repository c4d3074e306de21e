"""A server on loopback that hands out models as a hub does, or lies, breaks off and refuses as it is told."""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import pytest

from edge import models
from edge.models import ModelFile
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
