"""How a run stands, and how it ended, in figures for people: functions of its state and its plan."""

from __future__ import annotations

from gx.core.errors import GxError
from gx.core.task import Status
from gx.core.view import RunState, RunStatus
from gx.flow.plan import Plan
from gx.node.client import Progress, RunEnd

FIRST_ERRORS = 5


def progress_of(state: RunState, plan: Plan, *, elapsed_s: float) -> Progress:
    """The run at a glance."""
    counted = {status: state.count(status) for status in Status}
    return Progress(
        done=sum(counted.values()),
        failed=counted[Status.failed],
        reused=state.reused,
        running=len(state.leased),
        total=len(state.tasks),
        is_total_final=all(s.id in state.steps and state.steps[s.id].is_unfolded for s in plan.steps),
        tokens_in=state.tokens_in,
        tokens_out=state.tokens_out,
        elapsed_s=elapsed_s,
    )


def end_of(
    state: RunState,
    plan: Plan,
    *,
    seconds: float,
    reason: str = "",
    warnings: list[str] | None = None,
    error: GxError | None = None,
) -> RunEnd:
    """How the run ended; `reason` is why it was made to."""
    tolerant = {s.id for s in plan.steps if s.step.continue_on_error}
    failed = [t for t in state.tasks.values() if t.status is Status.failed]
    excused = sum(t.step in tolerant for t in failed)
    return RunEnd(
        run=state.id,
        is_streamed=state.created.is_streamed,
        status=state.status,
        limit=state.stopped_by if state.status is RunStatus.stopped else "",
        reason=reason,
        succeeded=state.count(Status.succeeded),
        failed=len(failed) - excused,
        excused=excused,
        skipped=state.count(Status.skipped),
        cancelled=state.count(Status.cancelled),
        left=state.live,
        reused=state.reused,
        tokens_in=state.tokens_in,
        tokens_out=state.tokens_out,
        seconds=seconds,
        skipped_steps={s.id: s.skipped for s in state.steps.values() if s.skipped},
        first_errors=[(t.row_id, *t.error) for t in failed[:FIRST_ERRORS] if t.error],
        warnings=warnings or [],
        error=error,
    )
