"""What the rules of a recipe say of its other parts: steps, agents and models that they name, and their own ids.

It knows no SQL: whether a query can be asked of the log is found out where there is a database, in `gx.run.rulecheck`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from gx.core.errors import RecipeError
from gx.core.recipe import Ask, Continue, Pause, Recipe, Route, Step
from gx.flow.packed import read_tree
from gx.flow.source import Node, suggest

_RUN = re.compile(r"\$run\b")


def check_rules(recipe: Recipe, root: Node) -> None:
    """Check the rules of `recipe`. :raises RecipeError: at the first that names something that there is not."""
    first: dict[str, Node] = {}
    for index, rule in enumerate(recipe.rules):
        node = root.at("rules", index)
        if rule.id in first:
            place = f"line {first[rule.id].line}, col {first[rule.id].col}"
            raise node.at("id").error(f"the rule id `{rule.id}` is given twice: first at {place}, and again here")
        first[rule.id] = node.at("id")
        if not _RUN.search(rule.query):
            raise node.at("query").error(
                "expected a query about `$run`, got one about every run in the log", "add WHERE run = $run"
            )
        if isinstance(rule.do, Pause | Continue):
            _check_step(recipe, rule.do.step, node.at("do", "pause" if isinstance(rule.do, Pause) else "continue"))
        elif isinstance(rule.do, Route):
            _check_route(recipe, rule.do, node.at("do", "route"))
        elif isinstance(rule.do, Ask) and "stop" not in rule.do.choices:
            raise node.at("do", "ask", "choices").error("expected `stop` among the choices, got none of them")


def routed_agents(recipe: Recipe) -> Iterator[tuple[Step, str]]:
    """The steps that rules may route to another agent, each with that agent's name."""
    for rule in recipe.rules:
        if isinstance(rule.do, Route) and rule.do.agent is not None:
            yield recipe.step(rule.do.step), rule.do.agent


def query_error(
    text: str, rule_id: str, message: str, hint: str = "", *, file: str, line: int = 1, col: int = 1
) -> RecipeError:
    """An error about the query of a rule; `line` and `col`, from 1, are within the query, as a database says them."""
    root = read_tree(text, file=file).at("rules")
    rules: list[Node] = root.value
    node = next(rule.at("query") for rule in rules if rule.at("id").value == rule_id)
    if node.style == "|":
        shown = node.source.lines[node.line + line - 1 : node.line + line]
        indent = len(shown[0]) - len(shown[0].lstrip()) if shown else 0
        first = node.value.split("\n")[line - 1 : line]
        indent -= len(first[0]) - len(first[0].lstrip()) if first else 0
        return node.source.error(message, node.line + line, indent + col, hint)
    if node.style is None and node.end_line == node.line:
        return node.source.error(message, node.line, node.col + col - 1, hint)
    return node.error(message, hint)


def _check_route(recipe: Recipe, route: Route, node: Node) -> None:
    _check_step(recipe, route.step, node.at("step"))
    if recipe.step(route.step).reduce is not None:
        hint = "its parts are cut to fit the agent that it has; route the step that it reduces"
        raise node.at("step").error(f"expected a step without `reduce`, got `{route.step}`", hint)
    if route.agent is not None:
        _known(node.at("agent"), route.agent, recipe.agents, "agents")
    if route.model is not None:
        _known(node.at("model"), route.model, recipe.models, "models")


def _check_step(recipe: Recipe, step_id: str, node: Node) -> None:
    _known(node, step_id, [step.id for step in recipe.steps], "steps")


def _known(node: Node, name: str, choices: Iterable[str], what: str) -> None:
    names = list(choices)
    if name not in names:
        raise node.error(f"expected one of the {what}, got `{name}`", suggest(name, names, what))
