"""How a plan unfolds: events in, tasks out. Pure, and the same on replay.

`expand` makes the tasks of rows as they are read; `unfold` makes everything else that follows: steps whose needs have
ended, the next level of a reduce, and whatever a crash left unmade. Ids are digests of the place in the plan, and a
task that exists is not made again. A step waits for the whole of what it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from gx.core import event as e
from gx.core.ids import task_id
from gx.core.message import Label, Value
from gx.core.task import Status
from gx.core.view import RunState, StepState, TaskState
from gx.flow import templates
from gx.flow.plan import Plan, StepPlan

TASK_ENDS = (e.TaskSucceeded, e.TaskFailed, e.TaskCancelled, e.TaskSkipped)
"""The events that bring a task to its end."""


class Grouping(Value, frozen=True, kw_only=True):
    """A level of a reduce that is to be cut into groups that fit: level `level` over `below`, in order."""

    step: str
    level: int
    below: tuple[e.Ref, ...]


def expand(plan: Plan, run: RunState, rows: e.InputsRead) -> list[e.Body]:
    """The tasks of rows that were just read, for the steps that take rows and have begun."""
    return [
        body
        for step in plan.steps
        if step.step.for_each == "inputs" and not run.step(step.id).is_unfolded and _may_begin(plan, run, step)
        if _closed_gate(plan, run, step) is None
        for body in _missing(run, step, map(of_row, rows.rows))
    ]


def may_unfold(run: RunState, cause: e.Body) -> bool:
    """Whether `unfold` may have something to add after `cause`, which has been folded into `run`."""
    if isinstance(cause, TASK_ENDS):
        state = run.steps[run.tasks[cause.task].step]
        return state.is_unfolded and state.live == 0
    return isinstance(cause, e.InputsEnded | e.StepUnfolded | e.StepSkipped | e.StepGrouped)


def unfold(plan: Plan, run: RunState) -> list[e.Body]:
    """All that should exist and doesn't. To be called when nothing that was decided waits for its commit."""
    return [body for step in plan.steps for body in _unfold(plan, run, step)]


def groupings(plan: Plan, run: RunState) -> list[Grouping]:
    """The reduces whose next level can be cut now: what they need has ended, and so has the level below."""
    found = []
    for step in plan.steps:
        state = run.step(step.id)
        if step.step.reduce is None or is_complete(plan, run, step) or not _may_begin(plan, run, step):
            continue
        if _closed_gate(plan, run, step):
            continue
        level = len(state.levels)
        if level == 0:
            below = run.step(step.step.reduce).successes(_result_level(plan, run, step.step.reduce))
        elif state.is_unfolded and state.live == 0:
            below = state.successes(level - 1)
        else:
            continue
        found.append(Grouping(step=step.id, level=level, below=tuple(t.output for t in below if t.output)))
    return found


def is_complete(plan: Plan, run: RunState, step: StepPlan) -> bool:
    """Whether nothing more can come of the step."""
    state = run.step(step.id)
    if state.skipped is not None:
        return True
    if not state.is_unfolded or state.live:
        return False
    if step.step.reduce is None:
        return True
    if not state.levels:
        return False
    top = len(state.levels) - 1
    return len(state.levels[top]) <= 1 or not state.successes(top)


def is_finished(plan: Plan, run: RunState) -> bool:
    """Whether every step is complete."""
    return run.live == 0 and all(is_complete(plan, run, step) for step in plan.steps)


def results(plan: Plan, run: RunState, step_id: str) -> list[TaskState]:
    """The tasks that speak for a step, in order: all of a fan-out, the last level of a reduce."""
    level = _result_level(plan, run, step_id)
    chosen = [t for t in run.step(step_id).tasks if level is None or t.level == level]
    chosen.sort(key=lambda t: (t.index, t.order))
    return chosen


def _result_level(plan: Plan, run: RunState, step_id: str) -> int | None:
    if plan.step(step_id).step.reduce is None:
        return None
    return max(len(run.step(step_id).levels) - 1, 0)


# ── whether a step may begin ─────────────────────────────────────────────────────────────────────────────────────


def _may_begin(plan: Plan, run: RunState, step: StepPlan) -> bool:
    return all(is_complete(plan, run, plan.step(need)) for need in step.step.needs)


def _failures(plan: Plan, run: RunState, step_id: str) -> int:
    """Failures that count against what follows: none of a step with `continue_on_error`."""
    if plan.step(step_id).step.continue_on_error:
        return 0
    ended = run.step(step_id).ended
    return ended.get(Status.failed, 0) + ended.get(Status.cancelled, 0)


def _successes(run: RunState, step_id: str) -> int:
    return run.step(step_id).ended.get(Status.succeeded, 0)


