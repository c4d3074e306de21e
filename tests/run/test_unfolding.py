"""Steps as people combine them: needs, for_each, reduce, when, matrix, partial failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from gx.core import event as e
from gx.core.message import Failure, Turn
from gx.core.task import Status
from tests.desk import open_desk
from tests.fakes import ScriptedWorker, echo
from tests.run.test_dispatcher import HEAD, fails_on, texts

pytestmark = pytest.mark.anyio

TWO_STEPS = (
    HEAD
    + """
steps:
  - {id: first, for_each: inputs, agent: a, prompt: "{{ item.text }}"}
  - {id: second, for_each: first, agent: a, prompt: "again {{ item }} of {{ input.id }}"}
"""
)


async def test_a_step_over_results_sees_each_result_and_its_row(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        _, records = await desk.run(TWO_STEPS, texts("one", "two"))
    assert [(r["id"], r["output"]) for r in sorted(records, key=lambda r: r["index"])] == [
        ("T0", "again one of T0"),
        ("T1", "again two of T1"),
    ]


async def test_a_step_runs_on_the_successes_of_what_it_needs(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ScriptedWorker(fails_on("bad", retryable=False))) as desk:
        state, records = await desk.run(TWO_STEPS, texts("one", "bad", "two"))
    assert sorted(r["id"] for r in records) == ["T0", "T2"]
    assert state.count(Status.failed) == 1


async def test_a_step_is_skipped_when_nothing_it_needs_succeeded(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ScriptedWorker(fails_on("bad", retryable=False))) as desk:
        state, records = await desk.run(TWO_STEPS, texts("bad"))
        assert records == []
    assert state.steps["second"].skipped == "nothing of `first` succeeded"


def last_step(when: str) -> str:
    return (
        HEAD
        + f"""
steps:
  - {{id: first, for_each: inputs, agent: a, prompt: "{{{{ item.text }}}}"}}
  - {{id: last, needs: [first], agent: a, prompt: done, when: "{when}"}}
"""
    )


@pytest.mark.parametrize(
    ("when", "words", "runs"),
    [
        ("all_ok()", ["one"], True),
        ("all_ok()", ["one", "bad"], False),
        ("always()", ["bad"], True),
        ("any_ok()", ["one", "bad"], True),
        ("steps.first | length > 1", ["one", "two"], True),
        ("steps.first | length > 1", ["one"], False),
    ],
)
async def test_when_decides_whether_a_step_runs(tmp_path: Path, when: str, words: list[str], runs: bool) -> None:
    async with open_desk(tmp_path, ScriptedWorker(fails_on("bad", retryable=False))) as desk:
        _, records = await desk.run(last_step(when), texts(*words))
    assert [r["status"] for r in records if r["status"] != "skipped"] == (["succeeded"] if runs else [])


async def test_when_is_asked_for_each_item(tmp_path: Path) -> None:
    recipe = (
        HEAD
        + """
steps:
  - {id: s, for_each: inputs, agent: a, prompt: "{{ item.text }}", when: "item.text != 'no'"}
"""
    )
    worker = ScriptedWorker()
    async with open_desk(tmp_path, worker) as desk:
        _, records = await desk.run(recipe, texts("yes", "no"))
    assert {r["id"]: r["status"] for r in records} == {"T0": "succeeded", "T1": "skipped"}
    assert len(worker.submitted) == 1


async def test_a_closed_gate_lets_no_row_through(tmp_path: Path) -> None:
    recipe = (
        HEAD
        + """
steps:
  - {id: one, agent: a, prompt: bad}
  - {id: two, needs: [one], for_each: inputs, agent: a, prompt: "{{ item.text }}"}
"""
    )
    worker = ScriptedWorker(fails_on("bad", retryable=False))
    async with open_desk(tmp_path, worker) as desk:
        state, records = await desk.run(recipe, texts(*"abc"))
    assert records == [] and len(worker.submitted) == 1
    assert state.steps["two"].skipped


async def test_a_matrix_may_hold_any_text_and_chooses_the_agent(tmp_path: Path) -> None:
    recipe = """
version: 1
name: m
models: {m: smollm2}
agents: {one: {model: m, persona: one}, two: {model: m, persona: two}}
steps:
  - id: s
    for_each: inputs
    agent: "{{ matrix.who }}"
    prompt: "{{ matrix.path }}"
    matrix: {who: [one, two], path: [a/b, c=d]}
