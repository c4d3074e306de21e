"""The loop with a real log and a scripted worker: what a run does when all goes well, and when it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from gx.core import event as e
from gx.core.message import Answer, Failure, Turn, Usage
from gx.core.view import RunStatus
from gx.run.inputs import Row
from tests.desk import open_desk
from tests.fakes import ManualClock, ScriptedWorker, echo

pytestmark = pytest.mark.anyio

HEAD = """
version: 1
name: test
models: {m: smollm2}
agents: {a: {model: m, persona: You answer.}}
"""
FAN_OUT = (
    HEAD
    + """
steps:
  - {id: s, for_each: inputs, agent: a, prompt: "{{ item.text }}", retry: {limit: 2, backoff: 10s}}
"""
)


def texts(*values: str) -> list[dict[str, str]]:
    return [{"id": f"T{n}", "text": value} for n, value in enumerate(values)]


def fails_on(word: str, *, retryable: bool = True):
    def answer(turn: Turn):
        if word in turn.messages[-1].content:
            return Failure(code="bad", message="it went wrong", retryable=retryable)
        return echo(turn)

    return answer


async def until(condition) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_each_row_becomes_one_record_with_its_answer(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        state, records = await desk.run(FAN_OUT, texts("one", "two", "three"))
    assert sorted((r["id"], r["output"], r["status"]) for r in records) == [
        ("T0", "one", "succeeded"),
        ("T1", "two", "succeeded"),
        ("T2", "three", "succeeded"),
    ]
    assert state.status is RunStatus.finished


async def test_a_task_takes_at_most_six_events(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        state, _ = await desk.run(FAN_OUT, texts("one"))
        (task,) = state.tasks
        assert 3 <= sum(getattr(body, "task", None) == task for body in desk.bodies()) <= 6


async def test_no_more_attempts_run_at_once_than_the_worker_has_leases(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=3)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(FAN_OUT, texts(*"abcdefgh"))
        for _ in range(8):
            await until(lambda: worker.running)
            assert len(worker.running) <= 3
            task = next(iter(worker.running))
            worker.end(task, echo(worker.running[task]))
        assert len(await desk.finish(active)) == 8
    assert worker.most_at_once == 3


async def test_a_worker_that_turns_out_to_have_less_room_gets_no_more_until_it_has_some(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=4)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(FAN_OUT, texts(*"abcdefgh"))
        await until(lambda: len(worker.running) == 4)
        worker.leases = 1  # as when the model is loaded, and is large
        for left in (3, 2, 1, 1, 1, 1, 1, 0):
            task = next(iter(worker.running))
            worker.end(task, echo(worker.running[task]))
            await until(lambda left=left: len(worker.running) == left)  # type: ignore[misc]
        assert len(await desk.finish(active)) == 8


async def test_a_failure_is_retried_after_its_backoff_with_another_seed(tmp_path: Path) -> None:
    clock = ManualClock()
    worker = ScriptedWorker(fails_on("one"))
    async with open_desk(tmp_path, worker, clock) as desk:
        active = await desk.begin(FAN_OUT, texts("one"))
        await until(lambda: len(worker.submitted) == 1 and desk.bodies(e.TaskRetried))
        (retried,) = desk.bodies(e.TaskRetried)
        assert 5 <= retried.not_before - clock.time <= 15
        worker.answer = echo
        clock.time += 20
        desk.wake()
        (record,) = await desk.finish(active)
    assert record.as_dict()["status"] == "succeeded"
    assert [turn.attempt for turn in worker.submitted] == [1, 2]
    assert worker.submitted[0].sampling.seed != worker.submitted[1].sampling.seed


async def test_a_retry_that_becomes_due_while_the_loop_turns_to_sleep_is_not_slept_over(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_desk(tmp_path, ScriptedWorker(fails_on("one")), clock) as desk:
        active = await desk.begin(FAN_OUT, texts("one"))
        await until(lambda: active.state.delayed)
        (due,) = active.state.delayed.values()
        clock.time = due + 0.001  # and nobody has looked since
        assert desk.dispatcher._until_next_instant() < 0.01


async def test_a_failure_that_is_not_worth_another_attempt_fails_the_row_and_no_other(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ScriptedWorker(fails_on("bad", retryable=False))) as desk:
        _, records = await desk.run(FAN_OUT, texts("good", "bad", "fine"))
    by_id = {r["id"]: r for r in records}
    assert by_id["T1"]["error"] == {"code": "bad", "message": "it went wrong"}
    assert by_id["T0"]["status"] == by_id["T2"]["status"] == "succeeded"


async def test_a_bad_row_fails_as_a_row(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        _, records = await desk.run(FAN_OUT, [{"id": "T0", "text": "x"}, ValueError("expected JSON")])
    assert {r["status"] for r in records} == {"succeeded", "failed"}
    assert next(r for r in records if r["status"] == "failed")["error"]["message"] == "line 2: expected JSON"


async def test_a_template_that_does_not_fit_a_row_fails_that_row(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        _, records = await desk.run(FAN_OUT, [{"id": "T0", "text": "x"}, {"id": "T1", "txt": "typo"}])
    failed = next(r for r in records if r["id"] == "T1")
    assert failed["error"]["code"] == "template"
    assert "text" in failed["error"]["message"]


async def test_what_nobody_foresaw_fails_the_row_it_comes_with_and_no_other(tmp_path: Path) -> None:
    rows = [Row(index=n, id=f"T{n}", value=value) for n, value in enumerate([b'{"text":"x"}', b"{", b'{"text":"y"}'])]
    async with open_desk(tmp_path) as desk:
        _, records = await desk.run(FAN_OUT, iter(rows))
    by_id = {r["id"]: r for r in records}
    assert by_id["T1"]["error"] == {"code": "internal", "message": "DecodeError: Input data was truncated"}
    assert by_id["T0"]["status"] == by_id["T2"]["status"] == "succeeded"


async def test_equal_prompts_are_computed_once(tmp_path: Path) -> None:
    worker = ScriptedWorker()
    async with open_desk(tmp_path, worker) as desk:
        _, records = await desk.run(FAN_OUT, texts("same", "same", "other", "same"))
    assert len(worker.submitted) == 2
    assert [r["output"] for r in sorted(records, key=lambda r: r["index"])] == ["same", "same", "other", "same"]
    assert sum(r["cached"] for r in records) == 2


async def test_rows_that_come_again_anywhere_get_the_same_answer(tmp_path: Path) -> None:
    worker = ScriptedWorker(leases=2)
    async with open_desk(tmp_path, worker) as desk:
        with anyio.fail_after(60):
            _, records = await desk.run(FAN_OUT, texts(*(f"row {n % 57}" for n in range(400))))
    assert sorted(r["output"] for r in records) == sorted(f"row {n % 57}" for n in range(400))
    assert len(worker.submitted) == 57


async def test_a_killed_run_goes_on_when_another_one_has_computed_its_rows(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=4)
    async with open_desk(tmp_path, worker) as desk:
        await desk.begin(FAN_OUT, texts(*"abcdefgh"))
        await until(lambda: len(worker.running) == 4)
        desk.dispatcher._active.clear()  # as after a kill: no word of an interruption
    async with open_desk(tmp_path) as desk:
        await desk.run(FAN_OUT, texts(*"abcdef"), run="other")
    worker = ScriptedWorker()
    async with open_desk(tmp_path, worker) as desk:
        with anyio.fail_after(60):
            _, records = await desk.run(FAN_OUT, texts(*"abcdefgh"))
    assert sorted(r["output"] for r in records) == list("abcdefgh")
    assert len(worker.submitted) == 2


async def test_failing_rows_that_wait_for_their_retry_do_not_keep_the_others_waiting(tmp_path: Path) -> None:
    worker = ScriptedWorker(fails_on("bad"), leases=2)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(FAN_OUT, texts(*(f"bad {n}" for n in range(80)), *(f"good {n}" for n in range(40))))
        await until(lambda: active.state.count("succeeded") == 40)
        assert len(active.state.delayed) == 80
        assert len(active.turns) < 80


async def test_the_seed_of_a_retry_is_the_same_after_a_restart(tmp_path: Path) -> None:
    seeds = []
    for run, folders in (("r", [tmp_path / "a"]), ("r", [tmp_path / "b", tmp_path / "b"])):
        clock, worker = ManualClock(), ScriptedWorker(fails_on("bad"))
        for number, folder in enumerate(folders):
            folder.mkdir(exist_ok=True)
            worker = ScriptedWorker(fails_on("bad"))
            async with open_desk(folder, worker, clock) as desk:
                active = await desk.begin(FAN_OUT, texts("bad"), run=run)
                await until(lambda: active.state.delayed)  # noqa: B023
                if number == len(folders) - 1:
                    clock.time += 60
                    desk.wake()
                    await until(lambda: len(desk.bodies(e.AttemptFailed)) == 2)
        seeds.append(worker.submitted[-1].sampling.seed)
    assert seeds[0] == seeds[1] != 0


async def test_a_limit_that_is_reached_with_the_last_task_ends_the_run_as_done(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ScriptedWorker(leases=3)) as desk:
        state, records = await desk.run(FAN_OUT, texts("a", "b", "c"), budget_tokens=30)
    assert len(records) == 3 and state.status is RunStatus.finished


async def test_a_budget_is_overshot_by_no_more_than_what_was_running(tmp_path: Path) -> None:
    worker = ScriptedWorker(leases=4)
    async with open_desk(tmp_path, worker) as desk:
        state, _ = await desk.run(FAN_OUT, texts(*(f"row {n}" for n in range(64))), budget_tokens=100)
    assert 100 <= state.spent_tokens < 100 + 4 * 12


async def test_a_text_that_was_cut_says_so_and_one_cut_by_the_context_is_not_reused(tmp_path: Path) -> None:
    def cut(tokens: int):
        return lambda turn: Answer(value=b'"half a"', finish="length", usage=Usage(tokens_in=1, tokens_out=tokens))

    for run, tokens, finish, computed in (("r1", 100, "context", 1), ("r2", 512, "length", 1), ("r3", 1, "length", 0)):
        worker = ScriptedWorker(cut(tokens))
        async with open_desk(tmp_path, worker) as desk:
            _, (record,) = await desk.run(FAN_OUT, texts("one"), run=run)
        assert record["finish"] == finish, run
        assert len(worker.submitted) == computed, run


async def test_when_the_first_of_equal_tasks_fails_the_next_one_is_tried(tmp_path: Path) -> None:
    calls = []

    def answer(turn: Turn):
        calls.append(turn.task)
        return Failure(code="bad", message="no", retryable=False) if len(calls) == 1 else echo(turn)

    async with open_desk(tmp_path, ScriptedWorker(answer)) as desk:
        _, records = await desk.run(FAN_OUT, texts("same", "same", "same"))
    assert sorted(r["status"] for r in records) == ["failed", "succeeded", "succeeded"]
    assert len(calls) == 2


async def test_a_second_run_is_answered_from_the_log_and_fresh_is_not(tmp_path: Path) -> None:
    for run, created, computed in (("r1", {}, 2), ("r2", {}, 0), ("r3", {"fresh": True}, 2)):
        worker = ScriptedWorker()
        async with open_desk(tmp_path, worker) as desk:
            _, records = await desk.run(FAN_OUT, texts("one", "two"), run=run, **created)
        assert len(worker.submitted) == computed, run
        assert sorted(r["output"] for r in records) == ["one", "two"]


async def test_a_resumed_run_does_the_rest_and_gives_all_records(tmp_path: Path) -> None:
    items = texts(*"abcdef")
    worker = ScriptedWorker(lambda turn: None, leases=2)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(FAN_OUT, items)
        for _ in range(3):
            await until(lambda: worker.running)
            task = next(iter(worker.running))
            worker.end(task, echo(worker.running[task]))
        await until(lambda: active.state.count("succeeded") == 3 and len(worker.running) == 2)
    worker = ScriptedWorker(leases=2)
    async with open_desk(tmp_path, worker) as desk:
        state, records = await desk.run(FAN_OUT, items)
        queued = [body.task for body in desk.bodies(e.TaskQueued)]
        succeeded = [body.task for body in desk.bodies(e.TaskSucceeded)]
        lost = desk.bodies(e.AttemptLost)
    assert len(worker.submitted) == 3
    assert sorted(r["output"] for r in records) == list("abcdef")
    assert len(queued) == len(set(queued)) == len(succeeded) == len(set(succeeded)) == 6
    assert len(lost) == 2 and not any(body.is_suspect for body in lost)
    assert state.status is RunStatus.finished


async def test_an_input_that_ends_in_what_nobody_foresaw_ends_its_run_and_no_other(tmp_path: Path) -> None:
    def odd() -> Iterator[Row]:
        yield Row(index=0, id="T0", value=b'{"text":"x"}')
        raise RuntimeError("odd")

    async with open_desk(tmp_path) as desk:
        active = await desk.begin(FAN_OUT, odd(), run="one")
        await desk.finish(active)
        assert active.error is not None and active.error.code == "internal" and str(active.error) == "RuntimeError: odd"
        assert active.state.status is RunStatus.interrupted
        state, _ = await desk.run(FAN_OUT, texts("y"), run="two")
        assert state.status is RunStatus.finished


async def test_a_drained_run_lets_what_is_running_end_and_keeps_the_rest(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=2)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(FAN_OUT, texts(*"abcd"))
        await until(lambda: len(worker.running) == 2 and len(active.state.tasks) == 4)
        desk.dispatcher.drain("r", "asked")
        for task in list(worker.running):
            worker.end(task, echo(worker.running[task]))
        records = await desk.finish(active)
    assert len(records) == 2
    assert active.state.status is RunStatus.interrupted
    assert active.state.live == 2


async def test_an_input_that_crashes_its_bench_fails_alone_and_its_neighbours_succeed(tmp_path: Path) -> None:
    worker = ScriptedWorker(leases=4)

    def answer(turn: Turn):
        if "poison" in turn.messages[-1].content:
            worker.die()
            return None
        return echo(turn)

    worker.answer = answer
    async with open_desk(tmp_path, worker) as desk:
        _, records = await desk.run(FAN_OUT, texts("a", "poison", "b", "c"))
        exits = desk.bodies(e.BenchExited)
    by_id = {r["id"]: r for r in records}
    assert by_id["T1"]["error"]["code"] == "crashed"
    assert "killed by signal 9" in by_id["T1"]["error"]["message"]
    assert [by_id[i]["status"] for i in ("T0", "T2", "T3")] == ["succeeded"] * 3
    assert len(exits) == 4


async def test_a_task_lost_twice_runs_alone(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=2)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(FAN_OUT, texts("a", "b"))
        for _ in range(2):
            await until(lambda: len(worker.running) == 2)
            worker.die()
        for _ in range(2):
            await until(lambda: worker.running)
            (task,) = worker.running
            assert active.state.tasks[task].is_alone
            worker.end(task, echo(worker.running[task]))
        assert len(await desk.finish(active)) == 2


async def test_the_late_word_of_a_lost_attempt_changes_nothing(tmp_path: Path) -> None:
    from gx.core.ports import AttemptEnded

    worker = ScriptedWorker(lambda turn: None)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(FAN_OUT, texts("a"))
        await until(lambda: worker.running)
        (old,) = worker.running.values()
        worker.die()
        await until(lambda: worker.running)
        worker._say(AttemptEnded(task=old.task, attempt=old.attempt, outcome=Answer(value=b'"stale"')))
        await until(lambda: desk.bodies(e.AttemptSuperseded))
        worker.end(old.task, echo(old))
        (record,) = await desk.finish(active)
    assert record.as_dict()["output"] == "a"


async def test_a_budget_stops_the_run_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    items = texts(*"abcdefgh")
    async with open_desk(tmp_path, ScriptedWorker(leases=1)) as desk:
        state, records = await desk.run(FAN_OUT, items, budget_tokens=30)
        assert state.status is RunStatus.stopped and state.stopped_by == "budget"
        assert 0 < len(records) < 8
    async with open_desk(tmp_path, ScriptedWorker(leases=1)) as desk:
        state, records = await desk.run(FAN_OUT, items, budget_tokens=10_000)
    assert state.status is RunStatus.finished and len(records) == 8


async def test_a_deadline_cancels_what_is_running_and_keeps_it_for_later(tmp_path: Path) -> None:
    clock = ManualClock()
    worker = ScriptedWorker(lambda turn: None, leases=2)
    async with open_desk(tmp_path, worker, clock) as desk:
        active = await desk.begin(FAN_OUT, texts("a", "b", "c"), deadline_at=clock.time + 60)
        await until(lambda: len(worker.running) == 2 and len(active.state.tasks) == 3)
        clock.time += 61
        desk.wake()
        assert await desk.finish(active) == []
    assert active.state.stopped_by == "deadline"
    assert len(worker.cancelled) == 2 and active.state.live == 3


async def test_a_machine_that_slept_does_not_run_past_its_deadline(tmp_path: Path) -> None:
    clock = ManualClock()
    worker = ScriptedWorker(lambda turn: None, leases=2)
    async with open_desk(tmp_path, worker, clock) as desk:
        active = await desk.begin(FAN_OUT, texts("a", "b"), deadline_at=clock.now() + 60)
        await until(lambda: len(worker.running) == 2)
        clock.sleep(3600)
        for task in list(worker.running):
            worker.end(task, echo(worker.running[task]))
        assert len(await desk.finish(active)) == 2
        (jumped,) = desk.bodies(e.ClockJumped)
    assert jumped.by_s == 3600
    assert active.state.status is RunStatus.finished


async def test_cancelling_ends_every_task_once(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None, leases=2)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(FAN_OUT, texts("a", "b", "c"))
        await until(lambda: len(worker.running) == 2 and len(active.state.tasks) == 3)
        desk.dispatcher.cancel("r", "asked")
        records = await desk.finish(active)
    assert {r.as_dict()["status"] for r in records} == {"cancelled"} and len(records) == 3
    assert active.state.status is RunStatus.finished


async def test_a_client_that_takes_nothing_gets_no_more_than_its_credits(tmp_path: Path) -> None:
    from gx.run.results import CREDITS

    worker = ScriptedWorker(leases=64, keeps_turns=True)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(FAN_OUT, texts(*(f"row {n}" for n in range(4000))))
        with active.results.watch():
            await until(lambda: active.results.is_slow)
            before = len(worker.submitted)
            for _ in range(200):
                await anyio.lowlevel.checkpoint()
            assert len(worker.submitted) <= before + 64 + 1024 < 4000
        assert len(await desk.finish(active)) == 4000
    assert CREDITS == 1024


async def test_a_task_that_ends_its_bench_takes_no_task_of_another_run_with_it(tmp_path: Path) -> None:
    """Both are under way when the bench dies, twice; each runs alone then, also without the other run's."""
    worker = ScriptedWorker(leases=4)
    begun = 0

    def answer(turn: Turn) -> Answer | None:
        nonlocal begun
        if "poison" in turn.messages[-1].content:
            worker.die()
            return None
        begun += 1
        return echo(turn) if begun > 2 else None

    worker.answer = answer
    async with open_desk(tmp_path, worker) as desk:
        good = await desk.begin(FAN_OUT, texts("good"), run="good")
        await until(lambda: worker.running)
        bad = await desk.begin(FAN_OUT, texts("poison"), run="bad")
        (record,) = await desk.finish(bad)
        assert record.as_dict()["error"]["code"] == "crashed"
        (record,) = await desk.finish(good)
        assert record.as_dict()["status"] == "succeeded" and begun == 3
        alone = [body for body in desk.bodies(e.TaskLeased) if body.alone]
        assert {body.run for body in alone} == {"good", "bad"}
