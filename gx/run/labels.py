"""What a template may know without reading anything private: the values of a task with the private parts left out.

A turn is made twice where a recipe marks anything as private: with all its values, and with these. If it comes out the
same, nothing private is in it; else it is private. The label of what a task was made from is that of the events, so it
outlives the node, and a task that was answered from the log has the label of what it read itself.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gx.core.ids import task_id
from gx.core.message import Label
from gx.core.recipe import Agent
from gx.core.view import RunState, TaskState
from gx.flow import privacy
from gx.flow.grammar import INPUTS
from gx.flow.long import is_part, note_taker, owner
from gx.flow.plan import Plan, StepPlan
from gx.flow.withheld import Withheld, named_in, result_without, row_without


def agent_of(plan: Plan, run: RunState, task: TaskState) -> Agent:
    """The agent that works on the task now: the one that its step names, unless that was routed."""
    step, route = plan.step(owner(task.step)), run.routes.get(owner(task.step))
    agent = plan.recipe.agents[(route and route.agent) or step.agent_of(task.matrix or {})]
    if route is not None and route.model is not None:
        agent = msgspec.structs.replace(agent, model=route.model)
    return note_taker(agent) if is_part(task.step) else agent


class Labels:
    """What of the values of one run's tasks may be known. Where nothing `is_marked` in the recipe, all may."""

    def __init__(self, plan: Plan, run: RunState) -> None:
        self._plan, self._run = plan, run
        self._private = privacy.private_fields(plan.recipe)
        self.is_marked = privacy.has_private(plan.recipe)

    def row(self, value: Any, path: str) -> Any:
        """What may be known of a row. A batch row says things twice, so it's all private where a name of it is."""
        if not self._private:
            return value
        if value.keys() >= {"messages", "body", "text"}:
            name = named_in(value, self._private)
            return Withheld(f"{path}.{name}") if name or "id" in self._private else value
        return row_without(value, self._private, path)

    def row_id(self, value: str, step: StepPlan) -> Any:
        """What may be known of a row's id, which a task over results has too."""
        return Withheld("id") if step.step.for_each is not None and "id" in self._private else value

    def result(self, value: Any, of: TaskState | None, path: str) -> Any:
        """What may be known of the result of a task; `None` for one that nothing is known of."""
        if of is not None and of.label is Label.shared:
            return value
        share = () if of is None else self._plan.step(of.step).step.share
        return value if share is True else result_without(value, share or (), path)

    def item(self, value: Any, task: TaskState, step: StepPlan) -> Any:
        """What may be known of what a task was made for: a row, or a result of an earlier step."""
        source = step.step.for_each
        if source is None or source == INPUTS:
            return self.row(value, "item")
        own = "".join(f"/{name}={(task.matrix or {})[name]}" for name in step.step.matrix)
        made_by = self._run.tasks.get(task_id(self._run.id, source, task.path.removesuffix(own)))
        return self.result(value, made_by, "item")
