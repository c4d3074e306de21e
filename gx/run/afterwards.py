"""What becomes of what a person, or a rule, wanted of a run while something else was on its way into the log. Pure.

Nothing of it may make a run that is over look as if it weren't, and nothing that counts when the run goes on is lost.
"""

from __future__ import annotations

from collections.abc import Iterable

from gx.core import event as e
from gx.core.renting import can_switch
from gx.core.view import RunState, RunStatus, View

_STEERING = (
    e.QuestionAsked,
    e.BurstAsked,
    e.RunPaused,
    e.RunContinued,
    e.RunChanged,
    e.StepPaused,
    e.StepContinued,
    e.StepRouted,
    e.BurstAllowed,
    e.QuestionAnswered,
    e.StopAsked,
)


def still_meant(pending: Iterable[e.Body], view: View) -> list[e.Body]:
    """What of `pending` is to be written as the `view` is by now.

    Not so terms that were asked for while what they don't go with was written: containers of the other kind.
    """
    return [body for body in pending if not isinstance(body, e.BurstAllowed) or _may_switch(body, view)]


def _may_switch(allowed: e.BurstAllowed, view: View) -> bool:
    run = view.runs.get(allowed.run)
    return run is None or can_switch(run, allowed.terms)


def kept(pending: Iterable[e.Body], run: RunState) -> list[e.Body]:
    """What is still to be written of `pending` now that the run has ended."""
    is_over = run.status in (RunStatus.finished, RunStatus.cancelled)
    return [after for body in pending if (after := _after(body, run, is_over=is_over)) is not None]


def _after(body: e.Body, run: RunState, *, is_over: bool) -> e.Body | None:
    if not isinstance(body, _STEERING) or body.run != run.id:
        return body
    if is_over or isinstance(body, e.RunPaused | e.RunContinued):
        return None
    if isinstance(body, e.StopAsked):  # as where a run that isn't live is told to stop
        return e.RunStopped(run=run.id, limit="rule", reason=f"{body.reason} (asked by {body.by})")
    return body
