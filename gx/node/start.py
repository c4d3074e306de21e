"""Bringing up the node of a workspace where there is none, and waiting for it.

Any number of clients may do this at a time: each node that is started asks for the workspace's lock, one gets it, and
the others leave. A client then speaks to whichever is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gx import __version__
from gx.core.errors import WorkspaceError
from gx.node import problem
from gx.node.call import Client, NodeGone, find
from gx.node.workspace import Workspace

START_S = 60.0
"""How long a node may take until it listens: it folds the log, and waits for a node that is leaving."""
MOST_KILLS = 5
"""Nodes that may be killed one after the other before they serve."""
MOST_DEATHS = 5
"""Nodes that may die one after the other under what is asked of them."""
_POLL_S = 0.02
_PATIENCE_S = 0.2
LOG_FILE = "node.log"

T = TypeVar("T")


def ensure(folder: Path, *, lingers: bool = True, within_s: float = START_S) -> Client:
    """A client of the workspace's node, which is started where there is none.

    `lingers` False keeps it up until it is told to leave.

    :raises GxError: if none can be started, as it says itself, or none comes up in time.
    """
    until = time.monotonic() + within_s
    child: subprocess.Popen[bytes] | None = None
    kills = 0
    while True:
        client = find(folder)
        if client is not None and _answers(client):
            return client
        if child is None or child.poll() is not None:
            if child is not None and child.returncode:
                kills += 1
                if child.returncode > 0 or kills == MOST_KILLS:
                    _raise_report(child)
            child = _spawn(folder, lingers=lingers)
        if time.monotonic() > until:
            raise _none_came(folder, within_s)
        time.sleep(_POLL_S)


def insist(folder: Path, ask: Callable[[Client], T], *, on_note: Callable[[str], None]) -> T:
    """What `ask` has of the workspace's node; of the next one, where one dies, or leaves, which is noted once.

    It is for what is done once however often it is asked for: a submission with its token, or that a run goes on.

    :raises GxError: what the node refuses, or that none comes up, or that one after the other dies.
    """
    deaths, is_told = 0, False
    while True:
        client = ensure(folder)
        try:
            return ask(client)
        except NodeGone as error:
            deaths += 1
            if deaths == MOST_DEATHS:
                raise WorkspaceError(
                    f"{deaths} nodes died one after the other; the last time: {error.why}",
                    code="workspace.node",
                    hint="`gx doctor` may say why",
                ) from None
            time.sleep(_PATIENCE_S)
        except WorkspaceError as error:
            if error.code != "workspace.leaving":
                raise
            if not is_told:
                on_note("note: the node is leaving; the next one is asked when it is gone")
            is_told = True
            _outlast(client)


def _outlast(client: Client) -> None:
    """Wait until the node that leaves is gone, however long its runs take to end."""
    with contextlib.suppress(NodeGone):
        while client.ask("GET", "/v1/node").get("is_leaving"):
            time.sleep(_PATIENCE_S)


def _none_came(folder: Path, within_s: float) -> WorkspaceError:
    """Why there is no node yet: somebody else's process has the folder, or the node is slow."""
    place = Workspace(folder)
    try:
        with place.locked(fcntl.LOCK_SH, 0.0):
            pass
    except WorkspaceError as error:
        return error
    return WorkspaceError(
        f"no node came up for {folder} in {within_s:g} s",
        code="workspace.node",
        hint=f"its last words are in {folder / LOG_FILE}",
    )


def send_home(folder: Path) -> None:
    """End the workspace's node if it is idle, so that this process may own the workspace.

    :raises WorkspaceError: if a run is live.
    """
    client = find(folder)
    if client is None:
        return
    until = time.monotonic() + START_S
    with contextlib.suppress(NodeGone):
        client.ask("POST", "/v1/node/leave", {"only_idle": True})
    while find(folder) is not None and time.monotonic() < until:
        time.sleep(_POLL_S)


def _answers(client: Client) -> bool:
    """Whether it serves, and is of this gx. An idle one of another gx is sent home.

    :raises WorkspaceError: if one of another gx has live runs.
    """
    try:
        status = client.ask("GET", "/v1/node")
        if status["gx"] == __version__:
            return True
        if not status["runs"]:
            client.ask("POST", "/v1/node/leave", {"only_idle": True})
            return False
    except NodeGone:
        return False
    names = ", ".join(run["run"] for run in status["runs"])
    raise WorkspaceError(
        f"the node that is up is of gx {status['gx']}, this is gx {__version__}, and {names} is live on it",
        code="workspace.version",
        hint="wait until it ends, or end the node with: gx node stop",
    )


def _spawn(folder: Path, *, lingers: bool) -> subprocess.Popen[bytes]:
    """A node in a session of its own, which no terminal can end; it reports on stdout if it can't serve.

    It starts in the workspace, from where it finds the project's settings.
    """
    words = [sys.executable, "-P", "-m", "gx.node.serve", str(folder), *(() if lingers else ("--stay",))]
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=folder,
    )


def _raise_report(child: subprocess.Popen[bytes]) -> None:
    """What a node that didn't come up says of it. One that found another in its place says nothing."""
    said = child.stdout.read() if child.stdout is not None else b""
    if said.strip():
        raise problem.error_of(problem.decode(said, problem.Problem))
    raise WorkspaceError(
        f"the node ended with status {child.returncode} before it served",
        code="workspace.node",
        hint="`gx doctor` checks this machine",
    )
