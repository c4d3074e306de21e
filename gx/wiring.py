"""The composition root: what a run needs of the benches is made here, and they are imported inside functions only.

`gx.node` asks here for models and workers, and doesn't know where they come from. Verbs and checks that are about
models, documents, prices or the machine ask `edge` and `cloud` themselves.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gx.core.errors import BenchError, CloudError, GxError, ModelError
from gx.core.message import Value
from gx.core.ports import Embedder, Landlord, MemoryStore, Ranker, RentedWorker, Worker
from gx.core.recipe import Recipe, Route
from gx.core.task import Offer
from gx.settings import Settings

if TYPE_CHECKING:
    from cloud.landlord import Needs
    from edge.models import ModelFile

_log = logging.getLogger(__name__)


class LocalModel(Value, frozen=True, kw_only=True):
    """A model of a recipe that is on this machine: its file, and what one turn may fill of it.

    `digest` says which model it is: the SHA-256 of its file, or of that and its `adapters`, (path, strength) each.
    `copy` is the prepared copy of that file, where there is one.
    """

    name: str
    path: Path
    sha256: str
    size_bytes: int
    context_tokens: int | None
    digest: str
    adapters: tuple[tuple[str, float], ...] = ()
    adapter_sha256s: tuple[str, ...] = ()
    copy: Path | None = None


class EmbeddingModel(Value, frozen=True, kw_only=True):
    """A model that makes vectors, on this machine: its source, and what it wants before a question and a passage.

    `text_tokens` are those of the longest text that it was trained on, `None` where nobody says.
    """

    source: str
    model: LocalModel
    question: str = ""
    passage: str = ""
    text_tokens: int | None = None

    @property
    def digest(self) -> str:
        return self.model.digest


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def used_models(recipe: Recipe) -> list[str]:
    """The names of the models that the recipe's agents use, or its rules may route to, in the recipe's order."""
    used = {agent.model for agent in recipe.agents.values()}
    used |= {rule.do.model for rule in recipe.rules if isinstance(rule.do, Route) and rule.do.model is not None}
    return [name for name in recipe.models if name in used]


def resolve_models(recipe: Recipe, settings: Settings, base_dir: Path) -> dict[str, LocalModel]:
    """The files of the recipe's models by name, without any download.

    :raises ModelError: naming the first that is missing, with the command that fetches it.
    """
    found: dict[str, LocalModel] = {}
    for name in used_models(recipe):
        model = recipe.models[name]
        place = _resolve(model.source, settings, base_dir)
        adapters = [(_resolve(a.source, settings, base_dir), a.strength) for a in model.adapters]
        identity = [place.sha256, *(f"{adapter.sha256} {strength!r}" for adapter, strength in adapters)]
        found[name] = LocalModel(
            name=name,
            path=place.path,
            sha256=place.sha256,
            size_bytes=place.size_bytes,
            context_tokens=model.context or settings.context_tokens,
            digest=hashlib.sha256("\n".join(identity).encode()).hexdigest() if adapters else place.sha256,
            adapters=tuple((str(adapter.path), strength) for adapter, strength in adapters),
            adapter_sha256s=tuple(adapter.sha256 for adapter, _ in adapters),
            copy=_copy(place.sha256, settings),
        )
    return found


def _resolve(source: str, settings: Settings, base_dir: Path) -> ModelFile:
    from edge import models

    place = models.resolve(source, base_dir=base_dir, models_dir=settings.models_dir, endpoint=settings.hub_endpoint)
    if isinstance(place, models.Missing):
        raise place.error()
    return place


def _copy(sha256: str, settings: Settings) -> Path | None:
    from edge import prepared

    found = prepared.find(settings.models_dir, sha256)
    return found[0] if found else None


def file_of(model: LocalModel, settings: Settings) -> Path:
    """The file that a bench loads for a model: its prepared copy, where there is one by now."""
    return _copy(model.sha256, settings) or model.path


def edge_worker(
    settings: Settings, epoch: int, models: Callable[[], Iterable[LocalModel]]
) -> AbstractAsyncContextManager[Worker]:
    """A bench on this machine that can load `models`."""
    from edge.worker import EdgeWorker

    worker = EdgeWorker(
        epoch=epoch, threads=settings.threads, slots=settings.slots, context_tokens=settings.context_tokens
    )
    offer(worker, models())
    return worker


def offer(worker: Worker, models: Iterable[LocalModel]) -> None:
    """Tell a worker, also one that is up, where models are. What it knows already changes nothing."""
    from edge.worker import EdgeWorker

    if isinstance(worker, EdgeWorker):
        for model in models:
            path = str(model.copy or model.path)
            worker.register(model.digest, path, model.context_tokens, model.adapters, sha256=model.sha256)


def landlord(settings: Settings, folder: Path, *, epoch: int, runs: Callable[[str], Rented]) -> Landlord:
    """Who rents containers to the runs of the workspace in `folder`; what a run needs, `runs` says by its id.

    Of which gx that is, is looked at now: by the time that something is rented, other code may stand on the disk.
    """
    from cloud.version import here

    with suppress(OSError):  # whoever rents is told
        here()
    return _Lazily(settings, folder, epoch, runs)


class Rented(Value, frozen=True, kw_only=True):
    """What is to be known of a run that rents: its models, and the longest time-out of its steps, None without one.

    It `is_offline` where whoever asked for it is: that counts as much as the node's own setting.
    """

    models: tuple[LocalModel, ...]
    timeout_s: float | None
    is_rehearsal: bool
    is_offline: bool = False


def _check_unchanged() -> None:
    """:raises CloudError: if other code stands on the disk by now: what is loaded of it won't go with what is."""
    from cloud.version import is_changed

    if is_changed():
        why = "other code of gx stands on the disk than this node began with"
        raise CloudError(why, code="cloud.stale", hint="`gx node stop`, and again")


