"""Another model in a recipe's text: the source that `models` names is replaced where it stands, the rest stays.

It knows YAML's places and what `models` may hold. The invariant: the text that comes out is the same recipe but for
that source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec
import yaml

from gx.core.errors import RecipeError, UsageError
from gx.core.recipe import Recipe
from gx.flow.packed import unpacked
from gx.flow.parse import parse_recipe
from gx.flow.source import suggest


def with_models(text: str, sources: Mapping[str, str], *, file: str) -> str:
    """The recipe's text with other sources for its models, by their names.

    :raises UsageError: if the recipe has no such model, or its text says the source in a way that can't be replaced.
    """
    before = parse_recipe(text, file=file)
    for name in sources:
        if name not in before.models:
            hint = suggest(name, before.models, "models of this recipe")
            raise UsageError(f"--model {name}: the recipe has no model `{name}`", hint=hint)
    changed = text
    for name, source in sources.items():
        start, end = _place(changed, name)
        changed = changed[:start] + json.dumps(source, ensure_ascii=False) + changed[end:]
    told = {name: msgspec.structs.replace(m, source=sources.get(name, m.source)) for name, m in before.models.items()}
    if not _is(changed, msgspec.structs.replace(before, models=told), file):
        raise UsageError(
            f"--model can't change {', '.join(sources)}: the recipe names the source by an alias",
            hint="give the source as text of its own in the recipe, and run that",
        )
    return changed


def _is(text: str, wanted: Recipe, file: str) -> bool:
    """Whether the text is that recipe, and not another one, or none."""
    try:
        return msgspec.json.encode(parse_recipe(text, file=file)) == msgspec.json.encode(wanted)
    except RecipeError:
        return False


def _place(text: str, name: str) -> tuple[int, int]:
    """Where the source of that model stands; the text is a recipe, and has it."""
    root = yaml.compose(unpacked(text)[0], yaml.SafeLoader)
    node = _value(_value(root, "models"), name)
    if isinstance(node, yaml.MappingNode):
        node = _value(node, "source")
    if not isinstance(node, yaml.ScalarNode):
        raise UsageError(f"--model {name}: the recipe says the source of `{name}` in a way that can't be replaced")
    start, end = node.start_mark.index, node.end_mark.index
    return start, start + len(text[start:end].rstrip())  # a text of several lines ends where the next thing begins


def _value(node: yaml.Node | None, name: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for key, value in pairs if key.value == name), None)
