"""YAML to a `Recipe`, or a `RecipeError` that points at what is wrong.

`gx.flow.grammar` says what a recipe can hold, `gx.flow.check` what its parts say of each other; this file makes the
value. What it returns can be planned: no name in it is unknown, and `Step.needs` holds the sources of the step too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from gx.core import recipe as r
from gx.core.errors import RecipeError
from gx.core.ids import canonical
from gx.core.memory import Kind
from gx.core.recipe import Adapter, Agent, Budget, Model, Recipe, Retry, Rule, Step
from gx.core.terms import Terms
from gx.flow.check import check_recipe
from gx.flow.grammar import INPUTS, RECIPE
from gx.flow.outputs import closed
from gx.flow.packed import packed, read_tree
from gx.flow.params import read_param, resolve_params
from gx.flow.persona import composed, examples, is_private, sampling
from gx.flow.plan import Plan, make_plan
from gx.flow.source import LINE_BREAK, Node
from gx.flow.templates import bare
from gx.flow.yamltree import MAX_CHARACTERS

__all__ = [
    "fingerprint_source", "load_recipe", "parse_recipe", "plan_recipe", "read_recipe", "readable", "resolve_params",
]  # fmt: skip


def parse_recipe(text: str, *, file: str = "recipe.yaml") -> Recipe:
    """The recipe that `text` holds; `file` is its name in errors. :raises RecipeError: at the first thing wrong."""
    return _parse(text, file)[0]


def plan_recipe(text: str, given: dict[str, str] | None, *, file: str = "recipe.yaml") -> Plan:
    """The plan of the recipe that `text` holds, with parameters by the texts of `--set`.

    `None` for `given` asks whether it is a recipe at all: then the parameters are the defaults that there are.

    :raises RecipeError: at the first thing wrong.
    :raises UsageError: if a parameter isn't one of the recipe's, is of another type, or is missing.
    """
    recipe, root = _parse(text, file)
    if given is None:
        return make_plan(recipe, {name: p.default for name, p in recipe.params.items() if not p.required}, root)
    return make_plan(recipe, resolve_params(recipe, given), root)


def _parse(text: str, file: str) -> tuple[Recipe, Node]:
    root = read_tree(text, file=file)
    recipe = _recipe(RECIPE.read(root), root)
    check_recipe(recipe, root)
    return recipe, root


def load_recipe(path: Path) -> Recipe:
    """The recipe in the file at `path`. :raises RecipeError: if it can't be read, or at the first thing wrong."""
    return parse_recipe(read_recipe(path), file=readable(path))


