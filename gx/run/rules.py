"""What follows from the answer to a rule's query: nothing, or the rule fires, or it is clear to fire again. Pure.

It sees the recipe's rule, the run's state and an answer, and asks nothing itself. The invariant: a rule fires when its
query turns from false to true, and never within its cooldown; one that turns true within it fires when that is over,
if it is true then. All that this depends on is a fold, so a restart changes nothing.
"""

from __future__ import annotations

import math
import re
from enum import Enum
from typing import Any

from gx.core import event as e
from gx.core import recipe as r
from gx.core.view import RuleState, RunState

_CONTENT = re.compile(r"""['"].*['"]|(?<![\w.])-?\d[\d.,:]*(?:[eE][-+]?\d+)?""", re.DOTALL)


class Verdict(Enum):
    """What an answer means for a rule."""

    nothing = "nothing"  # it stands as it stood
    fires = "fires"  # it turned true
    waits = "waits"  # it turned true, and fires when its cooldown is over
    clears = "clears"  # it had fired, and turned false


def is_true(first_row: tuple[Any, ...] | None) -> bool:
    """Whether an answer that begins with that row is true: its first column is neither NULL, false, 0 nor NaN."""
    if not first_row:
        return False
    value = first_row[0]
    is_nan = isinstance(value, float) and math.isnan(value)
    return not (value is None or value is False or is_nan or (not isinstance(value, str) and value == 0))


def verdict(rule: r.Rule, state: RuleState, *, is_true: bool, now: float) -> Verdict:
    """What it means that the rule's query is true or false at the instant `now`."""
    if not is_true:
        return Verdict.clears if state.is_true else Verdict.nothing
    if state.is_true:
        return Verdict.nothing
    return Verdict.waits if now < cool_at(rule, state) else Verdict.fires


def cool_at(rule: r.Rule, state: RuleState) -> float:
    """The instant from which the rule may fire."""
    return float("-inf") if state.fired_at is None else state.fired_at + rule.cooldown_s


def fired(rule: r.Rule, run: RunState, *, read_seq: int, rows: e.Ref, now: float) -> list[e.Body]:
    """The events of a rule that fires: that it did, and what it does."""
    by, do, own = f"rule {rule.id}", rule.do, run.id
    made: e.Body
    if isinstance(do, r.Pause):
        made = e.StepPaused(run=own, step=do.step, by=by)
    elif isinstance(do, r.Continue):
        made = e.StepContinued(run=own, step=do.step, by=by)
    elif isinstance(do, r.Limit):
        made = e.RunChanged(run=own, concurrency=do.concurrency, by=by)
    elif isinstance(do, r.Route):
        made = e.StepRouted(run=own, step=do.step, agent=do.agent, model=do.model, by=by)
    elif isinstance(do, r.Burst):
        made = e.BurstAsked(run=own, reason=do.reason, by=by)
    elif isinstance(do, r.Stop):
        made = e.StopAsked(run=own, reason=do.reason, by=by)
    else:
        state = run.rules.get(rule.id)
        name = f"{rule.id}-{1 if state is None else state.fired + 1}"
        made = e.QuestionAsked(run=own, question=name, text=do.text, choices=do.choices, by=by)
    told = e.RuleFired(run=own, rule=rule.id, read_seq=read_seq, rows=rows, at=now, action=words_of(do))
    return [told, made]


def words_of(do: r.Action) -> str:
    """An action as a person says it."""
    if isinstance(do, r.Pause):
        return f"pause step {do.step}"
    if isinstance(do, r.Continue):
        return f"let step {do.step} go on"
    if isinstance(do, r.Limit):
        most = f"at most {do.concurrency:,} task{'' if do.concurrency == 1 else 's'} at once"
        return most if do.concurrency else "no limit to the tasks at once"
    if isinstance(do, r.Route):
        to = f" to agent {do.agent}" if do.agent else f" to model {do.model}" if do.model else ", the recipe's own way"
        return f"route step {do.step}{to}"
    if isinstance(do, r.Burst):
        return f"ask for a burst: {do.reason}"
    if isinstance(do, r.Stop):
        return f"stop the run: {do.reason}"
    return f"ask a person: {do.text}"


def without_content(message: str) -> str:
    """A database's message without what may be content, in quotes or a number, and without its later lines."""
    return _CONTENT.sub("…", message).split("\n")[0].strip()


def answered(run: RunState, question: e.QuestionAsked, choice: str, by: str) -> list[e.Body]:
    """The events of an answer: `stop` stops the run, any other choice lets it go on."""
    made: list[e.Body] = [e.QuestionAnswered(run=run.id, question=question.question, choice=choice, by=by)]
    if choice == "stop":
        made.append(e.StopAsked(run=run.id, reason=f"answered stop to: {question.text}", by=by))
    return made


def notes(run: RunState) -> list[str]:
    """What the run's rules did and failed at so far, a sentence each, for who follows the run."""
    told: list[str] = []
    for name, rule in run.rules.items():
        if rule.fired:
            again = "" if rule.fired == 1 else f", for the {rule.fired:,}th time" if rule.fired > 3 else ", again"
            again = ", for the 3rd time" if rule.fired == 3 else again
            told.append(f"rule {name} fired{again}: {rule.did}")
        told.extend(f"rule {name} had no answer, and the run goes on without it: {m}" for m in rule.errors)
    if run.burst_asked is not None and run.rent is None:
        asked = f"{run.burst_asked.by} asked for a burst, and the run may not rent"
        told.append(f"{asked}; let it: gx burst --cloud {run.id}")
    return told
