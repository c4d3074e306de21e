"""The composition root: the only file that names the benches, and only inside functions.

`gx.node` asks here for models and workers; nothing above this layer knows where they come from.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from gx.core.errors import ModelError
from gx.core.message import Value
from gx.core.ports import Worker
from gx.core.recipe import Recipe
from gx.settings import Settings


class LocalModel(Value, frozen=True, kw_only=True):
    """A model of a recipe that is on this machine: its file, and what one turn may fill of it."""

    name: str
    path: Path
    sha256: str
    size_bytes: int
    context_tokens: int | None


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
    from edge import models

    found: dict[str, LocalModel] = {}
    for name in used_models(recipe):
        source = recipe.models[name].source
        place = models.resolve(
            source, base_dir=base_dir, models_dir=settings.models_dir, endpoint=settings.hub_endpoint
        )
        if isinstance(place, models.Missing):
            raise ModelError(
                f"the model `{source}` is not on this machine",
                code="model.missing",
                hint=f"fetch it with: gx models pull {source}",
            )
        context = recipe.models[name].context or settings.context_tokens
        found[name] = LocalModel(
            name=name, path=place.path, sha256=place.sha256, size_bytes=place.size_bytes, context_tokens=context
        )
    return found


def edge_worker(
    settings: Settings, epoch: int, models: Callable[[], list[LocalModel]]
) -> AbstractAsyncContextManager[Worker]:
    """A bench on this machine that can load `models`."""
    from edge import prepared
    from edge.worker import EdgeWorker

    worker = EdgeWorker(
        epoch=epoch, threads=settings.threads, slots=settings.slots, context_tokens=settings.context_tokens
    )
    for model in models():
        copy = prepared.find(settings.models_dir, model.sha256)
        worker.register(model.sha256, str(copy[0] if copy else model.path), model.context_tokens)
    return worker
