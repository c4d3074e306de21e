"""A node and its parts put together: the log, the view that it folds to, the bench, the landlord, the memory.

Invariant: whatever a node writes stands between its `node.started` and, unless it is killed, its `node.stopped`. What
was forgotten is erased from the log's file after that, when nobody writes it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio.to_thread

from gx import wiring
from gx.core import event as e
from gx.core.errors import LogError
from gx.core.ports import Embedder, Ranker
from gx.core.projection import fold
from gx.core.view import View
from gx.node.attached import LocalRun
from gx.node.bench import Bench
from gx.node.local import LocalNode
from gx.node.memories import Memories
from gx.node.memoryfile import MemoryFile
from gx.node.reranking import Reranking
from gx.node.workspace import Workspace
from gx.run.contents import Contents
from gx.run.dispatcher import Dispatcher
from gx.run.log import EventLog
from gx.run.log.erase_forgotten import erase_forgotten
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
        contents = Contents(log.blobs, log.sizes)
        models: dict[str, wiring.LocalModel] = {}
        bench = Bench(lambda: wiring.edge_worker(settings, epoch, lambda: list(models.values())))
        dispatcher = Dispatcher(
            log=log,
            view=view,
            contents=contents,
            make_worker=bench.open,
            clock=wiring.SystemClock(),
            epoch=epoch,
            landlord=wiring.landlord(
                settings, workspace.folder, epoch=epoch, runs=lambda run: _rented(node.runs[run], models)
            ),
        )
        await dispatcher.commit([e.NodeStarted(epoch=epoch, pid=os.getpid(), host=socket.gethostname())])
        memories = _memories(workspace, settings, log, dispatcher, bench)
        node = LocalNode(log, settings, view, dispatcher, contents, bench, models, memories)
        async with dispatcher, node.runs.serving():
            yield node
        await memories.close()
        await dispatcher.commit([*dispatcher.leftovers(), e.NodeStopped(epoch=epoch)])
        with contextlib.suppress(LogError):  # the next node tries it again, and `gx memory rm` tells why it can't be
            erase_forgotten(log)


def _rented(run: LocalRun, models: dict[str, wiring.LocalModel]) -> wiring.Rented:
    """What is to be known of a live run that rents."""
    terms = run.state.rent
    limits = [step.step.timeout_s for step in run.active.plan.steps if step.step.timeout_s is not None]
    return wiring.Rented(
        models=tuple(models[digest] for digest in run.active.preparer.digests()),
        timeout_s=max(limits, default=None),
        is_rehearsal=terms is not None and terms.terms.is_rehearsal,
        is_offline=run.is_offline,
    )


def _memories(
    workspace: Workspace, settings: Settings, log: EventLog, dispatcher: Dispatcher, bench: Bench
) -> Memories:
    """The memory of the workspace, embedded and ranked by the node's own worker."""

    async def embedder(model: wiring.EmbeddingModel) -> Embedder:
        bench.offer([model.model])
        return wiring.embedder_of(await dispatcher.worker())

    async def find(source: str) -> wiring.EmbeddingModel | None:
        return await anyio.to_thread.run_sync(wiring.embedding_model, source, settings, workspace.folder.parent)

    async def ranker(model: wiring.LocalModel) -> Ranker:
        bench.offer([model])
        return wiring.ranker_of(await dispatcher.worker())

    async def find_reranker(source: str) -> wiring.LocalModel:
        return await anyio.to_thread.run_sync(wiring.reranker, source, settings, workspace.folder.parent)

    return Memories(
        MemoryFile(log, wiring.memory_store),
        commit=dispatcher.commit,
        newest=lambda: dispatcher.view.memory_seq,
        embedder=embedder,
        find_model=find,
        model=None if settings.memory_model == "none" else settings.memory_model,
        reranking=Reranking(find=find_reranker, ranker=ranker, source=settings.memory_reranker),
        now=wiring.SystemClock().now,
    )
