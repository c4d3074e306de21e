"""The composition root: the only file that names the benches, and only inside functions.

`gx.node` asks here for models and workers; nothing above this layer knows where they come from.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from gx.core.errors import ModelError
from gx.core.message import Value
from gx.core.ports import Worker
from gx.core.recipe import Recipe
from gx.settings import Settings

if TYPE_CHECKING:
    from edge.models import ModelFile


class LocalModel(Value, frozen=True, kw_only=True):
    """A model of a recipe that is on this machine: its file, and what one turn may fill of it.

    `digest` says which model it is: the SHA-256 of its file, or of that and its `adapters`, (path, strength) each.
    """

    name: str
    path: Path
    sha256: str
    size_bytes: int
    context_tokens: int | None
    digest: str
    adapters: tuple[tuple[str, float], ...] = ()


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def used_models(recipe: Recipe) -> list[str]:
    """The names of the models that the recipe's agents use, in the recipe's order."""
    used = {agent.model for agent in recipe.agents.values()}
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
        )
    return found


def _resolve(source: str, settings: Settings, base_dir: Path) -> ModelFile:
    from edge import models

    place = models.resolve(source, base_dir=base_dir, models_dir=settings.models_dir, endpoint=settings.hub_endpoint)
    if isinstance(place, models.Missing):
        raise ModelError(
            f"the model `{source}` is not on this machine",
            code="model.missing",
            hint=f"fetch it with: gx models pull {source}",
        )
    return place


def file_of(model: LocalModel, settings: Settings) -> Path:
    """The file that a bench loads for a model: its prepared copy, where there is one."""
    from edge import prepared

    copy = prepared.find(settings.models_dir, model.sha256)
    return copy[0] if copy else model.path


def edge_worker(
    settings: Settings, epoch: int, models: Callable[[], list[LocalModel]]
) -> AbstractAsyncContextManager[Worker]:
    """A bench on this machine that can load `models`."""
    from edge.worker import EdgeWorker

    worker = EdgeWorker(
        epoch=epoch, threads=settings.threads, slots=settings.slots, context_tokens=settings.context_tokens
    )
    for model in models():
        worker.register(model.digest, str(file_of(model, settings)), model.context_tokens, model.adapters)
    return worker
