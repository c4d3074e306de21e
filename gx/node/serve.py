"""`python -m gx.node.serve FOLDER`: the node's process. It owns the workspace, serves clients, and leaves when idle.

It has a session of its own, and neither a terminal nor a client's end touches it. Asked to end (SIGTERM, SIGINT), it
lets what is running end first; asked again, it leaves at once. What it can't say to a client stands in `node.log`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gx import settings
from gx.core.errors import GxError, WorkspaceError
from gx.node import problem
from gx.node.address import listen, peer_uid, socket_path
from gx.node.api import Api
from gx.node.call import find
from gx.node.leftbehind import LeftBehind
from gx.node.local import LocalNode
from gx.node.opening import open_node
from gx.node.start import LOG_FILE
from gx.node.workspace import Workspace

LOCK_S = 10.0
"""How long a node waits for the lock of one that is leaving, or of somebody who reads."""
LEAVE_S = 5.0
FIRST_S = 2.0
"""How long a node waits for its first client at the least, and `LEAST_S` for what one asks next."""
LEAST_S = 0.25
_TICK_S = 0.1


class _Owned(H11Protocol):
    """HTTP for the user's own processes only."""

    def connection_made(self, transport: Any) -> None:
        connection: socket.socket = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            if peer_uid(connection) == os.getuid():
                super().connection_made(transport)
                return
        transport.abort()


class _Server(uvicorn.Server):
    """Signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(folder: Path, *, stays: bool) -> None:
    """Own the workspace in `folder` and serve it until nobody needs it. :raises GxError: if it can't be owned."""
    found = settings.load(workspace=folder)
    place = Workspace(folder)
    _wait_for_turn(place)
    async with open_node(place, found, wait_s=2.0) as node:
        sock = listen(folder)
        place.tell_holder(epoch=node.view.epoch, socket=str(socket_path(folder)))
        _log_to(folder / LOG_FILE)
        api, left = Api(node, stays=stays), LeftBehind(node)
        config = uvicorn.Config(
            api.app, http=_Owned, ws="none", lifespan="off", log_config=None, access_log=False,
            timeout_graceful_shutdown=int(LEAVE_S), backlog=128,
        )  # fmt: skip
        server = _Server(config)
        async with anyio.create_task_group() as group:
            group.start_soon(left.take_up)
            group.start_soon(_obey_signals, api)
            group.start_soon(_leave_when_idle, node, api, found.node_linger_s, server)
            await server.serve(sockets=[sock])
            group.cancel_scope.cancel()
        await left.let_go()
        socket_path(folder).unlink(missing_ok=True)


def _wait_for_turn(place: Workspace) -> None:
    """Wait until nobody else owns the workspace. :raises WorkspaceError: if another node serves it, or it can't be."""
    until = time.monotonic() + LOCK_S
    while time.monotonic() < until:
        if find(place.folder) is not None:
            raise WorkspaceError("another node serves the workspace", code="workspace.locked")
        try:
            with place.locked(fcntl.LOCK_EX, 0.0):
                return
        except WorkspaceError as error:
            if error.code != "workspace.locked":
                raise
        time.sleep(_TICK_S / 2)


async def _leave_when_idle(node: LocalNode, api: Api, linger_s: float, server: uvicorn.Server) -> None:
    """End the server when no run is live and nothing was asked for `linger_s`, or when somebody asked for its end.

    What is being taken up then is waited for, however long its input takes to read: else it would be cut off, and the
    next node would find the workspace in use.
    """
    while not (api.is_leaving and not node.runs.live() and not node.n_taking_up and not node.n_telling):
        is_idle = not (node.runs or node.n_taking_up or node.n_telling or api.n_open or api.stays)
        least_s = LEAST_S if api.was_asked else FIRST_S
        if is_idle and time.monotonic() - api.asked_at >= max(linger_s, least_s):
            break
        await anyio.sleep(_TICK_S)
    api.leave("nobody needed its node")
    server.should_exit = True


async def _obey_signals(api: Api) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            if api.is_leaving:
                os._exit(1)
            api.leave("its node was told to end")


def _log_to(file: Path) -> None:
    with contextlib.suppress(OSError):
        logging.basicConfig(filename=file, filemode="w", level=logging.WARNING, format="%(asctime)s %(message)s")


def main() -> None:
    folder = Path(sys.argv[1])
    try:
        anyio.run(lambda: serve(folder, stays="--stay" in sys.argv))
    except (GxError, BaseExceptionGroup) as error:
        cause = error
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, WorkspaceError) and cause.code == "workspace.locked" and find(folder) is not None:
            sys.exit(0)  # another node is there
        if not isinstance(cause, GxError):
            logging.getLogger("gx").error("the node failed", exc_info=cause)
            cause = GxError(f"the node failed: {type(cause).__name__}: {cause}", code="node")
        with contextlib.suppress(OSError):
            sys.stdout.buffer.write(problem.encode(problem.problem_of(cause)))
            sys.stdout.flush()
        sys.exit(1)


if __name__ == "__main__":
    main()
