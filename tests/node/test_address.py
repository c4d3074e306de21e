"""Where a node listens: a path that fits, a socket that only its user can open, nothing of anybody else's."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gx.core.errors import WorkspaceError
from gx.node.address import LONGEST_PATH, listen, peer_uid, socket_path
from gx.node.call import find

STRANGER = 65534
CONNECT = """
import os, socket, sys
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
connection = socket.socket(socket.AF_UNIX)
try:
    connection.connect(sys.argv[1])
    connection.sendall(b"GET /v1/node HTTP/1.1\\r\\nhost: gx\\r\\n\\r\\n")
    connection.settimeout(10)
    print("answered", connection.recv(100))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path, which others may look into."""
    with tempfile.TemporaryDirectory(prefix="gx-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def deep(tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose path is longer than a socket's may be; `short` is where the user's sockets are."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    folder = tmp_path / ("ü" * 60) / "ws"
    folder.mkdir(parents=True)
    return folder


def connects(folder: Path) -> bool:
    return find(folder) is not None


def test_a_socket_stands_in_its_workspace_where_the_path_fits(short: Path) -> None:
    longest = short / ("x" * (LONGEST_PATH - len(os.fsencode(short)) - len("/" + "/gx.sock")))
    longest.mkdir()
    assert socket_path(longest) == longest / "gx.sock"
    assert len(os.fsencode(socket_path(longest))) == LONGEST_PATH
    listen(longest).close()
    assert socket_path(longest.with_name(longest.name + "x")).parent != longest


def test_a_deep_workspace_has_a_socket_of_its_own_elsewhere(deep: Path, short: Path) -> None:
    place = socket_path(deep)
    assert place.parent == short / f"gx-{os.getuid()}"
    assert len(os.fsencode(place)) <= LONGEST_PATH
    other = deep.with_name("other")
    other.mkdir()
    assert socket_path(other) not in (place, other / "gx.sock")
    with listen(deep), listen(other):
        assert connects(deep)
        assert connects(other)
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700


def test_nobody_else_may_open_the_socket(short: Path) -> None:
    before = os.umask(0)
    try:
        with listen(short):
            assert stat.S_IMODE((short / "gx.sock").stat().st_mode) == 0o600
            assert os.umask(0) == 0, "the process has the mask that it had"
    finally:
        os.umask(before)


def test_a_socket_that_a_dead_node_left_is_replaced(short: Path) -> None:
    listen(short).close()
    assert (short / "gx.sock").exists()
    assert not connects(short)
    with listen(short):
        assert connects(short)


def test_a_file_in_the_socket_s_place_is_replaced_and_a_folder_refused(short: Path) -> None:
    (short / "gx.sock").write_text("not a socket")
    with listen(short):
        assert connects(short)
    (short / "gx.sock").unlink()
    (short / "gx.sock").mkdir()
    with pytest.raises(WorkspaceError, match="no socket can be made") as refused:
        listen(short)
    assert refused.value.code == "workspace.socket"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to somebody else")
def test_a_folder_for_sockets_that_is_somebody_else_s_is_refused(deep: Path, short: Path) -> None:
    (short / f"gx-{os.getuid()}").mkdir()
    os.chown(short / f"gx-{os.getuid()}", STRANGER, STRANGER)
    with pytest.raises(WorkspaceError, match="belongs to another user"):
        listen(deep)


def test_a_link_in_place_of_the_folder_for_sockets_is_refused(deep: Path, short: Path) -> None:
    (short / "elsewhere").mkdir()
    (short / f"gx-{os.getuid()}").symlink_to(short / "elsewhere")
    with pytest.raises(WorkspaceError, match="is no folder"):
        listen(deep)


def test_a_folder_for_sockets_that_others_may_write_is_refused(deep: Path, short: Path) -> None:
    (short / f"gx-{os.getuid()}").mkdir()
    (short / f"gx-{os.getuid()}").chmod(0o777)
    with pytest.raises(WorkspaceError, match="others may write to"):
        listen(deep)


def test_the_other_end_of_a_socketpair_is_ours() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_uid(one) == peer_uid(other) == os.getuid()


def test_no_user_is_told_of_what_is_no_unix_socket() -> None:
    with socket.socket(socket.AF_INET) as connection:
        try:
            assert peer_uid(connection) != os.getuid()
        except OSError:
            pass


def _as_stranger(path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CONNECT.format(uid=STRANGER), str(path)], capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a second user")
def test_a_second_user_can_not_connect(short: Path) -> None:
    with listen(short):
        assert _as_stranger(short / "gx.sock") == "PermissionError"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a second user")
def test_a_second_user_gets_no_answer_where_a_mode_is_not_heeded(short: Path, long: Path) -> None:
    from tests.node.served import serve

    with serve(short) as served:
        assert served.http.get("/v1/node").status_code == 200
        (short / "gx.sock").chmod(0o777)
        assert _as_stranger(short / "gx.sock") in ("ConnectionResetError", "BrokenPipeError", "answered b''")
        assert served.http.get("/v1/node").status_code == 200
