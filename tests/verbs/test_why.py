"""Why a task, a run or an event is as it is: sentences from events, and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from gx.cli import why as verb
from gx.core import event as e
from gx.core.errors import NotFound, UsageError
from gx.core.event import Event
from gx.run.history.telling import _WORDS, told
from gx.run.history.why import Figures, of_event, of_run
from gx.run.history.whytask import of_task
from tests.verbs.writing import ONE, TWO, Writing

Call = Callable[..., Result]
RUN, NOW = "r-222222", 1_700_000_000


def events(w: Writing) -> list[Event]:
    return [Event(seq=n, ts=NOW * 1_000_000, source="node:1", body=body) for n, body in enumerate(w.bodies)]


def begun(**created: Any) -> tuple[Writing, str]:
    """A run with one task, which is queued."""
    w = Writing()
    w.begin(RUN, started_at=float(NOW), **created)
    return w, w.queue(RUN, 0, "T-1")


def reason(w: Writing, task: str, **figures: int) -> str:
    return of_task(task, events(w), Figures(**figures)).answer


def lost(task: str, *, is_suspect: bool = True, alone: bool = False, attempt: int = 1) -> e.AttemptLost:
    return e.AttemptLost(
        run=RUN, task=task, attempt=attempt, worker="edge", reason="the bench was killed (SIGSEGV)",
        is_suspect=is_suspect, alone=alone,
    )  # fmt: skip


def failed(task: str, attempt: int = 1) -> e.AttemptFailed:
    return e.AttemptFailed(run=RUN, task=task, attempt=attempt, worker="edge", code="timeout", message="after 2 s")


def test_every_kind_of_event_has_its_sentence() -> None:
    assert _WORDS.keys() | {e.TaskLeased, e.TaskRetried} == set(e.BODIES)
    golden = json.loads((Path(__file__).parents[1] / "core" / "golden_events.json").read_text())
    bodies = [e.decode_body(text) for forms in golden.values() for text in forms.values()]
    assert {type(body) for body in bodies} == set(e.BODIES)
    assert all(told(body, NOW, {}).strip() for body in bodies)


# ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_queued_task_waits_behind_others() -> None:
    w, task = begun()
    said = reason(w, task, ahead=12, running=2, prepared=5)
    assert "12 tasks of its run that were queued before it haven't ended; 2 of its run run now, 5 are prepared" in said
    assert "The bench has 2 slots." in said


def test_a_task_of_a_paused_run_says_who_paused_it() -> None:
    w, task = begun()
    w.bodies.append(e.RunPaused(run=RUN, by="bob"))
    said = reason(w, task)
    assert "its run doesn't go on: It was paused by bob at 22:13:20; `gx resume r-222222` lets it go on." in said


def test_a_prepared_task_waits_for_a_slot_or_for_an_equal_one() -> None:
    w, task = begun()
    w.bodies.append(e.TaskPrepared(run=RUN, task=task, attempt=1, key="k", model="m", prompt=()))
    assert "waits for a slot: 2 of its run run now, and 0 tasks" in reason(w, task, running=2)
    other = w.queue(RUN, 1, "T-2")
    w.bodies.append(e.TaskPrepared(run=RUN, task=other, attempt=1, key="k", model="m", prompt=()))
    assert f"It waits for the result of task {task}, whose key is equal" in reason(w, other)
    assert "waits for a slot" in reason(w, task)


def test_a_task_that_runs_says_where() -> None:
    w, task = begun()
    w.lease(RUN, task)
    assert "It runs: attempt 1 was given to edge, on bench 1 of node 1, which has 2 slots." in reason(w, task)


def test_a_retry_says_after_which_error_and_when() -> None:
    w, task = begun()
    w.lease(RUN, task)
    w.bodies += [failed(task), e.TaskRetried(run=RUN, task=task, attempt=1, not_before=NOW + 65.0)]
    said = of_task(task, events(w), Figures())
    assert (
        said.answer
        == "It waits for its next attempt, not before 22:14:25: the last one failed with timeout: after 2 s."
    )
    assert said.lines[-1].text == "attempt 2 is due in 65.0 s, not before 22:14:25"
    w.lease(RUN, task, 2)
    w.succeed(RUN, task, "x", attempt=2)
    assert reason(w, task) == "It succeeded at attempt 2, after 1 failure (timeout)."


def test_a_lost_attempt_says_how_its_bench_ended_and_whose_fault_it_was() -> None:
    w, task = begun()
    w.lease(RUN, task)
    w.bodies += [e.BenchExited(worker="edge", epoch=1, incarnation=1, reason="killed"), lost(task)]
    said = of_task(task, events(w), Figures())
    assert "waits for a slot, after 1 lost attempt (the bench was killed (SIGSEGV))" in said.answer
    assert said.lines[-1].text == (
        "attempt 1 was lost: the bench was killed (SIGSEGV); it costs no retry, and the task may be why"
    )
    assert "not held against the task" in told(lost(task, is_suspect=False), NOW, {})
    w.lease(RUN, task, 2)
    w.bodies.append(lost(task, attempt=2))
    assert "lost 2 times, so it runs alone next" in reason(w, task)
    w.bodies.append(e.TaskFailed(run=RUN, task=task, attempt=3, code="crashed", message="the bench died each time"))
    assert "the bench died each time" in reason(w, task)


def test_an_answer_from_the_log_names_the_task_that_has_it() -> None:
    w, task = begun()
    first = w.queue("other-222222", 5, "T-9")
    w.succeed("other-222222", first, "x")
    w.succeed(RUN, task, "x", cached=first)
    said = reason(w, task)
    assert f"from the result that task {first} (row T-9 of step s, run other-222222) got at 22:13:20" in said
    twin = w.queue(RUN, 1, "T-2")
    w.succeed(RUN, twin, "x", cached=task)
    assert "(row T-1 of step s, of the same run)" in reason(w, twin)


def test_a_cut_text_says_where() -> None:
    w, task = begun()
    w.lease(RUN, task)
    w.succeed(RUN, task, "x", finish="length")
    assert "the text was cut at max_tokens, after 3 tokens" in reason(w, task)
    w, task = begun()
    w.succeed(RUN, task, "x", finish="context")
    assert "cut where the model's context ended" in reason(w, task)


def test_a_stale_answer_is_not_why() -> None:
    w, task = begun()
    w.lease(RUN, task)
    w.bodies.append(lost(task, is_suspect=False))
    w.succeed(RUN, task, "x", attempt=1)
    assert of_task(task, events(w), Figures()).status == "prepared"


def test_failures_cancellations_and_skips_say_why() -> None:
    w, task = begun()
    w.fail(RUN, task)
    assert reason(w, task) == "It could not be prepared, so no model was asked: no text (template)."
    w, task = begun()
    w.fail(RUN, task, "row", "line 3: not JSON")
    assert reason(w, task).startswith("Its row can't be used: line 3")
    w, task = begun()
    w.lease(RUN, task)
    w.bodies += [failed(task), e.TaskFailed(run=RUN, task=task, attempt=1, code="timeout", message="after 2 s")]
    assert reason(w, task).startswith("It failed with timeout: after 2 s. 1 attempt failed, and no further attempt")
    w, task = begun()
    w.bodies.append(e.TaskCancelled(run=RUN, task=task, attempt=1, reason="too slow", by="bob"))
    assert reason(w, task) == "It was cancelled by bob: too slow."
    w, task = begun()
    w.bodies.append(e.TaskSkipped(run=RUN, task=task, attempt=1, reason="when: item.n > 3"))
    assert reason(w, task) == "It was skipped: the `when` of step s was false for it: item.n > 3."


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("last", "answer"),
    [
        (
            e.RunStopped(run=RUN, limit="budget", reason="5,012 of 5,000 tokens are spent"),
            "It stopped at its budget: 5,012 of 5,000 tokens are spent. 3 tasks were left; 1 task failed (1 timeout).",
        ),
        (
            e.RunStopped(run=RUN, limit="deadline", reason="the deadline passed"),
            "It stopped at its deadline: the deadline was 22:13:50, 30 s after its beginning. 3 tasks were left",
        ),
        (
            e.RunInterrupted(run=RUN, reason="its client went away"),
            "It was interrupted: its client went away. 3 tasks were left; `gx resume r-222222` goes on",
        ),
        (e.RunCancelled(run=RUN, reason="wrong model", by="bob"), "It was cancelled by bob: wrong model. 3 tasks"),
        (e.RunPaused(run=RUN, by="bob"), "It was paused by bob at 22:13:20"),
        (e.RunFinished(run=RUN, succeeded=1, failed=1), "It finished: all tasks ended: 1 succeeded, 1 failed"),
        (e.NodeStarted(epoch=2, pid=1), "It is neither over nor live: its node ended, and nobody came back for it."),
        (e.InputsEnded(run=RUN, rows=4), "It is not over: 1 of its tasks run, 1 are prepared, 1 queued, 9 ended"),
    ],
)
def test_a_run_says_why_it_ended_or_stands(last: e.Body, answer: str) -> None:
    w, _ = begun(deadline_at=NOW + 30.0, budget_tokens=5000)
    w.bodies.append(last)
    figures = Figures(queued=1, prepared=1, running=1, ended=9, tokens=4000, failures={"timeout": 1})
    assert of_run(RUN, events(w), figures).answer.startswith(answer)


def test_a_run_tells_its_limits_and_what_was_changed() -> None:
    w, _ = begun(budget_tokens=5000)
    w.bodies.append(e.RunChanged(run=RUN, concurrency=1, deadline_at=NOW + 90.0, by="bob"))
    lines = [line.text for line in of_run(RUN, events(w), Figures()).lines]
    assert lines[0] == "begun by ada, with a budget of 5,000 tokens"
    assert lines[1] == "changed by bob to at most 1 task at once, with a deadline at 22:14:50 (90 s later)"


def test_an_event_has_its_figures() -> None:
    w, task = begun()
    w.lease(RUN, task)
    found = events(w)
    said = of_event(found[-1], found, Figures(queued=3, running=2, tokens=90))
    assert said.answer == (
        "Attempt 1 was given to edge, on bench 1 of node 1, which has 2 slots. Then its run had 3 queued, 0 prepared, "
        "2 running and 0 ended tasks, and had spent 90 tokens."
    )
    assert [line.seq for line in said.lines] == [3, 4, 5]


# ── the verb ─────────────────────────────────────────────────────────────────────────────────────────────────────


def rows(call: Call, subject: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call(verb.register, "why", subject).stdout)
    return found


def test_the_log_is_asked_for_a_task_a_run_and_an_event(place: Path, call: Call) -> None:
    run = rows(call, ONE)
    assert (run["kind"], run["status"]) == ("run", "finished")
    assert "1 task failed (1 template)" in run["answer"]
    with_seq = {line["text"]: line["seq"] for line in run["lines"]}
    event = rows(call, str(with_seq["finished: all tasks ended: 3 succeeded, 1 failed"]))
    assert (event["kind"], event["status"]) == ("event", "run.finished")
    assert "0 running and 4 ended tasks, and had spent 40 tokens" in event["answer"]
    w = Writing()
    task = w.queue(TWO, 2, "T-3")
    assert "It could not be prepared" in rows(call, task)["answer"]
    assert "row T-3 of step s" in call(verb.register, "why", task, "--plain").stdout


def test_a_task_that_waits_is_told_its_place(tmp_path: Path, call: Call) -> None:
    w, first = begun()
    w.lease(RUN, first)
    last = [w.queue(RUN, n, f"T-{n}") for n in range(2, 6)][-1]
    w.write(tmp_path / ".gx")
    said = rows(call, last)["answer"]
    assert "4 tasks of its run that were queued before it haven't ended; 1 of its run run now, 0 are prepared" in said


def test_a_subject_that_there_is_not_is_refused(place: Path, call: Call) -> None:
    with pytest.raises(NotFound, match="no run, task or event nope"):
        call(verb.register, "why", "nope")
    with pytest.raises(NotFound):
        call(verb.register, "why", "999999")
    with pytest.raises(UsageError, match=ONE):
        call(verb.register, "why", "triage")
