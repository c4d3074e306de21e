"""Rules of live runs, watched by a real node: their queries over the real log, and what they do to a real run."""

from __future__ import annotations

import pytest

from gx.core import event as e
from gx.core.errors import RecipeError
from gx.core.view import RunStatus
from tests.node.served import BY, ENDLESS, Served, ended, recipe

QUEUED = "SELECT count(*) = 3 AS all, count(*) AS queued FROM tasks WHERE run = $run"

ALWAYS = "SELECT $run IS NOT NULL"


def ruled(name: str, *rules: str, tokens: int = ENDLESS) -> str:
    return recipe(name, tokens=tokens) + "rules:\n" + "".join(f"  - {{{rule}}}\n" for rule in rules)


def test_a_rule_fires_once_with_its_rows_and_what_it_read(served: Served) -> None:
    run = served.submit(ruled("fires", f"id: gentle, query: '{QUEUED}', do: {{concurrency: 1}}"), is_detached=True).run
    served.until(lambda: served.bodies(run, e.RuleFired))
    served.tell(run, "change", priority=2.0)  # news, upon which it is still true
    served.until(lambda: served.state(run).priority == 2.0)
    (fired,) = served.bodies(run, e.RuleFired)
    changed = served.bodies(run, e.RunChanged)[0]
    assert (changed.concurrency, changed.by) == (1, "rule gentle")
    assert 0 < fired.read_seq < served.node.log.last_seq
    rows = served.node.log.blobs([fired.rows])[fired.rows]
    assert b'"rows":[{"all":true,"queued":3}]' in rows
    assert not served.differences()


def test_a_rule_that_errs_is_told_once_and_the_run_goes_on(served: Served) -> None:
    query = "SELECT id::INT > 0 FROM tasks WHERE run = $run"  # ids are texts, and no numbers
    run = served.submit(ruled("errs", f"id: bad, query: '{query}', do: {{stop: x}}"), is_detached=True).run
    served.until(lambda: served.bodies(run, e.RuleFailed))
    for priority in (2.0, 3.0):  # news, upon which it errs again
        served.tell(run, "change", priority=priority)
        served.until(lambda: served.state(run).priority == priority)  # noqa: B023
    (failed,) = served.bodies(run, e.RuleFailed)
    assert failed.code == "query" and failed.message.startswith("Conversion Error: Could not convert string …")
    assert b"Could not convert string 'r" in served.node.log.blobs([failed.detail])[failed.detail]
    assert served.state(run).status is RunStatus.running


def test_a_rule_whose_answer_nobody_can_hold_errs_and_the_node_goes_on(served: Served) -> None:
    query = "SELECT false, to_days((2000000000 * least(count(*), 1))::INT) FROM tasks WHERE run = $run"
    run = served.submit(ruled("holds", f"id: bad, query: '{query}', do: {{stop: x}}"), is_detached=True).run
    (failed,) = served.until(lambda: served.bodies(run, e.RuleFailed))
    assert failed.message.startswith("a value of the answer can't be read")
    assert served.state(run).status is RunStatus.running and run in served.inside(served.node.runs.live)


def test_a_rule_that_turns_true_within_its_cooldown_fires_when_that_is_over(served: Served) -> None:
    query = (
        "SELECT CAST(data->>''$.priority'' AS DOUBLE) = 2 FROM events"
        " WHERE run = $run AND type = ''run.changed'' ORDER BY seq DESC LIMIT 1"
    )
    rule = f"id: twice, query: '{query}', do: {{burst: why}}, cooldown: 1s"
    run = served.submit(ruled("cools", rule), is_detached=True).run
    served.tell(run, "change", priority=2)
    served.until(lambda: len(served.bodies(run, e.RuleFired)) == 1)
    served.tell(run, "change", priority=3)
    served.until(lambda: len(served.bodies(run, e.RuleCleared)) == 1)
    served.tell(run, "change", priority=2)
    first, second = served.until(lambda: (found := served.bodies(run, e.RuleFired))[1:] and found)
    assert second.at >= first.at + 1
    assert not served.differences()


