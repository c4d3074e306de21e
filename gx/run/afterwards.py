"""What becomes of what a person, or a rule, wanted of a run while its last word was on its way into the log. Pure.

Nothing of it may make a run that is over look as if it weren't, and nothing that counts when the run goes on is lost.
"""

from __future__ import annotations

from collections.abc import Iterable

from gx.core import event as e
from gx.core.view import RunState, RunStatus

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
