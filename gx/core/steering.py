"""The fold of what steers a run while it goes on: rules that fired, paused and routed steps, questions to a person.

Each function is the state after one event, as in `gx.core.projection`, which calls them. Whether a rule can fire again,
and what is open, follows from events alone, so that it outlives the node that asked the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gx.core import event as e
from gx.core.queues import park, unpark
from gx.core.view import RunState

MOST_ERRORS = 20
"""Errors of one rule that are told apart: a rule that fails otherwise each time is not worth a log full of it."""


def _rule_fired(run: RunState, body: e.RuleFired) -> None:
    rule = run.rule(body.rule)
    rule.is_true, rule.fired, rule.fired_at, rule.did = True, rule.fired + 1, body.at, body.action


def _rule_cleared(run: RunState, body: e.RuleCleared) -> None:
    run.rule(body.rule).is_true = False


def _rule_failed(run: RunState, body: e.RuleFailed) -> None:
    errors = run.rule(body.rule).errors
    if len(errors) < MOST_ERRORS:
        errors.setdefault(body.message, body.detail)


def _step_paused(run: RunState, body: e.StepPaused) -> None:
    if body.step not in run.paused_steps:
        run.paused_steps[body.step] = body.by
        park(run, body.step)


def _step_continued(run: RunState, body: e.StepContinued) -> None:
    if run.paused_steps.pop(body.step, None) is not None:
        unpark(run, body.step)


def _step_routed(run: RunState, body: e.StepRouted) -> None:
    if body.agent is None and body.model is None:
        run.routes.pop(body.step, None)
    else:
        run.routes[body.step] = body


def _question_asked(run: RunState, body: e.QuestionAsked) -> None:
    run.questions[body.question] = body


def _question_answered(run: RunState, body: e.QuestionAnswered) -> None:
    run.questions.pop(body.question, None)


def _stop_asked(run: RunState, body: e.StopAsked) -> None:
    run.stop_asked = body


def _burst_asked(run: RunState, body: e.BurstAsked) -> None:
    run.burst_asked = body


STEERING: dict[type, Callable[[RunState, Any], None]] = {
    e.RuleFired: _rule_fired,
    e.RuleCleared: _rule_cleared,
    e.RuleFailed: _rule_failed,
    e.StepPaused: _step_paused,
    e.StepContinued: _step_continued,
    e.StepRouted: _step_routed,
    e.QuestionAsked: _question_asked,
    e.QuestionAnswered: _question_answered,
    e.StopAsked: _stop_asked,
    e.BurstAsked: _burst_asked,
}