class _Lazily:
    """The landlord, of whom nothing is loaded before something is to be rented."""

    def __init__(self, settings: Settings, folder: Path, epoch: int, runs: Callable[[str], Rented]) -> None:
        self._settings, self._folder, self._epoch, self._runs = settings, folder, epoch, runs
        self._found: Landlord | None = None

    def offers(self, run: str, edge_tokens_per_s: float) -> Sequence[Offer]:
        return self._landlord(run).offers(run, edge_tokens_per_s)

    @asynccontextmanager
    async def rent(self, run: str, gpu: str) -> AsyncIterator[RentedWorker]:
        """Whatever goes wrong there ends the renting, and never the node, which has other runs."""
        try:
            async with self._landlord(run).rent(run, gpu) as worker:
                yield worker
        except GxError:
            raise
        except Exception as error:
            cause: BaseException = error
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            _log.exception("renting for %s failed", run)
            raise CloudError(f"renting failed: {type(cause).__name__}: {cause}") from error

    def _landlord(self, run: str) -> Landlord:
        wanted = self._runs(run)
        if not wanted.is_rehearsal and (self._settings.offline or wanted.is_offline):
            raise CloudError("nothing is rented, as gx is offline (GX_OFFLINE)", code="cloud.offline")
        if self._found is None:
            from cloud.sdk import loading

            _check_unchanged()
            with loading():
                from cloud.landlord import ModalLandlord
                from cloud.rented import Account
            _check_unchanged()  # nor while that was loaded
            driver = f"{socket.gethostname()}/{self._epoch}"
            self._found = ModalLandlord(
                driver=driver, needs=self._needs, folder=self._folder / "rehearsals", account=Account()
            )
        return self._found

    def _needs(self, run: str) -> Needs:
        from cloud.cost import input_s
        from cloud.landlord import Needs
        from cloud.message import Weights

        wanted = self._runs(run)
        weights, files = list[Weights](), dict[str, Path]()
        for model in wanted.models:
            hashes = model.adapter_sha256s
            adapters = tuple(zip(hashes, (strength for _, strength in model.adapters), strict=True))
            weights.append(
                Weights(
                    digest=model.digest, sha256=model.sha256, context_tokens=model.context_tokens, adapters=adapters
                )
            )
            files[model.sha256] = model.path
            files |= {sha256: Path(path) for sha256, (path, _) in zip(hashes, model.adapters, strict=True)}
        return Needs(
            weights=tuple(weights),
            files=files,
            timeout_s=input_s(wanted.timeout_s),
            slots=self._settings.slots or 0,
            is_rehearsal=wanted.is_rehearsal,
        )