def status_names(plan: Plan, run: RunState, step: StepPlan) -> dict[str, object]:
    """`always()`, `all_ok()` and `any_ok()` as this step may ask them now."""
    needs = step.step.needs
    return {
        "always": lambda: True,
        "all_ok": lambda: all(_failures(plan, run, n) == 0 and run.step(n).skipped is None for n in needs),
        "any_ok": lambda: any(_successes(run, n) > 0 for n in needs),
    }


def _closed_gate(plan: Plan, run: RunState, step: StepPlan) -> str | None:
    """Why the step must not run, given that what it needs has ended; `None` if it may."""
    if not step.ignores_failures:
        for need in step.step.needs:
            if _successes(run, need) == 0:
                return f"nothing of `{need}` succeeded"
    names = status_names(plan, run, step) | {"params": plan.params}
    if step.gate is not None and not templates.holds(step.gate, names):
        return f"when: {step.gate}"
    return None


# ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _unfold(plan: Plan, run: RunState, step: StepPlan) -> Iterator[e.Body]:
    state = run.step(step.id)
    if state.skipped is not None or not _may_begin(plan, run, step):
        return
    if step.step.reduce is not None:
        if not state.levels:
            if (reason := _closed_gate(plan, run, step)) is not None:
                yield e.StepSkipped(run=run.id, step=step.id, reason=reason)
            return
        if not state.is_unfolded:
            yield from _span_tasks(run, step, state)
        return
    if state.is_unfolded:
        return
    if (reason := _closed_gate(plan, run, step)) is not None:
        yield e.StepSkipped(run=run.id, step=step.id, reason=reason)
        return
    if step.step.for_each == "inputs":
        yield from _missing(run, step, map(of_row, run.rows))
        if not run.inputs_ended:
            return
        count = len(run.rows)
    elif step.step.for_each is not None:
        items = run.step(step.step.for_each).successes(_result_level(plan, run, step.step.for_each))
        yield from _missing(run, step, map(_of_task, items))
        count = len(items)
    else:
        yield from _missing(run, step, [of_nothing(step)])
        count = 1
    yield e.StepUnfolded(run=run.id, step=step.id, tasks=count * len(step.combos))


class Origin(Value, frozen=True):
    """What the tasks of a step are made from, one for each combination: a row, an earlier task, or nothing."""

    path: str
    index: int
    row_id: str
    item: e.Ref | None = None
    input: e.Ref | None = None
    matrix: dict[str, Any] = {}
    error: str | None = None
    is_batch: bool = False


def of_row(row: e.InputRow) -> Origin:
    """A row of the input."""
    return Origin(str(row.index), row.index, row.id, row.item, row.item, {}, row.error, row.is_batch)


def of_nothing(step: StepPlan) -> Origin:
    """A step without `for_each`."""
    return Origin("", 0, step.id)


def _of_task(task: TaskState) -> Origin:
    return Origin(task.path, task.index, task.row_id, task.output, task.input, task.matrix or {})


def queued(run_id: str, step: StepPlan, origin: Origin, combo: dict[str, Any]) -> e.TaskQueued:
    """The task of that combination; its id is a digest of its place."""
    path = "/".join([origin.path, *(f"{name}={value}" for name, value in combo.items())])
    matrix = origin.matrix | combo if origin.matrix else combo
    return e.TaskQueued(
        run=run_id,
        task=task_id(run_id, step.id, path),
        step=step.id,
        path=path,
        index=origin.index,
        id=origin.row_id,
        item=origin.item,
        input=origin.input,
        error=origin.error,
        is_batch=origin.is_batch,
        matrix=matrix,
        label=_label(step, matrix),
    )


def _label(step: StepPlan, matrix: dict[str, Any]) -> Label:
    """What is known of the task's label before its turn is made: whether its agent or step is private."""
    is_private = bool(step.private_agents) and step.agent_of(matrix) in step.private_agents
    return Label.private if is_private else Label.shared


def _missing(run: RunState, step: StepPlan, origins: Iterable[Origin]) -> Iterator[e.Body]:
    bodies = (queued(run.id, step, origin, combo) for origin in origins for combo in step.combos)
    return (body for body in bodies if body.task not in run.tasks)


def _span_tasks(run: RunState, step: StepPlan, state: StepState) -> Iterator[e.Body]:
    level = len(state.levels) - 1
    for number, span in enumerate(state.levels[level]):
        place = f"{level}.{number}"
        if (made := task_id(run.id, step.id, place)) not in run.tasks:
            yield e.TaskQueued(
                run=run.id,
                task=made,
                step=step.id,
                path=place,
                index=number,
                id=step.id,
                level=level,
                span=span,
                label=_label(step, {}),
            )
    yield e.StepUnfolded(run=run.id, step=step.id, tasks=len(state.levels[level]), level=level)
