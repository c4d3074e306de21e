"""How a run stands, and how it ended, in figures for people: functions of its state and its plan."""

from __future__ import annotations

from gx.core import event as e
from gx.core.errors import GxError, NotFound, UsageError
from gx.core.task import Status
from gx.core.view import RunState, RunStatus
from gx.flow.long import owner
from gx.flow.plan import Plan
from gx.flow.source import suggest
from gx.node.client import OpenQuestion, Progress, RunEnd
from gx.run import rules
from gx.run.long import telling
from gx.run.rent import cap

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
        notes=(*rules.notes(state), *telling.notes(state), *_of_renting(state)),
        questions=tuple(map(question_of, state.questions.values())),
        paused_steps=tuple(state.paused_steps),
        waits=waits_for_person(state),
    )


def waits_for_person(state: RunState) -> bool:
    """Whether nothing of the run runs, or can, before a person has answered or let a step go on."""
    if state.status is not RunStatus.running or state.leased:
        return False
    is_idle = not (state.unprepared or state.ready or state.delayed or state.suspects)
    return bool(state.questions) or (bool(state.parked) and is_idle)


def question_of(asked: e.QuestionAsked) -> OpenQuestion:
    """The question as a client has it."""
    return OpenQuestion(question=asked.question, text=asked.text, choices=asked.choices, by=asked.by)


def chosen(state: RunState, question: str | None, choice: str) -> e.QuestionAsked:
    """The question that is answered: that one, or the oldest.

    :raises NotFound: if the run asks none of that name. :raises UsageError: if that is no choice.
    """
    if question is not None and question not in state.questions:
        hint = suggest(question, state.questions, "open questions")
        raise NotFound(f"the run {state.id} has no open question {question}", hint=hint)
    if not state.questions:
        raise NotFound(f"the run {state.id} asks nothing", hint="`gx ps` lists what runs")
    asked = state.questions[question] if question is not None else next(iter(state.questions.values()))
    if choice not in asked.choices:
        hint = suggest(choice, asked.choices, "choices")
        raise UsageError(f"expected an answer to {asked.question!r}, got {choice!r}", hint=hint)
    return asked


def continuations(state: RunState, by: str) -> list[e.Body]:
    """What lets a paused run, and the steps of it that are paused, go on."""
    run = [e.RunContinued(run=state.id, by=by)] if state.is_paused else []
    return [*run, *(e.StepContinued(run=state.id, step=step, by=by) for step in state.paused_steps)]


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
    excused = sum(owner(t.step) in tolerant for t in failed)
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
        warnings=[*(warnings or ()), *telling.sums(state)],
        error=error,
        questions=tuple(map(question_of, state.questions.values())),
        paused_steps=tuple(state.paused_steps),
    )


def _of_renting(state: RunState) -> list[str]:
    """What was decided about renting, and why nothing could be, for who follows the run."""
    if state.rent is None:
        return []
    told = [] if state.rent.verdict is None else [f"placement: {state.rent.verdict.reason}"]
    if state.rent.refused is not None:
        told.append(f"nothing could be rented, and the run goes on here: {state.rent.refused.reason}")
    if state.rent.capped is not None:
        told.append(cap.note(state.rent.capped))
    return told