def test_a_rule_can_stop_a_run(served: Served) -> None:
    query = "SELECT count(*) >= 2 FROM tasks WHERE run = $run AND status = ''succeeded''"
    run = served.submit(
        ruled("stops", f"id: enough, query: '{query}', do: {{stop: two are done}}", tokens=256), 400
    ).run
    served.watch(run)
    end = ended(served, run).run
    assert (end.status, end.limit) == (RunStatus.stopped, "rule")
    (stopped,) = served.bodies(run, e.RunStopped)
    assert stopped.reason == "two are done (asked by rule enough)"
    assert end.exit_code == 1 and end.left > 0


def test_a_burst_is_recorded_and_said_not_to_be_rented(served: Served) -> None:
    run = served.submit(
        ruled("bursts", f"id: more, query: '{QUEUED}', do: {{burst: a lot to do}}"), is_detached=True
    ).run
    served.until(lambda: served.bodies(run, e.BurstAsked))
    notes = served.inside(lambda: served.node.runs[run].progress().notes)
    assert notes[-1] == f"rule more asked for a burst, and the run may not rent; let it: gx burst --cloud {run}"


def test_a_question_is_open_until_it_is_answered_and_the_answer_says_by_whom(served: Served) -> None:
    rule = f"id: unsure, query: '{ALWAYS}', do: {{ask: {{text: Well, choices: [onward, stop]}}}}"
    run = served.submit(ruled("asks", rule), is_detached=True).run
    served.until(lambda: served.bodies(run, e.QuestionAsked))
    asked = served.http.get(f"/v1/runs/{run}/questions").json()
    assert asked["questions"] == [
        {"question": "unsure-1", "text": "Well", "choices": ["onward", "stop"], "by": "rule unsure"}
    ]
    wrong = served.post(f"/v1/runs/{run}/answer", {"choice": "onwards"})
    assert wrong.status_code == 400 and wrong.json()["hint"] == "did you mean `onward`?"
    assert served.post(f"/v1/runs/{run}/answer", {"choice": "stop", "question": "other"}).status_code == 404
    served.tell(run, "answer", choice="onward")
    (answered,) = served.until(lambda: served.bodies(run, e.QuestionAnswered))
    assert (answered.choice, answered.by) == ("onward", BY)
    assert served.http.get(f"/v1/runs/{run}/questions").json()["questions"] == []
    served.tell(run, "cancel")
    served.until(lambda: run not in served.inside(served.node.runs.live))
    over = served.post(f"/v1/runs/{run}/answer", {"choice": "onward"})
    assert over.status_code == 404 and "is over" in over.json()["message"]


def test_resuming_a_run_lets_a_step_go_on_that_a_rule_paused(served: Served) -> None:
    rule = f"id: wait, query: '{ALWAYS}', do: {{pause: s}}"
    run = served.submit(ruled("pauses", rule), rows=12, is_detached=True).run
    served.until(lambda: served.bodies(run, e.StepPaused))
    state = served.until(lambda: len((now := served.state(run)).tasks) == 12 and now)
    assert len(state.parked) == 12 - len(state.leased) > 0
    served.tell(run, "resume")
    (continued,) = served.until(lambda: served.bodies(run, e.StepContinued))
    assert (continued.step, continued.by) == ("s", BY)


def test_a_query_that_cannot_be_asked_is_refused_before_anything_is_written(served: Served) -> None:
    before = served.node.log.last_seq
    rule = "id: x, query: 'SELECT count(stats) FROM tasks WHERE run = $run', do: {stop: x}"
    with pytest.raises(RecipeError, match='"stats" not found') as caught:
        served.submit(ruled("typo", rule))
    assert caught.value.place.startswith("recipe.yaml:9:")
    assert served.node.log.last_seq == before
