"""What one part of a recipe says of another: references, cycles, and the names in templates.

The grammar has read every value by now. A recipe that passes here unfolds: every agent, model and step that it names
is there, needs have no cycle, and every template knows its names.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from itertools import product
from math import prod

from gx.core.errors import RecipeError
from gx.core.recipe import Agent, Recipe, Step
from gx.flow import answers
from gx.flow.contextfree import check_grammar
from gx.flow.grammar import INPUTS
from gx.flow.memories import CITED, FROM, NAME, cited
from gx.flow.outputs import check_output, is_choice
from gx.flow.persona import check_persona
from gx.flow.rules import check_rules, routed_agents
from gx.flow.scope import Scope, check_template, persona_scope, scope_of
from gx.flow.source import Node, suggest
from gx.flow.templates import TemplateFailure, names_in, render

MAX_COMBINATIONS = 10_000


def check_recipe(recipe: Recipe, root: Node) -> None:
    """Check `recipe` against itself; `root` is where it was read. :raises RecipeError: at the first contradiction."""
    for name, agent in recipe.agents.items():
        _known(root.at("agents", name, "model"), agent.model, recipe.models, "models")
        _check_answer(agent, root.at("agents", name))
    _check_ids(recipe, root)
    for index, step in enumerate(recipe.steps):
        _check_references(recipe, step, root.at("steps", index))
    _check_cycles(recipe, root)
    if recipe.output not in {step.id for step in recipe.steps}:
        _known(root.at("output"), recipe.output, [step.id for step in recipe.steps], "steps")
    users: dict[str, list[Step]] = {name: [] for name in recipe.agents}
    for index, step in enumerate(recipe.steps):
        for name in _agents_of(recipe, step, root.at("steps", index)):
            users[name].append(step)
        _check_templates(recipe, step, root.at("steps", index))
        _check_memory(recipe, step, root, root.at("steps", index))
        _check_share(recipe, step, root.at("steps", index))
    check_rules(recipe, root)
    for step, name in routed_agents(recipe):
        users[name].append(step)
    for name, agent in recipe.agents.items():
        check_persona(root.at("agents", name), agent, persona_scope(recipe, users[name]))


def _check_answer(agent: Agent, node: Node) -> None:
    """What an agent's answers must fit."""
    if agent.output is not None:
        check_output(node.at("output"))
    if agent.grammar is not None:
        if agent.output is not None:
            why = "by the one an answer is JSON, by the other a text"
            raise node.at("grammar").error("expected an `output` or a `grammar`, got both", why)
        check_grammar(node.at("grammar"))
    if agent.sampling.stop and (agent.output is not None or agent.grammar is not None):
        beside = "an `output`: an answer ends where it fits its schema"
        if agent.grammar is not None:
            beside = "a `grammar`: an answer ends where it fits that"
        why = f"expected no `stop` beside {beside}"
        raise node.at("sampling", "stop").error(why, "leave it out")
    if agent.choose is not None:
        _check_choice(agent, node)


def _check_choice(agent: Agent, node: Node) -> None:
    if not is_choice(agent.output):
        raise node.at("choose").error(
            "expected an `output` to choose from: an enum, or an object whose every property is one",
            "leave out the other properties; a second step can write them",
        )
    if agent.sampling.logprobs is not None:
        raise node.at("sampling", "logprobs").error(
            f"expected no `logprobs` beside `choose`, got {agent.sampling.logprobs}: options are weighed, and no token "
            "is written",
            "leave it out; the probability of each option is told anyway",
        )


def _known(node: Node, name: str, names: object, what: str) -> None:
    choices = list(names)  # type: ignore[call-overload]
    if name not in choices:
        raise node.error(f"expected one of the {what}, got `{name}`", suggest(name, choices, what))


def _check_ids(recipe: Recipe, root: Node) -> None:
    first: dict[str, Node] = {}
    for index, step in enumerate(recipe.steps):
        node = root.at("steps", index, "id")
        if step.id in first:
            place = f"line {first[step.id].line}, col {first[step.id].col}"
            raise node.error(f"the step id `{step.id}` is given twice: first at {place}, and again here")
        first[step.id] = node


def _check_references(recipe: Recipe, step: Step, node: Node) -> None:
    ids = [other.id for other in recipe.steps]
    needs = node.at("needs")
    for index, need in enumerate(step.needs if needs is not node else ()):
        if index < len(needs.value) if needs.kind == "list" else index == 0:
            _known(needs.at(index), need, ids, "steps")
    if step.for_each not in (None, INPUTS):
        _known(node.at("for_each"), str(step.for_each), [INPUTS, *ids], "sources")
    if step.reduce is not None:
        _known(node.at("reduce"), step.reduce, ids, "steps")


def _check_cycles(recipe: Recipe, root: Node) -> None:
    try:
        TopologicalSorter({step.id: step.needs for step in recipe.steps}).prepare()
    except CycleError as error:
        circle = list(reversed(error.args[1]))  # graphlib gives them from the needed to the needing
        index = next(i for i, step in enumerate(recipe.steps) if step.id in circle)
        turn = circle.index(recipe.steps[index].id)
        way = " → ".join([*circle[turn:], *circle[1 : turn + 1]])
        node = root.at("steps", index)
        key = next((key for key in ("needs", "for_each", "reduce") if key in node.value), "id")
        raise node.at(key).error(f"expected steps without a circle, got {way} (each needs the next)") from None