"""
    worker = ScriptedWorker()
    async with open_desk(tmp_path, worker) as desk:
        _, records = await desk.run(recipe, texts("x"))
    assert sorted((r["matrix"]["who"], r["matrix"]["path"]) for r in records) == [
        ("one", "a/b"),
        ("one", "c=d"),
        ("two", "a/b"),
        ("two", "c=d"),
    ]
    assert {(t.messages[0].content, t.messages[1].content) for t in worker.submitted} == {
        (who, path) for who in ("one", "two") for path in ("a/b", "c=d")
    }


async def test_continue_on_error_keeps_all_ok_true(tmp_path: Path) -> None:
    recipe = last_step("all_ok()").replace('item.text }}"', 'item.text }}", continue_on_error: true')
    async with open_desk(tmp_path, ScriptedWorker(fails_on("bad", retryable=False))) as desk:
        _, records = await desk.run(recipe, texts("one", "bad"))
    assert [r["status"] for r in records] == ["succeeded"]


async def test_a_matrix_multiplies_tasks(tmp_path: Path) -> None:
    recipe = (
        HEAD
        + """
steps:
  - id: s
    for_each: inputs
    agent: a
    prompt: "{{ matrix.tone }} {{ matrix.n }} {{ item.text }}"
    matrix: {tone: [kind, curt], n: [1, 2]}
"""
    )
    async with open_desk(tmp_path) as desk:
        _, records = await desk.run(recipe, texts("x"))
    assert sorted(r["output"] for r in records) == ["curt 1 x", "curt 2 x", "kind 1 x", "kind 2 x"]
    assert {tuple(sorted(r["matrix"].items())) for r in records} == {
        (("n", n), ("tone", tone)) for n in (1, 2) for tone in ("kind", "curt")
    }


REDUCE = (
    HEAD
    + """
steps:
  - {id: each, for_each: inputs, agent: a, prompt: "{{ item.text }}"}
  - id: all
    reduce: each
    agent: short
    prompt: "{% for t in items %}<{{ t }}>{% endfor %}"
    combine: "{% for t in items %}[{{ t }}]{% endfor %}"
""".replace("steps:", "steps:", 1)
)
REDUCE = REDUCE.replace("agents: {", "agents: {short: {model: m, sampling: {max_tokens: 20}}, ")


async def test_a_reduce_that_fits_is_one_call_over_all_items_in_order(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        _, records = await desk.run(REDUCE, texts("one", "two", "three"))
    assert [r["output"] for r in records] == ["<one><two><three>"]


async def test_a_reduce_that_does_not_fit_is_a_tree_that_sees_every_item_once(tmp_path: Path) -> None:
    def answer(turn: Turn):
        text = turn.messages[-1].content
        if text.startswith(("<", "[")):  # a summary: short, and naming how many items it holds
            from gx.core.message import Answer

            inner = text.count("<") or sum(int(part) for part in text.strip("[]").split("]["))
            return Answer(value=str(inner).encode())
        return echo(turn)

    words = [f"item number {n} with some words" for n in range(200)]
    async with open_desk(tmp_path, ScriptedWorker(answer, context=300)) as desk:
        state, records = await desk.run(REDUCE, texts(*words))
        levels = [len(body.spans) for body in desk.bodies(e.StepGrouped)]
    assert [r["output"] for r in records] == [200]
    assert len(levels) >= 2 and levels[-1] == 1 and levels == sorted(levels, reverse=True)
    assert len(state.steps["all"].tasks) == sum(levels)


async def test_a_part_of_a_reduce_that_fails_leaves_the_others(tmp_path: Path) -> None:
    def answer(turn: Turn):
        text = turn.messages[-1].content
        return Failure(code="bad", message="no", retryable=False) if "<item number 3 " in text else echo(turn)

    words = [f"item number {n} with some words" for n in range(40)]
    worker = ScriptedWorker(answer, context=300)
    recipe = REDUCE.replace("[{{ t }}]", "[{{ t | length }}]")
    async with open_desk(tmp_path, worker) as desk:
        state, records = await desk.run(recipe, texts(*words))
    assert len(records) == 1 and records[0]["status"] == "succeeded"
    assert state.count(Status.failed) == 1


async def test_unfolding_after_a_restart_makes_nothing_twice(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        _state, first = await desk.run(REDUCE, texts("one", "two"), run="r1")
    async with open_desk(tmp_path) as desk:
        _again, second = await desk.run(REDUCE, texts("one", "two"), run="r1")
        queued = [body.task for body in desk.bodies(e.TaskQueued)]
    assert len(queued) == len(set(queued)) == 3
    assert first[0]["output"] == second[0]["output"]
