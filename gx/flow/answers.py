"""What earlier steps made of a task's own row, as a template has it: `answers.x`.

Of a step without a matrix it is its answer about the row, or null where there is none. Of one with a matrix it is a
mapping from the matrix's values, as texts, to answers: `answers.opinions.careful`; with several names in the matrix,
mappings of mappings, in the order of the names. What has no answer isn't in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from gx.core.recipe import Recipe, Step
from gx.flow import templates
from gx.flow.grammar import INPUTS

NAME = "answers"


def levels(recipe: Recipe, step: Step) -> tuple[str, ...] | None:
    """The names of the matrices on the way from the rows to a step; `None` if its tasks aren't each of one row."""
    names = tuple(step.matrix)
    while step.for_each not in (None, INPUTS):
        step = recipe.step(str(step.for_each))
        names = (*step.matrix, *names)
    return names if step.for_each == INPUTS else None


def can_be_asked(recipe: Recipe, step: Step) -> bool:
    """Whether `answers.x` can be told of a step: it goes by rows, and no two matrices on the way share a name."""
    names = levels(recipe, step)
    return names is not None and len(set(names)) == len(names)


def read_by(recipe: Recipe, step: Step, texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The steps whose answers these templates of a step have, each with its `levels`; none where they read none."""
    if not any(NAME in templates.names_in(text) for text in texts) or levels(recipe, step) is None:
        return {}
    needed = (recipe.step(name) for name in step.needs)
    return {need.id: levels(recipe, need) or () for need in needed if can_be_asked(recipe, need)}


def nested(names: tuple[str, ...], found: Iterable[tuple[Mapping[str, Any], Any]]) -> Any:
    """The answers to one row, each given with its matrix, by the values of these names."""
    if not names:
        return next((value for _, value in found), None)
    made: dict[str, Any] = {}
    for matrix, value in found:
        *outer, last = (_text(matrix[name]) for name in names)
        place = made
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = value
    return made


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