def _agents_of(recipe: Recipe, step: Step, node: Node) -> set[str]:
    """The agents that the step's combinations name. :raises RecipeError: if one of them isn't there."""
    _check_matrix(step, node)
    if "agents" in node.value:
        if "agent" in (matrix := node.at("matrix")).keys:
            raise matrix.keys["agent"].error("expected another name in a matrix beside `agents`, got `agent`")
        for index, name in enumerate(step.matrix["agent"]):
            _known(node.at("agents", index), name, recipe.agents, "agents")
        return set(step.matrix["agent"])
    place = node.at("agent")
    if "{" not in step.agent:
        _known(place, step.agent, recipe.agents, "agents")
        return {step.agent}
    if "{%" in step.agent or "{#" in step.agent:
        raise place.error("expected the name of an agent or {{ matrix.… }}, got a template with statements")
    check_template(place, Scope(frozenset({"matrix"}), {"matrix": frozenset(step.matrix)}, {}))
    found = set()
    for values in product(*step.matrix.values()):
        combination = dict(zip(step.matrix, values, strict=True))
        try:
            name = render(step.agent, {"matrix": combination}).strip()
        except TemplateFailure as error:
            raise place.error(error.message) from None
        if name not in recipe.agents:
            shown = ", ".join(f"{key}={value}" for key, value in combination.items())
            hint = suggest(name, recipe.agents, "agents")
            raise place.error(f"expected one of the agents, got `{name}` (with {shown})", hint)
        found.add(name)
    return found


def _check_matrix(step: Step, node: Node) -> None:
    count = prod(len(values) for values in step.matrix.values())
    if count > MAX_COMBINATIONS:
        raise node.at("matrix").error(f"expected at most {MAX_COMBINATIONS:,} combinations, got {count:,}")
    for name, values in step.matrix.items():
        shown: set[str] = set()
        for index, value in enumerate(values):
            if str(value) in shown:  # a task's path holds it as text
                raise _alike(node.at("matrix", name, index))
            shown.add(str(value))


def _alike(node: Node) -> RecipeError:
    return node.error(f"expected values that differ as text, got {node} again")


def _check_share(recipe: Recipe, step: Step, node: Node) -> None:
    """Whether the step's output can have the fields that it shares. :raises RecipeError: at the first that it can't."""
    if not isinstance(step.share, tuple) or not step.share:
        return
    outputs = [recipe.agents[name].output for name in sorted(_agents_of(recipe, step, node))]
    known = [output["properties"] for output in outputs if output and output.get("properties")]
    place = node.at("share")
    if not known:
        whole = "`share: true` lets all of it leave"
        raise place.error("expected fields of the step's output, but its agent's `output` names none", whole)
    names = list(dict.fromkeys(name for properties in known for name in properties))
    for index, name in enumerate(step.share):
        if name not in names:
            raise place.at(index).error(
                f"expected a field of the step's output, got `{name}`", suggest(name, names, "fields")
            )


def _check_memory(recipe: Recipe, step: Step, root: Node, node: Node) -> None:
    """What a step and its agents search for and remember. :raises RecipeError: if that can't be."""
    scope = scope_of(recipe, step)
    for agent in (recipe.agents[name] for name in sorted(_agents_of(recipe, step, node))):
        place = root.at("agents", agent.name)
        names = list(cited(agent.output))
        for name in names:
            if name not in CITED:
                hint = suggest(name, CITED, "choices")
                raise place.at("output").error(f"expected `{FROM}` to name what is cited, got `{name}`", hint)
        if step.recall(agent) is None:
            if names:
                hint = f"give the agent a `memory`, or step `{step.id}`"
                raise place.at("output").error(f"expected a `memory` to cite from with `{FROM}`, got none", hint)
            continue
        asked = node.at("memory") if step.memory is not None else place.at("memory")
        if step.reduce is not None:
            hint = "search in a step before it"
            raise asked.error(f"expected no memory in a reduce (step `{step.id}`), as its prompts are cut to fit", hint)
        if step.prompt is None:
            raise asked.error(f"expected step `{step.id}` to have a `prompt`, as it searches the memory, got none")
        if agent.choose == "calibrated":
            hint = "`choose: scored` weighs the options of each row by itself"
            raise asked.error("expected no memory beside `choose: calibrated`: other rows found other things", hint)
        _check_texts(asked, ("namespace", "query"), scope)
    if step.remember is not None:
        _check_texts(node.at("remember"), ("namespace", "text"), scope_of(recipe, step, "output"))


def _check_texts(node: Node, keys: tuple[str, ...], scope: Scope) -> None:
    """The templates of a mapping, or the one that stands in its place."""
    for place in [node.at(key) for key in keys if key in node.value] if node.kind == "mapping" else [node]:
        check_template(place, scope)


def _recalls(recipe: Recipe, step: Step, node: Node) -> bool:
    return any(step.recall(recipe.agents[name]) is not None for name in _agents_of(recipe, step, node))


def _check_templates(recipe: Recipe, step: Step, node: Node) -> None:
    scope = scope_of(recipe, step, *((NAME,) if _recalls(recipe, step, node) else ()))
    for key in ("prompt", "combine"):
        if key in node.value:
            check_template(node.at(key), scope)
    chooses = [recipe.agents[name].choose for name in _agents_of(recipe, step, node)]
    if "calibrated" in chooses and answers.NAME in names_in(step.prompt or ""):
        hint = "`choose: scored` weighs the options of each row by itself"
        raise node.at("prompt").error("expected no `answers` beside `choose: calibrated`: other rows have others", hint)
    when = node.at("when")
    if "when" in node.value and when.kind == "text":
        check_template(when, scope_of(recipe, step), is_expression=True)
