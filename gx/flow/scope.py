"""Which names a template of a recipe may use, checked before anything runs.

`scope_of` says what a step's templates see; `check_template` holds a template against it. What a value is at run time
is unknown here: only names, and the first part behind `params.`, `steps.` and `matrix.`, are looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2 import meta, nodes

from gx.core.errors import RecipeError
from gx.core.recipe import Recipe, Step
from gx.flow import answers
from gx.flow.plan import STATUS_FUNCTIONS
from gx.flow.source import Node, suggest
from gx.flow.templates import ENVIRONMENT, bare

_OTHER_FILES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_MEMBERS = {
    "params": ("a declared parameter", "parameters"),
    "steps": ("a step that this one needs", "steps among the needs"),
    "matrix": ("a name of the matrix", "names in the matrix"),
    "answers": ("a step that this one needs and that goes by rows", "steps among the needs that go by rows"),
}
_IN_A_STEP = {
    "item": "`item` is there only in a step with `for_each`",
    "input": "`input` is there only where a chain of `for_each` begins with `inputs`",
    "items": "`items` is there only in a step with `reduce`",
    "answers": "`answers` is there only where a chain of `for_each` begins with `inputs`",
    "memories": "`memories` is there only where the step or its agent has a `memory`",
    "output": "`output` is there only in what is remembered",
    "agents": "templates may read `steps.x`, not agents",
} | {name: f"`{name}()` may be asked in `when` only" for name in STATUS_FUNCTIONS}
_IN_A_PERSONA = dict.fromkeys((*_IN_A_STEP, "steps", "index", "id"), "a persona may use `params` and `matrix` only")


@dataclass(frozen=True)
class Scope:
    """The names that a template may use, and what may stand behind `params.`, `steps.` and `matrix.`."""

    names: frozenset[str]
    members: dict[str, frozenset[str]]
    hints: dict[str, str]
    """Why a name or a member ("steps.x") that one might expect isn't there."""


def scope_of(recipe: Recipe, step: Step, *more: str) -> Scope:
    """What the templates of `step` may use, and these names; `when` has the status functions besides."""
    names = {"params", "steps", "matrix", "index", "id", *more}
    names |= {"item"} if step.for_each is not None else set()
    names |= {"input", answers.NAME} if answers.levels(recipe, step) is not None else set()
    names |= {"items"} if step.reduce is not None else set()
    members = {"params": frozenset(recipe.params), "steps": frozenset(step.needs), "matrix": frozenset(step.matrix)}
    members[answers.NAME] = frozenset(n for n in step.needs if answers.can_be_asked(recipe, recipe.step(n)))
    others = [other.id for other in recipe.steps if other.id not in step.needs]
    hints = {f"{of}.{other}": f"add `{other}` to the step's `needs`" for other in others for of in ("steps", "answers")}
    return Scope(frozenset(names), members, _IN_A_STEP | hints)


def persona_scope(recipe: Recipe, users: list[Step]) -> Scope:
    """What a persona may use: the parameters, and what the matrices of all steps with that agent share."""
    shared = frozenset.intersection(*(frozenset(step.matrix) for step in users)) if users else frozenset()
    hints = {
        f"matrix.{name}": f"step `{step.id}` uses this agent and its matrix has no `{name}`"
        for step in reversed(users)
        for other in users
        for name in other.matrix
        if name not in step.matrix
    }
    return Scope(
        frozenset({"params", "matrix"}), {"params": frozenset(recipe.params), "matrix": shared}, _IN_A_PERSONA | hints
    )


