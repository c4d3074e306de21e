"""Where a node of a workspace listens, and who may speak to it there.

A unix socket's path may have some 100 bytes. Where the workspace's own folder is too deep for that, the socket stands
in a folder of the user's, under a digest of the workspace's path. Only the user's own processes may connect: the mode
says so, and the kernel is asked for the peer's user, since a mode is not heeded everywhere.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import struct
import sys
import tempfile
from pathlib import Path

from gx.core.errors import WorkspaceError

LONGEST_PATH = 100
"""Bytes; Linux takes 107, macOS 103."""


def socket_path(folder: Path) -> Path:
    """The socket of the workspace in `folder`."""
    path = folder / "gx.sock"
    if len(os.fsencode(path)) <= LONGEST_PATH:
        return path
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(base) / f"gx-{os.getuid()}" / f"{name}.sock"


def listen(folder: Path) -> socket.socket:
    """A socket that listens for the workspace's clients, in place of what a node that died left behind.

    The caller holds the workspace's lock, so nobody else listens there.

    :raises WorkspaceError: if it can't be made.
    """
    path = socket_path(folder)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.parent != folder:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _check_ours(path.parent)
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        made.listen(128)
    except OSError as error:
        made.close()
        raise WorkspaceError(
            f"no socket can be made at {path}: {error.strerror or error}",
            code="workspace.socket",
            hint="a workspace needs a local disk; choose one with `--workspace DIR`",
        ) from None
    return made


def _check_ours(folder: Path) -> None:
    """:raises PermissionError: if somebody else may put a socket there, or made us look elsewhere with a link."""
    found = folder.lstat()
    if found.st_uid != os.getuid():
        raise PermissionError(0, f"{folder} belongs to another user")
    if not stat.S_ISDIR(found.st_mode):
        raise PermissionError(0, f"{folder} is no folder")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(0, f"others may write to {folder}")


def peer_uid(connection: socket.socket) -> int:
    """The user of the process at the other end. :raises OSError: if the kernel doesn't say."""
    if sys.platform == "linux":
        size = struct.calcsize("3i")
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return int(uid)
    # macOS: struct xucred, of <sys/ucred.h>: version, uid, and the groups
    credentials = connection.getsockopt(0, 1, 76)  # SOL_LOCAL, LOCAL_PEERCRED
    return int(struct.unpack_from("2I", credentials)[1])
