"""How a model gets here: downloads that break, lie, are refused, or meet another one; a real server on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from edge import models
from tests.hub import (
    GGUF,
    HUB_PATH,
    HUB_SOURCE,
    OTHER,
    Server,
    content,
    failure,
    fetch,
    leftovers,
    redirect,
    sha,
    status,
    web_source,
)

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
