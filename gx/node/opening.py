"""A node and its parts put together: the log, the view that it folds to, the bench, the landlord, the dispatcher.

Invariant: whatever a node writes stands between its `node.started` and, unless it is killed, its `node.stopped`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from gx import wiring
from gx.core import event as e
from gx.core.projection import fold
from gx.core.view import View
from gx.node.bench import Bench
from gx.node.local import LocalNode
from gx.node.workspace import Workspace
from gx.run.contents import Contents
from gx.run.dispatcher import Dispatcher
from gx.settings import Settings


@asynccontextmanager
async def open_node(workspace: Workspace, settings: Settings, *, wait_s: float = 2.0) -> AsyncIterator[LocalNode]:
    """Own the workspace as long as the block lasts. :raises GxError: if it can't be owned, or its log can't be read."""
    async with AsyncExitStack() as stack:
        log = stack.enter_context(workspace.exclusive(wait_s=wait_s))
        view = View()
        for event in log.read(run=""):
            fold(view, event)
        epoch = view.epoch + 1
        contents = Contents(log.blobs)
        models: dict[str, wiring.LocalModel] = {}
        bench = Bench(lambda: wiring.edge_worker(settings, epoch, lambda: list(models.values())))
        dispatcher = Dispatcher(
            log=log,
            view=view,
            contents=contents,
            make_worker=bench.open,
            clock=wiring.SystemClock(),
            epoch=epoch,
            landlord=wiring.landlord(settings, workspace.folder, epoch=epoch, runs=lambda run: node.rented(run)),
        )
        await dispatcher.commit([e.NodeStarted(epoch=epoch, pid=os.getpid(), host=socket.gethostname())])
        node = LocalNode(log, settings, view, dispatcher, contents, bench, models)
        async with dispatcher, node.serving():
            yield node
        await dispatcher.commit([*dispatcher.leftovers(), e.NodeStopped(epoch=epoch)])