def read_recipe(path: Path) -> str:
    """The text of the recipe at `path` with those of the files that it names: see `gx.flow.packed`.

    :raises RecipeError: if one of them can't be read, or isn't UTF-8.
    """
    file = readable(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(4 * MAX_CHARACTERS + 4)
    except FileNotFoundError:
        hint = "`gx init` writes one to start from"
        raise RecipeError("expected a recipe, got no such file", file=file, hint=hint) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecipeError(f"expected a recipe, got a file that can't be read: {reason}", file=file) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = LINE_BREAK.split(content[: error.start].decode("utf-8", "replace"))
        message = f"expected UTF-8, got the byte 0x{content[error.start]:02x}"
        raise RecipeError(message, file=file, line=len(before), col=len(before[-1]) + 1) from None
    return packed(text, file=file, folder=path.parent)


def readable(path: Path) -> str:
    """A file's name as text, even where it isn't UTF-8: names go into the log."""
    return os.fsencode(path).decode("utf-8", "replace")


def fingerprint_source(recipe: Recipe) -> bytes:
    """What the identity of a recipe is a digest of: its canonical JSON. Comments and layout are not in it.

    Neither is a default that is written out: msgspec leaves out defaults by identity, this leaves them out by value.
    The order of an output schema's fields is in it, since answers are written in that order.
    """
    orders = {name: msgspec.json.encode(agent.output).decode() for name, agent in recipe.agents.items()}
    return canonical([_without_defaults(recipe), orders])


def _without_defaults(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        kept = ((field, getattr(value, field.name)) for field in msgspec.structs.fields(value))
        tag = {} if (config := value.__struct_config__).tag is None else {str(config.tag_field): config.tag}
        return tag | {field.name: _without_defaults(part) for field, part in kept if part != _default(field)}
    if isinstance(value, dict):
        return {key: _without_defaults(part) for key, part in value.items()}
    return [_without_defaults(part) for part in value] if isinstance(value, tuple) else value


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default


def _recipe(read: dict[str, Any], root: Node) -> Recipe:
    models = {name: _model(model) for name, model in read["models"].items()}
    steps = tuple(_step(step) for step in read["steps"])
    return Recipe(
        name=read["name"],
        steps=steps,
        agents={name: _agent(name, agent, models, root) for name, agent in read["agents"].items()},
        models=models,
        params={name: read_param(root.at("params", name), param) for name, param in read.get("params", {}).items()},
        inputs=read.get("inputs"),
        output=read.get("output", steps[-1].id),
        deadline_s=read.get("deadline"),
        budget=Budget(**read.get("budget", {})),
        description=read.get("description", ""),
        rules=tuple(_rule(rule) for rule in read.get("rules", ())),
        private=read.get("private", ()),
        burst=_terms(read["burst"]) if "burst" in read else None,
    )


def _terms(read: dict[str, Any]) -> Terms:
    return Terms(**{"target_s" if key == "target" else key: value for key, value in read.items()})


def _rule(read: dict[str, Any]) -> Rule:
    ((name, given),) = read["do"].items()
    cooldown = {"cooldown_s": read["cooldown"]} if "cooldown" in read else {}
    return Rule(id=read["id"], query=read["query"], do=_ACTIONS[name](given), **cooldown)


def _ask(given: str | dict[str, Any]) -> r.Ask:
    return r.Ask(text=given) if isinstance(given, str) else r.Ask(**given)


_ACTIONS: dict[str, Callable[[Any], r.Action]] = {
    "pause": lambda step: r.Pause(step=step),
    "continue": lambda step: r.Continue(step=step),
    "concurrency": lambda most: r.Limit(concurrency=most),
    "route": lambda route: r.Route(**route),
    "burst": lambda reason: r.Burst(reason=reason),
    "stop": lambda reason: r.Stop(reason=reason),
    "ask": _ask,
}


def _model(read: str | dict[str, Any]) -> Model:
    if isinstance(read, str):
        return Model(source=read)
    adapters = [Adapter(source=a) if isinstance(a, str) else Adapter(**a) for a in read.get("adapters", ())]
    return Model(**{**read, "adapters": tuple(adapters)})


def _agent(name: str, read: dict[str, Any], models: dict[str, Model], root: Node) -> Agent:
    if "model" not in read and len(models) > 1:
        hint = f"the models are: {', '.join(models)}"
        raise root.at("agents").keys[name].error("expected an agent with `model`, as there are several, got none", hint)
    persona, output = read.get("persona", ""), closed(read["output"]) if "output" in read else None
    return Agent(
        name=name,
        model=read.get("model") or next(iter(models)),
        persona=composed(persona),
        examples=examples(persona, output),
        sampling=sampling(persona, read.get("sampling", {})),
        output=output,
        grammar=read.get("grammar"),
        choose=read.get("choose"),
        private=read.get("private", False) or is_private(persona),
        memory=_recall(read.get("memory")),
    )


def _recall(read: str | dict[str, Any] | None) -> r.Recall | None:
    if isinstance(read, dict):
        return r.Recall(**{**read, "kinds": tuple(Kind(kind) for kind in read.get("kinds", ()))})
    return None if read is None else r.Recall(namespace=read)


def _remember(read: str | dict[str, Any] | None) -> r.Remember | None:
    if isinstance(read, dict):
        return r.Remember(**{**read, "kind": Kind(read.get("kind", "fact"))})
    return None if read is None else r.Remember(namespace=read)


def _long(read: str | dict[str, Any] | None) -> r.Long:
    if isinstance(read, dict):
        return r.Long(**read)
    if read == "refuse":
        return r.Long(how="refuse", dialogue="refuse")
    return r.Long(how="reduce") if read == "reduce" else r.Long()


def _step(read: dict[str, Any]) -> Step:
    needs = list(read.get("needs", ()))
    for source in (read.get("for_each"), read.get("reduce")):
        if source not in (None, INPUTS, *needs):
            needs.append(source)
    agents = {"agent": read["agents"]} if "agents" in read else {}
    return Step(
        id=read["id"],
        agent="{{ matrix.agent }}" if agents else read["agent"],
        prompt=read.get("prompt"),
        combine=read.get("combine"),
        needs=tuple(needs),
        for_each=read.get("for_each"),
        reduce=read.get("reduce"),
        when=_when(read.get("when")),
        matrix=agents | read.get("matrix", {}),
        retry=_retry(read.get("retry", {})),
        timeout_s=read.get("timeout"),
        continue_on_error=read.get("continue_on_error", False),
        private=read.get("private", False),
        share=read.get("share") or (),
        memory=_recall(read.get("memory")),
        remember=_remember(read.get("remember")),
        long=_long(read.get("long")),
    )


def _when(read: str | bool | None) -> str | None:
    if isinstance(read, bool):
        return "true" if read else "false"
    return None if read is None else bare(read)


def _retry(read: dict[str, Any]) -> Retry:
    seconds = {"backoff": "backoff_s", "max_backoff": "max_backoff_s"}
    return Retry(**{seconds.get(key, key): value for key, value in read.items()})
