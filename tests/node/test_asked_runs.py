"""What a client may ask of runs: to start, join, follow, change and end them; each change is an event that names it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import msgspec
import pytest

from gx.core import event as e
from gx.core.errors import GxError, NotFound, RecipeError, UsageError
from gx.core.task import Status
from gx.core.view import RunStatus
from gx.node import problem, wire
from gx.node.client import Started
from gx.node.status import NodeStatus, RunStatusNow
from gx.node.watch import PROGRESS_EVERY_S, Watch
from tests.node.served import BY, ENDLESS, PATIENCE_S, Served, ended, held, recipe, records


def endless(served: Served, title: str, rows: int = 6, **more: Any) -> str:
    """A detached run whose tasks take as long as anybody waits; some of them run."""
    run = served.submit(recipe(title, tokens=ENDLESS), rows, is_detached=True, fresh=True, **more).run
    served.until(lambda: served.inside(lambda: served.node.runs[run].state.leased))
    return run


def now(served: Served, run: str) -> RunStatusNow | None:
    status = served.client.ask("GET", "/v1/node", kind=NodeStatus)
    return next((one for one in status.runs if one.run == run), None)


def test_a_run_is_followed_to_its_end(served: Served) -> None:
    started = served.submit(recipe("follow"), rows=5)
    assert (started.name, started.is_resumed, started.done_before) == ("follow", False, 0)
    frames = served.watch(started.run)
    assert sorted(record["id"] for record in records(frames)) == [f"r{n}" for n in range(5)]
    end = wire.ended(frames[-1].end)
    assert (end.run, end.status, end.succeeded, end.failed) == (started.run, RunStatus.finished, 5, 0)
    assert any(frame.progress is not None and frame.progress.total == 5 for frame in frames)
    (created,) = served.bodies(started.run, e.RunCreated)
    assert created.asked is not None


@pytest.mark.parametrize(("asked", "has_rows"), [(None, True), ("false", False)])
def test_results_come_with_their_rows_unless_nobody_looks_at_these(
    served: Served, asked: str | None, has_rows: bool
) -> None:
    run = served.submit(recipe(f"lean {asked}"), rows=2).run
    frames = [problem.decode(line, wire.Frame) for line in served.client.lines(f"/v1/runs/{run}/watch", input=asked)]
    results = [result for frame in frames for result in frame.results]
    assert [result.input is not msgspec.UNSET for result in results] == [has_rows] * 2


def test_who_asked_for_a_run_stands_in_its_event_and_not_what_the_body_says(served: Served) -> None:
    asked = msgspec.to_builtins(served.asked(recipe("whose"), rows=1), enc_hook=str)
    answer = served.post("/v1/runs", asked)
    assert answer.status_code == 200, answer.text
    run = answer.json()["run"]
    served.watch(run)
    assert served.bodies(run, e.RunCreated)[0].by == BY
    assert (answer.headers["gx-version"], answer.headers["content-type"]) == (
        served.http.get("/v1/node").json()["gx"],
        "application/json",
    )


def test_a_run_that_is_asked_for_again_is_joined_and_both_get_every_result(served: Served) -> None:
    text = held("join", tokens=60)
    first = served.submit(text, rows=12)
    with served.watched(first.run) as frames:
        got = [next(frame for frame in frames if frame.results)]
        served.until(lambda: len(served.state(first.run).tasks) >= 12)
        second = served.submit(text, rows=12)
        assert (second.run, second.is_resumed) == (first.run, True)
        assert second.total >= 12 and second.done_before > 0
        with served.watched(second.run) as frames_of_second:
            served.let_go(first.run)
            others = list(frames_of_second)
        got += list(frames)
    assert sorted(r["id"] for r in records(got)) == sorted(r["id"] for r in records(others))
    assert len(records(got)) == 12
    assert len(served.bodies(first.run, e.RunCreated)) == 1


def test_submissions_of_the_same_at_once_give_one_run(served: Served) -> None:
    text = held("together")

    def one(_: int) -> tuple[str, list[dict[str, Any]]]:
        run = served.submit(text, rows=8).run
        with served.watched(run) as frames:
            got = [next(frames)]
            if watching.wait(PATIENCE_S) == 0:  # it is not over before the last of them is there
                served.let_go(run)
            return run, records(got + list(frames))

    watching = threading.Barrier(6)
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(one, range(6)))
    assert len({run for run, _ in got}) == 1
    assert {len(rows) for _, rows in got} == {8}
    (created,) = served.bodies(got[0][0], e.RunCreated)
    assert created.name == "together"


def test_the_same_asked_twice_with_a_token_is_one_run_and_a_finished_one_gives_its_results_again(
    served: Served,
) -> None:
    text, token = recipe("token"), "ab" * 6
    one = served.submit(text, rows=2, fresh=True, token=token)
    first = records(served.watch(one.run))
    again = served.submit(text, rows=2, fresh=True, token=token)
    assert again.run == one.run
    key = lambda record: record["id"]  # noqa: E731
    assert sorted(records(served.watch(again.run)), key=key) == sorted(first, key=key)
    assert served.submit(text, rows=2, fresh=True, token="cd" * 6).run != one.run


def test_what_is_started_names_no_client_and_none_keeps_it_running(served: Served) -> None:
    run = served.submit(recipe("alone", tokens=ENDLESS), rows=3).run
    found = now(served, run)
    assert found is not None
    assert (found.status, found.clients, found.is_detached) == ("unattended", 0, False)
    assert not served.inside(lambda: served.node.runs[run].state.leased)
    with served.watched(run) as frames:
        next(frame for frame in frames if frame.progress is not None and frame.progress.running)
        found = now(served, run)
        assert found is not None
        assert (found.status, found.clients) == ("running", 1)
    served.until(lambda: now(served, run).clients == 0)


def test_one_who_only_looks_on_attends_to_nothing(served: Served) -> None:
    run = served.submit(recipe("looked at", tokens=ENDLESS), rows=3).run
    with served.http.stream("GET", f"/v1/runs/{run}/watch?results=false") as answer:
        lines_of = map(json.loads, answer.iter_lines())
        assert "progress" in next(lines_of)
        assert now(served, run).clients == 0
        served.tell(run, "cancel")
        *_, last = lines_of
    assert last["end"]["run"]["status"] == "cancelled"


def test_a_drained_run_lets_what_is_running_end(served: Served) -> None:
    run = served.submit(recipe("drain", tokens=400), rows=60, is_detached=True).run
    running = served.until(lambda: served.inside(lambda: list(served.node.runs[run].state.leased)))
    served.tell(run, "drain", reason="tea")
    end = ended(served, run)
    assert (end.run.status, end.run.left > 0) == (RunStatus.interrupted, True)
    state = served.state(run)
    assert {state.tasks[task].status for task in running} == {Status.succeeded}
    assert served.bodies(run, e.RunInterrupted) == [e.RunInterrupted(run=run, reason="tea", by=BY)]


def test_a_stopped_run_ends_now_and_can_be_resumed(served: Served) -> None:
    run = endless(served, "stop")
    served.tell(run, "stop", reason="now")
    assert ended(served, run).run.status is RunStatus.interrupted
    assert served.bodies(run, e.RunInterrupted) == [e.RunInterrupted(run=run, reason="now", by=BY)]
    lost = {body.task for body in served.bodies(run, e.AttemptLost)}
    assert lost == {body.task for body in served.bodies(run, e.TaskLeased)} != set(), "what ran was not waited for"
    served.tell(run, "resume")
    served.until(lambda: served.inside(lambda: served.node.runs[run].state.leased))
    (resumed,) = served.bodies(run, e.RunResumed)
    assert (resumed.by, resumed.is_detached) == (BY, True)


def test_a_run_that_is_drained_is_resumed_once_it_has_ended(served: Served) -> None:
    run = endless(served, "drained on")
    served.tell(run, "drain")
    with ThreadPoolExecutor(1) as pool:
        resumed = pool.submit(served.tell, run, "resume")
        served.until(lambda: resumed.done() or served.inside(lambda: served.api.n_open))
        served.tell(run, "stop")
        resumed.result(PATIENCE_S)
    assert len(served.bodies(run, e.RunInterrupted)) == len(served.bodies(run, e.RunResumed)) == 1
    served.until(lambda: served.inside(lambda: served.node.runs[run].state.leased))


def test_a_run_that_is_given_up_while_its_resuming_waits_is_over(served: Served) -> None:
    run = endless(served, "drained away")
    served.tell(run, "drain")
    with ThreadPoolExecutor(1) as pool:
        resumed = pool.submit(served.post, f"/v1/runs/{run}/resume")
        served.until(lambda: resumed.done() or served.inside(lambda: served.api.n_open))
        served.tell(run, "cancel")
        refused = resumed.result(PATIENCE_S)
    assert refused.status_code == 400 and "is over" in refused.text


def test_a_cancelled_run_is_never_resumed(served: Served) -> None:
    text = recipe("cancel", tokens=ENDLESS)
    run = served.submit(text, rows=3, is_detached=True).run
    served.tell(run, "cancel", reason="wrong one")
    assert ended(served, run).run.status is RunStatus.cancelled
    assert served.bodies(run, e.RunCancelled) == [e.RunCancelled(run=run, reason="wrong one", by=BY)]
    assert served.post(f"/v1/runs/{run}/cancel", {}).status_code == 404
    assert served.submit(text, rows=3).run != run


def test_a_run_that_is_over_can_not_be_resumed(served: Served) -> None:
    run = served.submit(recipe("over"), 2, is_detached=True).run
    ended(served, run)
    before = served.inside(lambda: served.node.log.last_seq)
    refused = served.post(f"/v1/runs/{run}/resume")
    assert refused.status_code == 400 and "is over" in refused.text
    assert served.inside(lambda: served.node.log.last_seq) == before


def test_a_run_that_is_not_live_can_be_given_up(served: Served) -> None:
    run = endless(served, "given up")
    served.tell(run, "stop")
    ended(served, run)
    served.tell(run, "cancel", reason="for good")
    assert ended(served, run).run.status is RunStatus.cancelled
    assert served.bodies(run, e.RunCancelled) == [e.RunCancelled(run=run, reason="for good", by=BY)]


def test_some_tasks_of_a_run_are_cancelled_and_the_others_go_on(served: Served) -> None:
    run = endless(served, "some", rows=6)
    first, *rest = list(served.state(run).tasks)
    served.tell(run, "cancel", task=first, reason="this one")
    served.until(lambda: served.state(run).tasks[first].status is Status.cancelled)
    assert served.bodies(run, e.TaskCancelled)[0].by == BY
    assert {served.state(run).tasks[task].status for task in rest}.isdisjoint({Status.cancelled})
    served.tell(run, "cancel", step="s", reason="all of it")
    end = ended(served, run).run
    assert (end.status, end.cancelled, end.left) == (RunStatus.finished, 6, 0)
    assert [b.reason for b in served.bodies(run, e.TaskCancelled)] == ["this one"] + 5 * ["all of it"]


def test_what_is_running_is_taken_back_and_runs_anew(served: Served) -> None:
    run = endless(served, "taken back", rows=4)
    first, *others = served.until(lambda: served.inside(lambda: list(served.node.runs[run].state.leased)))
    served.tell(run, "requeue", task=first)
    (lost,) = served.until(lambda: served.bodies(run, e.AttemptLost))
    assert (lost.task, lost.is_suspect, lost.reason) == (first, False, f"taken back by {BY}")
    served.until(lambda: served.state(run).tasks[first].attempt == 2)
    served.tell(run, "requeue", step="s")
    served.until(lambda: {lost.task for lost in served.bodies(run, e.AttemptLost)} >= {first, *others})
    served.until(lambda: served.inside(lambda: served.node.runs[run].state.leased))
    assert served.state(run).tasks[first].failures == 0
    answer = served.post(f"/v1/runs/{run}/requeue", {"task": "0" * 16})
    assert (answer.status_code, "nothing of" in answer.text) == (404, True)


def test_what_a_run_has_not_can_not_be_cancelled(served: Served) -> None:
    run = endless(served, "nothing")
    for body in ({"task": "0" * 16}, {"step": "t"}):
        answer = served.post(f"/v1/runs/{run}/cancel", body)
        assert (answer.status_code, answer.json()["kind"]) == (404, "NotFound")
    assert not served.bodies(run, e.TaskCancelled)


def test_a_paused_run_begins_nothing_until_it_goes_on(served: Served) -> None:
    run = served.submit(recipe("pause", tokens=250), rows=40, is_detached=True).run
    served.until(lambda: served.inside(lambda: served.node.runs[run].state.leased))
    served.tell(run, "pause")
    served.until(lambda: not served.inside(lambda: served.node.runs[run].state.leased))
    served.tell(run, "pause")  # again changes nothing
    assert now(served, run).status == "paused"
    count = len(served.bodies(run, e.TaskLeased))
    time.sleep(0.3)
    assert len(served.bodies(run, e.TaskLeased)) == count < 40
    served.tell(run, "resume")
    served.until(lambda: len(served.bodies(run, e.TaskLeased)) > count)
    assert served.bodies(run, e.RunPaused) == [e.RunPaused(run=run, by=BY)]
    assert served.bodies(run, e.RunContinued) == [e.RunContinued(run=run, by=BY)]


def test_a_run_s_concurrency_is_kept_and_lifted(served: Served) -> None:
    run = endless(served, "narrow", rows=8)
    leased: Callable[[], int] = lambda: served.inside(lambda: len(served.node.runs[run].state.leased))  # noqa: E731
    served.until(lambda: leased() >= 2)
    served.tell(run, "change", concurrency=1)
    served.until(lambda: now(served, run).concurrency == 1)
    served.tell(run, "stop")
    ended(served, run)
    served.tell(run, "resume")
    served.until(leased)
    time.sleep(0.2)
    assert leased() == 1
    served.tell(run, "change", concurrency=0)
    served.until(lambda: leased() > 1)
    assert now(served, run).concurrency is None
    assert [(b.concurrency, b.priority, b.by) for b in served.bodies(run, e.RunChanged)] == [
        (1, None, BY),
        (0, None, BY),
    ]


def test_a_run_s_priority_and_limits_change_while_it_runs(served: Served) -> None:
    run = endless(served, "limits", priority=2.0)
    assert now(served, run).priority == 2.0
    served.tell(run, "change", priority=0.5, deadline_s=3600)
    served.until(lambda: now(served, run).priority == 0.5)
    (changed,) = served.bodies(run, e.RunChanged)
    assert (changed.priority, changed.concurrency, changed.by) == (0.5, None, BY)
    assert served.state(run).deadline_at == pytest.approx(time.time() + 3600, abs=60)
    served.tell(run, "change", deadline_s=0)
    end = ended(served, run).run
    assert (end.status, end.limit) == (RunStatus.stopped, "deadline")


def test_a_smaller_budget_stops_a_run_and_a_larger_one_lets_it_go_on(served: Served) -> None:
    text = held("budget", tokens=60)
    run = served.submit(text, rows=6, is_detached=True, fresh=True).run
    served.until(lambda: served.bodies(run, e.TaskSucceeded))
    served.tell(run, "change", budget_tokens=1)
    served.until(lambda: served.bodies(run, e.RunChanged))
    served.post(f"/v1/runs/{run}/requeue", {"step": "held"})  # if it came to that, it would not end
    end = ended(served, run).run
    assert (end.status, end.limit) == (RunStatus.stopped, "budget")
    again = served.submit(text, rows=6, budget_tokens=10**6)
    assert (again.run, again.is_resumed) == (run, True)
    with served.watched(run) as frames:
        served.let_go(run)
        *_, last = frames
    assert wire.ended(last.end).status is RunStatus.finished


def test_who_waits_for_a_run_and_comes_back_leaves_it_the_limits_that_it_has_by_now(served: Served) -> None:
    began = {"token": "ab" * 6, "budget_tokens": 10**6, "deadline_s": 3600.0}
    run = served.submit(held("back"), rows=2, is_detached=True, fresh=True, **began).run
    served.tell(run, "change", budget_tokens=10**5, deadline_s=7200)
    served.until(lambda: served.state(run).budget_tokens == 10**5)
    deadline_at = served.state(run).deadline_at
    assert served.submit(held("back"), rows=2, **began).is_resumed
    served.tell(run, "stop", reason="as if its node had ended")
    ended(served, run)
    assert (served.state(run).budget_tokens, served.state(run).deadline_at) == (10**5, deadline_at)
    again = served.submit(held("back"), rows=2, **began)
    assert (again.run, served.state(run).budget_tokens) == (run, 10**5)
    assert served.state(run).deadline_at != deadline_at, "it had ended: its time begins anew"
    served.tell(run, "cancel")


@pytest.mark.parametrize(
    "change",
    [
        {"concurrency": -1},
        {"concurrency": 2**60},
        {"priority": 0},
        {"priority": -1},
        {"priority": 1000},
        {"deadline_s": -1},
        {"deadline_s": 1e300},
        {"budget_tokens": -1},
        {"budget_tokens": "7"},
    ],
)
def test_what_no_run_can_be_changed_to_is_refused_and_leaves_no_event(served: Served, change: dict[str, Any]) -> None:
    run = served.submit(recipe("refused", tokens=ENDLESS), rows=1).run
    answer = served.post(f"/v1/runs/{run}/change", change)
    assert (answer.status_code, answer.json()["kind"]) == (400, "UsageError")
    assert not served.bodies(run, e.RunChanged)


@pytest.mark.parametrize(
    "wanted",
    [
        {"priority": 0},
        {"priority": -2.0},
        {"token": "not hex"},
        {"token": "abc"},
        {"limit": 0},
        {"limit": -1},
        {"sample": 2**60},
        {"budget_tokens": 0},
        {"deadline_s": -1.0},
        {"deadline_s": 1e200},
    ],
)
def test_what_no_run_can_be_asked_for_with_is_refused_before_anything_is_written(
    served: Served, wanted: dict[str, Any]
) -> None:
    before = served.node.log.last_seq
    with pytest.raises(UsageError, match=next(iter(wanted)).split("_")[0]):
        served.submit(recipe("bounds"), **wanted)
    assert served.node.log.last_seq == before
    assert served.http.get("/v1/node").status_code == 200


def test_errors_of_a_submission_come_with_their_place(served: Served) -> None:
    before = served.node.log.last_seq
    with pytest.raises(RecipeError) as refused:
        served.submit(recipe("bad").replace("agent: a", "agent: b"))
    assert refused.value.file == "recipe.yaml"
    assert refused.value.line is not None
    with pytest.raises(GxError, match="nowhere"):
        served.submit(recipe("bad").replace("./tiny.gguf", "./nowhere.gguf"))
    with pytest.raises(GxError, match=r"gone\.jsonl"):
        served.submit(recipe("bad"), inputs="gone.jsonl")
    assert served.node.log.last_seq == before


def test_a_run_is_named_by_the_start_of_its_id_if_that_names_one(served: Served) -> None:
    one, two = endless(served, "pre-one", rows=1), endless(served, "pre-two", rows=1)
    assert served.post(f"/v1/runs/{one[:-3]}/pause").json()["run"] == one
    for verb in ("pause", "drain", "change", "resume", "cancel"):
        assert served.post(f"/v1/runs/pre-/{verb}", {}).status_code in (400, 404), verb
    for run in (one, two):
        assert now(served, run) is not None
    with pytest.raises(NotFound, match="nobody"):
        served.client.ask("GET", "/v1/runs/nobody/end")


def test_what_was_asked_for_is_known_after_the_run(served: Served) -> None:
    asked = served.asked(recipe("asked"), rows=1)
    started = served.client.ask("POST", "/v1/runs", asked, kind=Started)
    served.watch(started.run)
    found = served.client.ask("GET", f"/v1/runs/{started.run}/asked", kind=wire.Asked)
    assert found.submission.recipe_text == asked.submission.recipe_text
    assert found.settings == asked.settings


def test_a_detached_run_goes_on_when_its_client_leaves(served: Served) -> None:
    run = served.submit(recipe("detached", tokens=40), rows=10, is_detached=True).run
    with served.watched(run) as frames:
        next(frames)
    assert ended(served, run).run.status is RunStatus.finished


def test_nothing_is_told_of_a_run_after_its_end(served: Served) -> None:
    """Its progress is due while the last frame is under way to a client that takes its time."""
    run = served.submit(recipe("last", tokens=ENDLESS), rows=1).run
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("more_body") is False:
            await anyio.sleep(2 * PROGRESS_EVERY_S)

    async def watch() -> None:
        watch = Watch(served.node.runs[run], has_results=False)
        async with anyio.create_task_group() as group:
            group.start_soon(watch, {}, anyio.sleep_forever, send)
            served.node.runs[run].stop(e.RunCancelled(run=run, reason="enough"))

    served.in_loop(watch)
    assert [message.get("more_body") for message in sent][1:] == [True] * (len(sent) - 2) + [False]


# ── how it stands ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_node_tells_how_its_runs_and_benches_stand(served: Served) -> None:
    run = endless(served, "stands", rows=9)
    before = served.inside(lambda: served.node.view.seq)
    status = served.client.ask("GET", "/v1/node", kind=NodeStatus)
    assert before <= status.seq <= served.node.log.last_seq
    assert (status.epoch, status.workspace, status.stays) == (1, str(served.folder), True)
    (found,) = status.runs
    assert (found.run, found.name, found.status, found.is_detached) == (run, "stands", "running", True)
    assert found.progress.total == 9
    assert found.backlog + found.progress.running == 9
    (bench,) = status.benches
    assert (bench.worker, bench.slots) == ("edge", 2)


def test_the_view_of_a_node_is_the_fold_of_its_log(served: Served) -> None:
    one = endless(served, "fold-one")
    two = served.submit(recipe("fold-two", tokens=ENDLESS), is_detached=True).run
    served.tell(one, "pause")
    served.tell(two, "change", priority=3)
    assert served.differences() == []
    served.tell(one, "stop")
    served.tell(one, "cancel")
    ended(served, one)
    assert served.differences() == []
