"""A recipe's parameters: as they are declared, and as `--set name=value` gives them.

A parameter always has a value of its type once resolved, except one that is neither required nor given: null.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal, cast

from gx.core.errors import UsageError
from gx.core.recipe import Param, Recipe
from gx.flow.scalars import Flag
from gx.flow.source import Node, suggest

_Type = Literal["string", "integer", "number", "boolean"]
_KINDS = {"text": "string", "integer": "integer", "number": "number", "boolean": "boolean"}
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_EXPECTED = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}


def read_param(node: Node, read: Any) -> Param:
    """The parameter declared at `node`, of which `read` is what the grammar read there.

    :raises RecipeError: if the default isn't of the type, or can never be used.
    """
    if not isinstance(read, dict):
        return Param(type=cast(_Type, _KINDS[node.kind]), default=read)
    place = node.at("default")
    has_default = "default" in read
    kind = cast(_Type, read.get("type") or (_KINDS[place.kind] if has_default else "string"))
    default = read.get("default")
    if has_default and kind == "boolean":
        default = Flag().read(place)
    elif has_default and not (_KINDS[place.kind] == kind or (kind == "number" and place.kind == "integer")):
        hint = f'put quotes around it: "{default}"' if kind == "string" else ""
        raise place.error(f"expected a default that is {_EXPECTED[kind]}, got {place}", hint)
    is_required = read.get("required", not has_default)
    if is_required and has_default:
        raise place.error("expected no default for a required parameter, got one", "leave out one of the two")
    return Param(type=kind, default=default, required=is_required, description=read.get("description", ""))


def resolve_params(recipe: Recipe, given: dict[str, str]) -> dict[str, Any]:
    """The value of every parameter, from the texts of `--set name=value` and the defaults.

    :raises UsageError: if a name is unknown, a text isn't of its type, or a required parameter is missing.
    """
    for name in given:
        if name not in recipe.params:
            hint = suggest(name, recipe.params, "parameters of this recipe")
            raise UsageError(f"--set {name}: the recipe has no parameter `{name}`", hint=hint)
    values = {}
    for name, param in recipe.params.items():
        if name in given:
            values[name] = _value(name, param, given[name])
        elif param.required:
            about = f" ({param.description})" if param.description else ""
            hint = f"give it with --set {name}=…"
            raise UsageError(f"the parameter `{name}`{about} has no default and was not given", hint=hint)
        else:
            values[name] = param.default
    return values


def _value(name: str, param: Param, text: str) -> Any:
    stripped = text.strip()
    if param.type == "string":
        return text
    if param.type == "boolean" and stripped.lower() in _WORDS:
        return _WORDS[stripped.lower()]
    if param.type == "integer" and re.fullmatch("[+-]?[0-9]{1,300}", stripped):
        return int(stripped)
    if param.type == "number":
        try:
            number = float(stripped)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
    raise UsageError(f"--set {name}: expected {_EXPECTED[param.type]}, got {text!r}")