async def warnings_of(worker: Worker, digest: str) -> tuple[tuple[str, ...], bool]:
    """What makes a model slow on a worker's machine, which isn't told to load it, and whether that is all by now.

    :raises GxError: if the worker doesn't know the model, or ends.
    """
    from edge.worker import EdgeWorker

    return await worker.warnings(digest) if isinstance(worker, EdgeWorker) else ((), True)


def build_of(worker: Worker) -> str:
    """What the engine of a worker on this machine calls itself; empty of another."""
    from edge.worker import EdgeWorker

    return worker.build if isinstance(worker, EdgeWorker) else ""


def embedding_model(source: str, settings: Settings, base_dir: Path) -> EmbeddingModel | None:
    """The embedding model of that source, made now where a package brings its weights; `None` if it isn't here.

    :raises ModelError: if the source names nothing, its file is damaged, or can't be made.
    """
    from edge import catalogue, models, weights

    place = models.resolve(source, base_dir=base_dir, models_dir=settings.models_dir, endpoint=settings.hub_endpoint)
    if isinstance(place, models.Missing):
        if weights.weights_of(place) is None:
            return None
        place = models.fetch(source, models_dir=settings.models_dir, offline=True, on_progress=lambda done, total: None)
    found = LocalModel(
        name=place.name,
        path=place.path,
        sha256=place.sha256,
        size_bytes=place.size_bytes,
        context_tokens=None,
        digest=place.sha256,
    )
    entry = catalogue.BY_NAME.get(source)
    if entry is None:
        return EmbeddingModel(source=source, model=found)
    return EmbeddingModel(
        source=source,
        model=found,
        question=entry.query_prefix,
        passage=entry.document_prefix,
        text_tokens=entry.text_tokens,
    )


def reranker(source: str, settings: Settings, base_dir: Path) -> LocalModel:
    """The reranker of that source.

    :raises ModelError: if the source names nothing, its file isn't here, says that it is something else, or lacks what
        makes a score.
    """
    from edge import models
    from edge.header import read_header

    place = models.resolve(source, base_dir=base_dir, models_dir=settings.models_dir, endpoint=settings.hub_endpoint)
    if isinstance(place, models.Missing):
        raise place.error()
    header = read_header(place.path)
    if header is not None and (kind := header.kind()) != "reranker":
        raise ModelError(
            f"`{source}` is no reranker: {place.path} is {'an' if kind == 'embedding' else 'a'} {kind} model",
            hint="name a GGUF file whose pooling is `rank`; `memory_reranker`, or `--rerank`, names it, or `none`",
        )
    if header is not None and not header.has_head:
        raise ModelError(
            f"`{source}` says that it is a reranker, and {place.path} has no weights that make a score",
            hint="its conversion lost them (cls or cls.output): get another file of the model",
        )
    return LocalModel(
        name=place.name,
        path=place.path,
        sha256=place.sha256,
        size_bytes=place.size_bytes,
        context_tokens=None,
        digest=place.sha256,
    )


def token_count(model: EmbeddingModel) -> Callable[[Sequence[str]], list[int]]:
    """What counts the tokens of texts as that model takes them, in this process: not for the one that has the log.

    :raises ModelError: if its file can't be loaded. :raises BenchError: if the engine isn't installed.
    """
    from edge.knowledge.counting import tokens_of

    return tokens_of(str(model.model.path))


def embedder_of(worker: Worker) -> Embedder:
    """Who embeds beside that worker's turns. :raises BenchError: if it doesn't."""
    if not isinstance(worker, Embedder):
        raise BenchError(f"the worker {worker.name} makes no vectors")
    return worker


def ranker_of(worker: Worker) -> Ranker:
    """Who ranks beside that worker's turns. :raises BenchError: if it doesn't."""
    if not isinstance(worker, Ranker):
        raise BenchError(f"the worker {worker.name} ranks nothing")
    return worker


def memory_store(path: Path) -> MemoryStore:
    """The file of memories at `path`. :raises WorkspaceError: as `edge.memory.store.MemoryStore`."""
    from edge.memory.store import MemoryStore

    return MemoryStore(path)
