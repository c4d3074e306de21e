"""The recipe's graph as lines of text: a step under what it needs first, the other needs by name. Pure."""

from __future__ import annotations

from typing import NamedTuple

from gx.core.errors import GxError
from gx.core.recipe import Recipe
from gx.flow.parse import parse_recipe
from gx.tui.glyphs import Glyphs


class Vertex(NamedTuple):
    """A step: its name, what it does in words, and the steps that it waits for."""

    name: str
    what: str
    needs: tuple[str, ...]


class Placed(NamedTuple):
    """A step in the picture: what stands before its name, and the needs that the picture doesn't show."""

    vertex: Vertex
    prefix: str
    also: tuple[str, ...]


def vertices_of(text: str) -> list[Vertex]:
    """The steps of a recipe's text, in its order; none where it can't be read."""
    try:
        recipe = parse_recipe(text)
    except GxError:
        return []
    return [Vertex(step.id, _what(recipe, n), _needs(recipe, n)) for n, step in enumerate(recipe.steps)]


def _needs(recipe: Recipe, n: int) -> tuple[str, ...]:
    step = recipe.steps[n]
    names = {other.id for other in recipe.steps}
    wanted = (*step.needs, *(name for name in (step.for_each, step.reduce) if name is not None))
    return tuple(dict.fromkeys(name for name in wanted if name in names and name != step.id))


def _what(recipe: Recipe, n: int) -> str:
    step = recipe.steps[n]
    each = f"for each {step.for_each}" if step.for_each else f"reduces {step.reduce}" if step.reduce else "once"
    return f"{each}, by {step.agent}" if getattr(step, "agent", None) else each


def placed(vertices: list[Vertex], glyphs: Glyphs) -> list[Placed]:
    """Each step once, below the first of its needs."""
    known = {vertex.name for vertex in vertices}
    below: dict[str | None, list[Vertex]] = {}
    for vertex in vertices:
        parent = next((need for need in vertex.needs if need in known), None)
        below.setdefault(parent, []).append(vertex)
    return _branch(below, None, "", glyphs)


def _branch(below: dict[str | None, list[Vertex]], parent: str | None, indent: str, glyphs: Glyphs) -> list[Placed]:
    found: list[Placed] = []
    fork, last, trunk = glyphs.tree
    children = below.pop(parent, [])
    for n, vertex in enumerate(children):
        is_last = n == len(children) - 1
        prefix = "" if parent is None else indent + (last if is_last else fork)
        deeper = "" if parent is None else indent + (" " * len(trunk) if is_last else trunk)
        found.append(Placed(vertex, prefix, tuple(need for need in vertex.needs if need != parent)))
        found += _branch(below, vertex.name, deeper, glyphs)
    return found
