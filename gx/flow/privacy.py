"""What of a plan is private, as far as its text says: before anything is rendered, and by the same words after.

`steps_private` is a forecast: whether a task may travel is found out when its turn is made, by `gx.run.labels`. What it
calls private is private then, but for what a template names and doesn't use; a private field within another one, which
is read whole, it can't know of.
"""

from __future__ import annotations

from collections.abc import Iterator

from gx.core.message import Value
from gx.core.recipe import Agent, Recipe, Step
from gx.flow import answers
from gx.flow.memories import NAME
from gx.flow.plan import Plan, StepPlan
from gx.flow.reads import fields_in

_SAYS = {"custom_id": "id", "path": "id", "id": "path"}
"""Fields that an input makes of others: the id of a batch row is its custom_id, that of a file its path in a folder."""


class Outlook(Value, frozen=True, kw_only=True):
    """What a step's tasks read, as paths, and why they are private: empty if they may leave, with what they read.

    Whether they are `depends` on which memories are found, where nothing else makes them private.
    """

    reads: tuple[str, ...]
    reason: str
    depends: bool = False


def private_fields(recipe: Recipe) -> frozenset[str]:
    """The names of fields of a row that never leave, those included that say the same."""
    return frozenset(recipe.private) | {_SAYS[name] for name in recipe.private if name in _SAYS}


def has_private(recipe: Recipe) -> bool:
    """Whether anything that the recipe names may be private: it is marked so, or comes from the memory."""
    agents, steps = recipe.agents.values(), recipe.steps
    is_marked = bool(recipe.private) or any(a.private for a in agents) or any(s.private for s in steps)
    return is_marked or any(a.memory is not None for a in agents) or any(s.memory is not None for s in steps)


def marked(step: Step, agent: Agent) -> str:
    """Why all tasks of that step with that agent are private; empty if they aren't."""
    if step.private:
        return f"step {step.id} is private"
    return f"agent {agent.name} is private" if agent.private else ""


def reads(plan: Plan, step: StepPlan, agent: Agent, *, level: int = 0) -> tuple[str, ...]:
    """The paths that a task of the step reads, of a reduce at that `level`."""
    recall = step.step.recall(agent)
    texts = {step.step.prompt or "", agent.persona}
    if recall is not None:
        texts |= {recall.namespace, recall.query or ""}
    if level:
        texts = {step.step.combine or "{{ items }}", agent.persona}
    found = frozenset().union(*(fields_in(text) for text in texts))
    if step.step.prompt is None and step.step.reduce is None:
        found |= {"item.body", "item.messages"}
    if step.filter is not None:
        found |= fields_in(step.filter, is_expression=True)
    if recall is not None:
        found = frozenset(path for path in found if path.partition(".")[0] != NAME) | {NAME}
    return tuple(sorted(found))


def steps_private(plan: Plan) -> dict[str, Outlook]:
    """The outlook of each step, in the order of the plan."""
    found: dict[str, Outlook] = {}
    for step in plan.steps:
        agents = [plan.recipe.agents[name] for name in dict.fromkeys(step.agents)]
        paths = sorted({path for agent in agents for path in _of_others(plan, step, agent)})
        reasons = [(marked(step.step, agent), False) for agent in agents]
        reasons += [_why(plan, step, path, found) for path in paths]
        told = sorted((depends, place, why) for place, (why, depends) in enumerate(reasons) if why)
        depends, _, reason = told[0] if told else (False, 0, "")
        found[step.id] = Outlook(reads=tuple(paths), reason=reason, depends=depends)
    return found


def _of_others(plan: Plan, step: StepPlan, agent: Agent) -> Iterator[str]:
    """The paths to what the step itself didn't make: above its first level, the items of a reduce are its own."""
    yield from reads(plan, step, agent)
    if step.step.reduce is not None:
        yield from (path for path in reads(plan, step, agent, level=1) if path.partition(".")[0] != "items")


def _why(plan: Plan, step: StepPlan, path: str, before: dict[str, Outlook]) -> tuple[str, bool]:
    """Why a path is private, empty if it isn't or says nothing that could be, and whether that depends on what is found
    in the memory.
    """
    root, *fields = path.split(".")
    if root == NAME:
        return f"reads {NAME}, which are private unless they are marked as shared", True
    source = {"item": step.step.for_each, "items": step.step.reduce, "input": "inputs", "id": "inputs"}.get(root)
    if root in ("steps", answers.NAME):
        source, fields = (fields[0], fields[1:]) if fields else (None, [])
        sources = [source] if source else list(step.step.needs)
    else:
        sources = [source] if source else []
    hits: list[tuple[bool, str]] = []
    for name in sources:
        depends = False
        if name == "inputs" or root == "id":
            private = private_fields(plan.recipe)
            is_private = "id" in private and bool(step.step.for_each) if root == "id" else _is_of_row(fields, private)
        else:
            outlook, share = before.get(name), plan.step(name).step.share
            if root == answers.NAME:
                fields = fields[len(step.answers.get(name, ())) :]
            is_open = share is True or (share and fields and fields[0] in share)
            is_private = outlook is not None and bool(outlook.reason) and not is_open
            depends = outlook is not None and outlook.depends
        if is_private:
            made = "" if name == "inputs" else f", made by {name}, which is private"
            hits.append((depends, f"reads {path}{made}"))
    depends, reason = min(hits, key=lambda hit: hit[0], default=(False, ""))
    return reason, depends


def _is_of_row(fields: list[str], private: frozenset[str]) -> bool:
    return bool(private) and (not fields or not private.isdisjoint(fields))
