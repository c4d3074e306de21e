"""Where a task waits: the queues of a run that the scheduler reads, and the place for tasks of paused steps.

Only the fold calls these. The invariant: a task that may be prepared or granted stands in the one queue of its state;
one of a paused step, or a part of one of its prompts, stands in `parked` instead, so that whoever reads the queues
needn't know of pauses.
"""

from __future__ import annotations

from gx.core.task import Status
from gx.core.view import RunState, TaskState

LOSSES_BEFORE_ALONE = 2
"""A task lost this often runs alone; lost alone this often, it fails as `crashed` (DESIGN §3)."""


def enqueue(run: RunState, task: TaskState, not_before: float = 0.0) -> None:
    """Put the task where its state says, and nowhere else; 0 for `not_before` is no wait."""
    leave_queues(run, task)
    if step_of(run, task) in run.paused_steps:
        run.parked[task.id] = not_before
    elif task.status is Status.queued:
        run.unprepared[task.id] = None
        if task.part_of is not None:  # another one waits for it, and may stand before it
            run.unprepared.move_to_end(task.id, last=False)
    elif not_before:
        run.delayed[task.id] = not_before
    elif task.losses >= LOSSES_BEFORE_ALONE:
        run.suspects[task.id] = None
    else:
        is_overtaken = bool(run.ready) and task.order < run.tasks[next(reversed(run.ready))].order
        run.ready[task.id] = None
        if is_overtaken:  # its preparation took longer than that of others: its row has waited longest
            run.ready.move_to_end(task.id, last=False)


def leave_queues(run: RunState, task: TaskState) -> None:
    """Take the task out of whichever queue it stands in."""
    run.unprepared.pop(task.id, None)
    run.ready.pop(task.id, None)
    run.delayed.pop(task.id, None)
    run.suspects.pop(task.id, None)
    run.parked.pop(task.id, None)


def park(run: RunState, step: str) -> None:
    """Take what waits of a step that was just paused out of the way."""
    waiting = [*run.unprepared, *run.ready, *run.delayed, *run.suspects]
    for task in (run.tasks[task_id] for task_id in waiting):
        if step_of(run, task) == step:
            enqueue(run, task, run.delayed.get(task.id, 0.0))


def unpark(run: RunState, step: str) -> None:
    """Put what waited of a step that goes on back, in the order in which its tasks were made."""
    waiting = sorted((run.tasks[task_id] for task_id in run.parked), key=lambda task: task.order)
    for task in waiting:
        if step_of(run, task) == step:
            enqueue(run, task, run.parked[task.id])


def step_of(run: RunState, task: TaskState) -> str:
    """The step of the recipe that a task serves: its own, or that of the task whose prompt it is a part of."""
    return task.step if task.part_of is None else run.tasks[task.part_of].step
