"""A recipe made ready to unfold: its parameters fixed, its steps in order, its matrices multiplied out.

A plan is immutable and knows nothing of a run; `gx.flow.graph` holds the two together.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from gx.core.errors import RecipeError
from gx.core.ids import canonical
from gx.core.message import Value
from gx.core.recipe import Recipe, Step
from gx.flow import answers, templates
from gx.flow.long import is_part, owner, step_of_parts
from gx.flow.source import Node

STATUS_FUNCTIONS = frozenset({"always", "all_ok", "any_ok"})
"""What `when` may ask of the steps before: run anyway, only if nothing failed, if at least one succeeded."""


class StepPlan(Value, frozen=True, kw_only=True):
    """A step and what follows from its text alone.

    `combos` are the matrix's combinations ([{}] without one), `agents` the agent of each. `gate` is the part of `when`
    that needs no item and is decided before any task is made; `filter` is a `when` that is decided for each task.
    `answers` are the steps whose answers about its own row a task reads, with the names that they go by. The tasks of
    `private_agents` stay on this machine: all of them, where the step is private.
    """

    step: Step
    combos: tuple[dict[str, Any], ...]
    agents: tuple[str, ...]
    gate: str | None
    filter: str | None
    ignores_failures: bool
    reads_steps: frozenset[str]
    answers: dict[str, tuple[str, ...]] = {}
    private_agents: frozenset[str] = frozenset()

    @property
    def id(self) -> str:
        return self.step.id

    def agent_of(self, matrix: dict[str, Any]) -> str:
        """The agent of the combination in `matrix`, which may hold those of earlier steps too."""
        if len(set(self.agents)) == 1:
            return self.agents[0]
        wanted = canonical({name: matrix[name] for name in self.step.matrix})
        return next(agent for combo, agent in zip(self.combos, self.agents, strict=True) if canonical(combo) == wanted)


class Plan(Value, frozen=True, kw_only=True):
    """A recipe with its parameters. `steps` are in an order in which every step follows what it needs."""

    recipe: Recipe
    params: dict[str, Any]
    steps: tuple[StepPlan, ...]

    def step(self, step_id: str) -> StepPlan:
        """The step of that id, or that of the parts of one. :raises KeyError: if there is none."""
        for found in self.steps:
            if found.step.id == step_id:
                return found
        if is_part(step_id):
            return step_of_parts(self.step(owner(step_id)))
        raise KeyError(step_id)

    @property
    def reads_inputs(self) -> bool:
        """Whether any step takes the input's rows."""
        return any(s.step.for_each == "inputs" for s in self.steps)


def make_plan(recipe: Recipe, params: dict[str, Any], root: Node | None = None) -> Plan:
    """The plan of `recipe` with `params` fixed; `root` is where the recipe was read, for the places of errors.

    :raises RecipeError: if a matrix names an agent that there is not, or a `when` can't be decided with these params.
    """
    steps = tuple(_step_plan(recipe, step) for step in _in_order(recipe.steps))
    for step in steps:
        _check_gate(step, params, root and root.at("steps", recipe.steps.index(step.step), "when"))
    return Plan(recipe=recipe, params=params, steps=steps)


def _in_order(steps: tuple[Step, ...]) -> list[Step]:
    ordered: list[Step] = []
    placed: set[str] = set()
    waiting = list(steps)
    while waiting:
        able = [step for step in waiting if placed.issuperset(step.needs)]
        if not able:
            raise RecipeError(f"the steps {', '.join(s.id for s in waiting)} need each other")
        for step in able:
            ordered.append(step)
            placed.add(step.id)
            waiting.remove(step)
    return ordered


def _step_plan(recipe: Recipe, step: Step) -> StepPlan:
    combos = tuple(dict(zip(step.matrix, values, strict=True)) for values in product(*step.matrix.values()))
    agents = tuple(templates.render(step.agent, {"matrix": combo}).strip() for combo in combos)
    for agent in agents:
        if agent not in recipe.agents:
            raise RecipeError(
                f"step `{step.id}` asks for the agent `{agent}`, and there is none",
                hint=f"the agents are: {', '.join(recipe.agents)}",
            )
    used = templates.names_in(step.when, is_expression=True) if step.when else frozenset()
    is_gate = used <= STATUS_FUNCTIONS | {"params"}
    recalls = [recall for name in agents if (recall := step.recall(recipe.agents[name])) is not None]
    texts = [t for t in (step.prompt, step.combine) if t]
    texts += [t for recall in recalls for t in (recall.namespace, recall.query) if t]
    texts += [] if step.remember is None else [step.remember.namespace, step.remember.text]
    reads = frozenset().union(*(templates.members_in(t, "steps") for t in texts)) if texts else frozenset()
    if step.when:
        reads |= templates.members_in(step.when, "steps", is_expression=True)
    return StepPlan(
        step=step,
        combos=combos,
        agents=agents,
        gate=step.when if step.when and is_gate else None,
        filter=step.when if step.when and not is_gate else None,
        ignores_failures="always" in used,
        reads_steps=reads,
        answers=answers.read_by(
            recipe, step, [*texts, *(["{{ " + templates.bare(step.when) + " }}"] if step.when else [])]
        ),
        private_agents=frozenset(name for name in agents if step.private or recipe.agents[name].private),
    )


def _check_gate(step: StepPlan, params: dict[str, Any], node: Node | None) -> None:
    """Decide the gate for each answer that the status functions can give, so that no run finds out that it can't be.

    One that reads a parameter which isn't there yet is left for later.
    """
    if step.gate is None or not params.keys() >= templates.members_in(step.gate, "params", is_expression=True):
        return
    yes, no = (lambda: True), (lambda: False)
    for all_ok, any_ok in product((yes, no), repeat=2):
        names = {"always": yes, "all_ok": all_ok, "any_ok": any_ok, "params": params}
        try:
            templates.holds(step.gate, names)
        except templates.TemplateFailure as error:
            message = f"the `when` of step `{step.id}`: {error.message}"
            raise (RecipeError(message) if node is None else node.error(message)) from None
