"""`gx run --dry-run`: counts that hold, prompts that a run would make, estimates that say what they rest on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gx.core.message import Turn
from gx.flow.parse import parse_recipe, resolve_params
from gx.flow.plan import Plan, make_plan
from gx.run.dryrun import Forecast, Forecaster, Past
from gx.run.inputs import Row
from gx.run.rehearsal import SAMPLE, Rehearsal, Survey, survey
from tests.nodes import LINGERS_S

HEAD = """\
version: 1
name: t
models: {small: smollm2}
agents:
  a: {persona: "You are {{ params.who }}.", sampling: {max_tokens: 100}}
params: {who: a clerk}
"""
ONE = '  - {id: one, for_each: inputs, agent: a, prompt: "Read: {{ item.text }}"}\n'


def plan_of(*steps: str) -> Plan:
    recipe = parse_recipe(HEAD + "steps:\n" + "".join(steps))
    return make_plan(recipe, resolve_params(recipe, {}))


def rows(count: int, text: str = "x" * 36) -> list[Row]:
    return [Row(index=n, line=n + 1, id=str(n), value=json.dumps({"text": text}).encode()) for n in range(count)]


def forecast(
    plan: Plan, found: list[Row], *, history: Past | None = None, known: Collection[str] = ()
) -> list[Forecast]:
    return list(
        Forecaster(
            plan,
            survey(found),
            models={"small": "sha"},
            contexts={"small": 1000},
            find_past=lambda model, step: history if model == "sha" else None,
            find_results=lambda keys: set(keys).intersection(known),
        ).steps()
    )


@given(st.integers(0, 1000), st.integers(0, 20))
def test_a_survey_counts_every_row_and_keeps_a_sample_with_the_first(good: int, bad: int) -> None:
    found = [Row(index=n, line=None, id=str(n), error="malformed") for n in range(bad)]
    found += [Row(index=bad + n, line=None, id=str(bad + n), value=b"{}") for n in range(good)]
    made = survey(iter(found))
    assert (made.rows, made.unusable, len(made.sample)) == (good + bad, bad, min(good, SAMPLE))
    indexes = [row.index for row in made.sample]
    assert indexes == sorted(set(indexes)) and indexes[:1] == ([bad] if good else [])


@given(st.integers(1, 300), st.integers(1, 3))
def test_tasks_over_inputs_are_counted_exactly(count: int, width: int) -> None:
    values = json.dumps(list(range(width)))
    step = f'  - {{id: one, for_each: inputs, agent: a, matrix: {{n: {values}}}, prompt: "{{{{ matrix.n }}}}"}}\n'
    (made,) = forecast(plan_of(step), rows(count))
    assert (made.tasks, made.is_exact) == (count * width, True)


def test_the_first_prompt_is_the_one_of_a_run() -> None:
    (made,) = forecast(plan_of(ONE), rows(3, "hello"))
    assert [(m.role, m.content) for m in made.prompt] == [("system", "You are a clerk."), ("user", "Read: hello")]
    assert not made.is_template and made.problem == ""


def test_without_history_half_of_max_tokens_is_assumed_and_no_time_is_given() -> None:
    (made,) = forecast(plan_of(ONE), rows(10))
    assert made.tokens_out == 500 and "half of max_tokens" in made.tokens_out_basis
    assert made.tokens_in == pytest.approx(10 * (len("You are a clerk.") + len("Read: ") + 36) / 3.6, abs=1)
    assert made.seconds is None and "--limit 5" in made.seconds_basis


def test_with_history_answers_and_time_are_as_they_were() -> None:
    (made,) = forecast(plan_of(ONE), rows(10), history=Past(tasks=5, tokens_in=500, tokens_out=100, busy_s=6.0))
    assert made.tokens_out == 10 * 20
    assert made.seconds == pytest.approx((made.tokens_in + made.tokens_out) / 100, rel=0.01)


def test_what_is_in_the_log_costs_nothing() -> None:
    plan, found = plan_of(ONE), rows(4)
    turns: list[Turn] = Rehearsal(plan, plan.steps[0], survey(found).sample, {"small": "sha"}).turns
    (made,) = forecast(plan, found, known=[turn.key() for turn in turns])
    assert (made.reused, made.tokens_in, made.tokens_out, made.seconds) == (4, 0, 0, 0.0)


def test_unusable_rows_are_tasks_that_cost_nothing() -> None:
    bad = Row(index=2, line=3, id="2", error="malformed")
    (made,) = forecast(plan_of(ONE), [*rows(2), bad])
    assert made.tasks == 3 and made.tokens_out == 2 * 50


def test_a_row_that_lacks_what_the_template_needs_is_named() -> None:
    lacking = [Row(index=n, line=n, id=str(n), value=b"{}") for n in range(2)]
    (made,) = forecast(plan_of(ONE), lacking)
    assert made.prompt == () and "text" in made.problem and made.tokens_in == 0


def test_a_batch_row_that_is_mistyped_is_named() -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "stop": 7}
    value = json.dumps({"id": "c", "messages": body["messages"], "body": body, "text": "x"}).encode()
    batch = Row(index=0, line=1, id="c", value=value, is_batch=True)
    (made,) = forecast(plan_of("  - {id: one, for_each: inputs, agent: a}\n"), [batch])
    assert made.prompt == () and "$.stop" in made.problem


def test_steps_over_results_show_their_template_and_are_bounded() -> None:
    two = '  - {id: two, for_each: one, agent: a, prompt: "Again: {{ item }}"}\n'
    three = '  - {id: three, reduce: two, agent: a, prompt: "{{ items }}"}\n'
    four = '  - {id: four, needs: [three], agent: a, prompt: "{{ steps.three }}"}\n'
    one, second, third, fourth = forecast(plan_of(ONE, two, three, four), rows(100))
    assert (second.tasks, second.is_exact, second.is_template) == (100, False, True)
    assert second.prompt[-1].content == "Again: {{ item }}" and second.prompt[0].content == "You are a clerk."
    assert second.count == "at most 100 tasks, one for each result of `one`"
    assert third.count.startswith("a tree of about 7 tasks")  # 100 × 50 tokens in contexts of 1000 − 100, then once
    assert third.tokens_in >= 100 * 50
    assert fourth.tasks == 1 and fourth.tokens_in == pytest.approx(50 + (16 + 19) / 3.6, abs=1)
    assert one.tokens_out == 100 * 50


def test_a_filter_makes_the_count_a_bound_and_the_estimate_smaller() -> None:
    half = ONE.replace("agent: a,", "agent: a, when: index % 2 == 0,")
    (made,) = forecast(plan_of(half), rows(100))
    assert (made.tasks, made.is_exact, made.tokens_out) == (100, False, 50 * 50)
    assert made.count == "at most 100 tasks, one for each row"


@given(st.integers(0, 10_000))
def test_a_tree_ends(count: int) -> None:
    three = '  - {id: three, reduce: one, agent: a, prompt: "{{ items }}"}\n'
    _, made = Forecaster(
        plan_of(ONE, three),
        Survey(rows=count, sample=tuple(rows(1))),
        models={},
        contexts={"small": 120},
        find_past=lambda model, step: None,
        find_results=lambda keys: (),
    ).steps()
    assert 1 <= made.tasks <= 2 * max(count, 1)


def gx(folder: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"GX_WORKSPACE": str(folder / ".gx"), "XDG_CACHE_HOME": str(folder / "cache")}
    environment["GX_NODE_LINGER_S"] = str(LINGERS_S)
    command = [sys.executable, "-P", "-m", "gx", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180, input=stdin
    )


def test_a_dry_run_runs_nothing_and_then_knows_what_a_run_took(tmp_path: Path) -> None:
    recipe = HEAD.replace("max_tokens: 100", "max_tokens: 8") + "steps:\n" + ONE
    (tmp_path / "r.yaml").write_text(recipe)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": f"number {n}"}) + "\n" for n in range(4)))
    before = gx(tmp_path, "run", "r.yaml", "-i", "in.jsonl", "--dry-run")
    assert before.returncode == 0, before.stderr
    row: dict[str, Any] = json.loads(before.stdout)
    assert (row["step"], row["tasks"], row["tokens_out"], row["seconds"]) == ("one", 4, 16, None)
    assert row["prompt"][-1] == {"role": "user", "content": "Read: number 0"}
    assert "nothing was run" in before.stderr and not (tmp_path / ".gx").exists()
    ran = gx(tmp_path, "run", "r.yaml", "-i", "in.jsonl", "--limit", "2", "-q")
    assert ran.returncode == 0, ran.stderr
    after = json.loads(gx(tmp_path, "run", "r.yaml", "-i", "in.jsonl", "--dry-run").stdout)
    assert after["reused"] == 2 and after["seconds"] > 0 and "earlier" in after["tokens_out_basis"]
    plain = gx(tmp_path, "run", "r.yaml", "-i", "-", "--dry-run", "--plain", stdin='{"text": "other"}\n')
    assert plain.returncode == 0 and "step one: 1 task, one for each row; agent a on smollm2" in plain.stdout
    assert "user: Read: other" in plain.stdout


def test_a_dry_run_of_a_model_that_is_elsewhere_says_how_to_fetch_it(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(HEAD.replace("smollm2", "qwen3-8b") + "steps:\n" + ONE)
    (tmp_path / "in.jsonl").write_text('{"text": "x"}\n')
    done = gx(tmp_path, "run", "r.yaml", "-i", "in.jsonl", "--dry-run")
    assert done.returncode == 0 and "gx models pull qwen3-8b" in done.stderr
    assert json.loads(done.stdout)["models"] == ["qwen3-8b"]
