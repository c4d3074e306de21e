"""What the verbs of `gx cloud` share: the SDK and the account, and the files of the models that a burst wants there."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from cloud.rented import Account

T = TypeVar("T")


def sdk() -> tuple[Any, Account]:
    """What deploys, and the account. :raises CloudError: if the SDK isn't installed, or can't be loaded."""
    from cloud.sdk import loading

    with loading():
        from cloud import deploy
        from cloud.rented import Account
    return deploy, Account()


def awaited(do: Callable[..., Coroutine[Any, Any, T]], *args: Any, **named: Any) -> T:
    """What comes of an async call, made from a verb."""
    from functools import partial

    import anyio

    return anyio.run(partial(do, *args, **named))


def files_of(recipe: Path | None, sources: list[str]) -> dict[str, Path]:
    """The original files of a recipe's models, their adapters, and other models, by SHA-256.

    :raises GxError: if the recipe can't be read, or a model isn't on this machine.
    """
    from gx import settings, wiring
    from gx.core.recipe import Agent, Model, Recipe
    from gx.flow.parse import parse_recipe, read_recipe, readable

    found = settings.load()
    recipes: list[tuple[Recipe, Path]] = []
    if recipe is not None:
        recipes.append((parse_recipe(read_recipe(recipe), file=readable(recipe)), recipe.resolve().parent))
    for source in sources:
        agents = {"m": Agent(name="m", model="m")}
        recipes.append((Recipe(name="m", steps=(), agents=agents, models={"m": Model(source=source)}), Path.cwd()))
    files: dict[str, Path] = {}
    for one, folder in recipes:
        for model in wiring.resolve_models(one, found, folder).values():
            files[model.sha256] = model.path
            adapters = zip(model.adapter_sha256s, model.adapters, strict=True)
            files |= {sha256: Path(path) for sha256, (path, _) in adapters}
    return files


def size_text(size_bytes: int) -> str:
    from gx.cli.models import _size as decimal

    return decimal(size_bytes)