def check_template(node: Node, scope: Scope, *, is_expression: bool = False) -> None:
    """Check the template at `node`. :raises RecipeError: if it can't be parsed, or uses a name out of its scope."""
    text: str = node.value
    try:
        tree = ENVIRONMENT.parse("{{ " + bare(text) + " }}" if is_expression else text)
        _check_tools(node, tree)
        names = meta.find_undeclared_variables(tree)
        if is_expression:
            ENVIRONMENT.compile_expression(bare(text))
        else:
            ENVIRONMENT.compile(text)
    except jinja2.TemplateSyntaxError as error:
        raise _unreadable(node, error) from None
    except (RecursionError, ValueError, OverflowError, SyntaxError, MemoryError) as error:
        what = "nested less deeply" if isinstance(error, RecursionError | SyntaxError) else "that can be compiled"
        raise node.error(f"expected a template {what}") from None
    allowed = scope.names | (STATUS_FUNCTIONS if is_expression else frozenset())
    for name in sorted(names - allowed):
        hint = scope.hints.get(name) or suggest(name, sorted(allowed), "names that it may use")
        used = next((found.lineno for found in tree.find_all(nodes.Name) if found.name == name), 1)
        raise _placed(node, name, used, f"expected a name that is known here, got `{name}`", hint)
    _check_members(node, tree, scope, names)


def _check_tools(node: Node, tree: nodes.Template) -> None:
    """Refuse what Jinja2 could do and a recipe must not: other files, and powers, which can take forever to fold."""
    for found in tree.find_all(_OTHER_FILES):
        raise _placed(node, "", found.lineno, "expected a template that stands alone, got one that reads another file")
    for power in tree.find_all(nodes.Pow):
        raise _placed(node, "", power.lineno, "expected no powers in a template, got `**`")


def _check_members(node: Node, tree: nodes.Template, scope: Scope, names: set[str]) -> None:
    for found in tree.find_all((nodes.Getattr, nodes.Getitem)):
        if not isinstance(found.node, nodes.Name) or found.node.name not in names & scope.members.keys():  # type: ignore[attr-defined]
            continue
        owner, member = found.node.name, _member(found)  # type: ignore[attr-defined]
        known = scope.members[owner]
        if member is not None and member not in known:
            one, many = _MEMBERS[owner]
            hint = scope.hints.get(f"{owner}.{member}") or suggest(member, sorted(known), many)
            raise _placed(node, member, found.lineno, f"expected {one}, got `{owner}.{member}`", hint)


def _member(found: Any) -> str | None:
    """The name behind the dot or in the brackets; `None` if it is computed."""
    if isinstance(found, nodes.Getattr):
        return found.attr
    return found.arg.value if isinstance(found.arg, nodes.Const) and isinstance(found.arg.value, str) else None


def _unreadable(node: Node, error: jinja2.TemplateSyntaxError) -> RecipeError:
    message = (error.message or "it can't be parsed").rstrip(".")
    named = re.fullmatch(r"No (filter|test) named '(.*)'", message)
    if named is None:
        return _placed(node, "", error.lineno, f"this isn't a Jinja2 template: {message}", "")
    kind, name = named.groups()
    hint = suggest(name, ENVIRONMENT.filters if kind == "filter" else ENVIRONMENT.tests, f"{kind}s")
    return _placed(node, name, error.lineno, f"expected a {kind} that there is, got `{name}`", hint)


def _placed(node: Node, word: str, template_line: int, message: str, hint: str = "") -> RecipeError:
    """An error at `word` in the template's `template_line`, as near as YAML's own line breaks let it be known."""
    lines = node.source.lines
    first, last = node.line, node.end_line
    if node.style == "|":
        first = last = min(node.line + template_line, len(lines))
    for number in range(first, min(last, len(lines)) + 1):
        line = lines[number - 1]
        begin = node.col - 1 if number == node.line else 0
        begin = max(begin, line.find("{", begin))
        if word and (match := re.compile(rf"(?<!\w){re.escape(word)}(?!\w)").search(line, begin)):
            return node.source.error(message, number, match.start() + 1, hint)
    if node.style == "|":
        line = lines[first - 1]
        return node.source.error(message, first, len(line) - len(line.lstrip()) + 1, hint)
    return node.error(message, hint)
