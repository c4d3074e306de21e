"""What follows from the answer to a rule's query, and what its events leave behind: no log, no loop, no clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gx.core import event as e
from gx.core import recipe as r
from gx.core.ids import digest
from gx.core.projection import fold
from gx.core.task import EdgeLease, Status
from gx.core.view import RuleState, RunState, View
from gx.node import standing
from gx.run import rules, scheduler
from gx.run.log import EventLog
from gx.run.log.erase import erase
from gx.run.log.verify import verify
from gx.run.rules import Verdict

RULE = r.Rule(id="many", query="SELECT $run", do=r.Stop(reason="too many"), cooldown_s=60)
ROWS = "1" * 32


class Story:
    """A run of two steps, told event by event."""

    def __init__(self) -> None:
        self.view = View()
        self.say(e.RunCreated(run="r", name="n", fingerprint="", recipe="", params=""))

    @property
    def run(self) -> RunState:
        return self.view.runs["r"]

    def say(self, *bodies: e.Body) -> None:
        for body in bodies:
            fold(self.view, e.Event(seq=self.view.seq + 1, ts=0, source="test", body=body))

    def queue(self, *tasks: str, step: str = "s") -> None:
        for index, task in enumerate(tasks):
            self.say(e.TaskQueued(run="r", task=task, step=step, path=task, index=index, id=task))

    def prepare(self, task: str, key: str = "") -> None:
        self.say(e.TaskPrepared(run="r", task=task, attempt=1, key=key or task, model="m", prompt=()))


@pytest.mark.parametrize(
    ("row", "holds"),
    [
        (None, False), ((), False), ((None,), False), ((False, 5), False), ((0,), False), ((0.0,), False),
        ((float("nan"),), False), ((True,), True), ((3,), True), (("false",), True), (("",), True),
    ],
)  # fmt: skip
def test_an_answer_is_true_if_its_first_column_is_neither_null_false_nor_0(row: Any, holds: bool) -> None:
    assert rules.is_true(row) is holds


@pytest.mark.parametrize(
    ("state", "is_true", "now", "found"),
    [
        (RuleState(), False, 0.0, Verdict.nothing),
        (RuleState(), True, 0.0, Verdict.fires),
        (RuleState(is_true=True, fired_at=0.0), True, 900.0, Verdict.nothing),
        (RuleState(is_true=True, fired_at=0.0), False, 1.0, Verdict.clears),
        (RuleState(is_true=False, fired_at=0.0), True, 59.0, Verdict.waits),
        (RuleState(is_true=False, fired_at=0.0), True, 60.0, Verdict.fires),
    ],
)
def test_a_rule_fires_when_it_turns_true_and_never_within_its_cooldown(
    state: RuleState, is_true: bool, now: float, found: Verdict
) -> None:
    assert rules.verdict(RULE, state, is_true=is_true, now=now) is found


def test_a_rule_that_fired_and_cleared_stands_so_in_the_fold() -> None:
    story = Story()
    story.say(*rules.fired(RULE, story.run, read_seq=7, rows=ROWS, now=100.0))
    assert story.run.rules["many"] == RuleState(is_true=True, fired=1, fired_at=100.0, did="stop the run: too many")
    story.say(e.RuleCleared(run="r", rule="many", read_seq=9))
    assert not story.run.rules["many"].is_true
    assert rules.notes(story.run) == ["rule many fired: stop the run: too many"]


@pytest.mark.parametrize(
    ("do", "body"),
    [
        (r.Pause(step="s"), e.StepPaused(run="r", step="s", by="rule x")),
        (r.Continue(step="s"), e.StepContinued(run="r", step="s", by="rule x")),
        (r.Limit(concurrency=2), e.RunChanged(run="r", concurrency=2, by="rule x")),
        (r.Route(step="s", agent="b"), e.StepRouted(run="r", step="s", agent="b", by="rule x")),
        (r.Burst(reason="why"), e.BurstAsked(run="r", reason="why", by="rule x")),
        (r.Stop(reason="why"), e.StopAsked(run="r", reason="why", by="rule x")),
        (
            r.Ask(text="Well?"),
            e.QuestionAsked(run="r", question="x-1", text="Well?", choices=("continue", "stop"), by="rule x"),
        ),
    ],
)
def test_each_action_is_an_event_beside_that_of_the_rule(do: r.Action, body: e.Body) -> None:
    fired, made = rules.fired(r.Rule(id="x", query="", do=do), Story().run, read_seq=5, rows=ROWS, now=1.0)
    assert made == body
    assert isinstance(fired, e.RuleFired) and fired.read_seq == 5 and fired.rows == ROWS


def test_a_run_that_is_to_stop_stops_at_a_limit_called_rule_until_it_is_resumed() -> None:
    story = Story()
    assert scheduler.limit(story.run, 0.0) is None
    story.say(*rules.fired(RULE, story.run, read_seq=7, rows=ROWS, now=100.0))
    stopped = scheduler.limit(story.run, 0.0)
    assert stopped == e.RunStopped(run="r", limit="rule", reason="too many (asked by rule many)")
    story.say(stopped, e.RunResumed(run="r"))
    assert scheduler.limit(story.run, 0.0) is None


def test_tasks_of_a_paused_step_leave_the_queues_and_come_back_in_their_order() -> None:
    story = Story()
    story.queue("a", "b", "c")
    story.queue("z", step="t")
    story.prepare("b")
    story.say(e.StepPaused(run="r", step="s", by="rule x"))
    assert (list(story.run.unprepared), list(story.run.ready)) == (["z"], [])
    assert set(story.run.parked) == {"a", "b", "c"}
    story.queue("d")
    story.prepare("a")  # decided before the pause was known
    assert set(story.run.parked) == {"a", "b", "c", "d"}
    story.say(e.StepContinued(run="r", step="s"))
    assert (list(story.run.unprepared), list(story.run.ready)) == (["z", "c", "d"], ["a", "b"])
    assert not story.run.parked


def test_a_back_off_outlives_a_pause() -> None:
    story = Story()
    story.queue("a")
    story.prepare("a")
    story.say(
        e.StepPaused(run="r", step="s"),
        e.AttemptFailed(run="r", task="a", attempt=1, worker="edge", code="x", message=""),
        e.TaskRetried(run="r", task="a", attempt=1, not_before=50.0),
        e.ClockJumped(run="r", by_s=5.0),
        e.StepContinued(run="r", step="s"),
    )
    assert story.run.delayed == {"a": 55.0}


def test_a_task_that_is_prepared_again_under_another_key_lets_go_of_the_first() -> None:
    story = Story()
    story.queue("a", "b", "c")
    for task in "abc":
        story.prepare(task, key="same")
    assert list(story.run.ready) == ["a"]
    story.prepare("a", key="other")
    assert story.run.tasks["a"].key == "other"
    assert story.run.leaders == {"same": "b", "other": "a"}
    assert sorted(story.run.ready) == ["a", "b"]
    story.prepare("c", key="third")
    assert story.run.followers.get("b", []) == []
    assert sorted(story.run.ready) == ["a", "b", "c"]


def test_a_leased_task_keeps_the_key_that_its_worker_has() -> None:
    story = Story()
    story.queue("a")
    story.prepare("a", key="first")
    lease = EdgeLease(epoch=1, incarnation=1)
    story.say(e.TaskLeased(run="r", task="a", attempt=1, worker="edge", lease=lease))
    story.prepare("a", key="second")
    assert (story.run.tasks["a"].key, story.run.tasks["a"].status) == ("first", Status.leased)


def test_a_run_waits_for_a_person_while_a_question_is_open_or_only_paused_steps_are_left() -> None:
    story = Story()
    story.queue("a")
    assert not standing.waits_for_person(story.run)
    story.say(e.QuestionAsked(run="r", question="q", text="Well?", choices=("continue", "stop")))
    assert standing.waits_for_person(story.run)
    story.say(*rules.answered(story.run, story.run.questions["q"], "continue", "ada"))
    assert not standing.waits_for_person(story.run)
    assert story.run.stop_asked is None
    story.say(e.StepPaused(run="r", step="s"))
    assert standing.waits_for_person(story.run)
    story.queue("z", step="t")
    assert not standing.waits_for_person(story.run)


def test_the_answer_stop_stops_the_run() -> None:
    story = Story()
    story.say(e.QuestionAsked(run="r", question="q", text="Well?", choices=("continue", "stop")))
    story.say(*rules.answered(story.run, story.run.questions["q"], "stop", "ada"))
    assert scheduler.limit(story.run, 0.0) is not None


def test_an_error_that_comes_again_is_told_once_and_without_what_may_be_content() -> None:
    message = """Conversion Error: Could not convert string 'it's a "secret"' to INT32\n\nLINE 1: SELECT"""
    assert rules.without_content(message) == "Conversion Error: Could not convert string … to INT32"
    message = "Out of Range Error: Overflow in addition of INT64 (4111111111111111 + -9.2e18)!"
    assert rules.without_content(message) == "Out of Range Error: Overflow in addition of INT64 (… + …)!"
    story = Story()
    for _ in range(2):
        story.say(e.RuleFailed(run="r", rule="x", code="query", message="no", detail=ROWS))
    assert rules.notes(story.run) == ["rule x had no answer, and the run goes on without it: no"]


def test_what_a_rule_was_shown_is_erased_with_any_task_of_its_run(tmp_path: Path) -> None:
    content = b'{"run":"r","rows":[{"output":"secret"}]}'
    blob = e.Blob(digest=digest(content), content=content)
    bodies: list[e.Body] = [
        e.RunCreated(run="r", name="n", fingerprint="", recipe="", params=""),
        e.TaskQueued(run="r", task="a" * 16, step="s", path="0", index=0, id="0"),
        e.RuleFired(run="r", rule="x", read_seq=2, rows=blob.digest, at=1.0, action="why"),
    ]
    with EventLog.open(tmp_path) as log:
        log.append_sync(bodies, [blob], source="test")
        assert erase(log, "a" * 16).blobs == 1
    with EventLog.open(tmp_path) as log:
        assert not log.blobs([blob.digest])
        assert verify(log).is_whole
