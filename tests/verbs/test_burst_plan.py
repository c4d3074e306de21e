"""`gx burst --plan`: this machine alone beside containers, for a run in the log and a recipe; and leave to spend."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from cloud.cost import RATES, offers
from gx import output
from gx.cli import burst
from gx.cli.leave import agreed, dollars, terms_of, tokens_or_dollars
from gx.cli.paper import Plan, bars, plan_of
from gx.core import event as e
from gx.core.errors import NotFound, UsageError
from gx.core.terms import Terms
from gx.flow.parse import parse_recipe
from gx.flow.privacy import Outlook
from gx.run.log import EventLog
from gx.run.replay.line import Line, Pace
from gx.run.replay.paper import Scene, on_paper, thinned
from gx.run.replay.play import play
from gx.run.replay.trace import Edge, Job, Policy, Trace
from tests.tiny_model import write_tiny_model
from tests.verbs.writing import RECIPE, Writing

Call = Callable[..., Result]
RUN = "triage-ccc444"
PACE = Pace(decode=Line(fixed_s=0.05, each_s=0.002), prefill=Line(each_s=0.001))
OFFERS = offers(RATES, timeout_s=120, start_limit_s=300)


@pytest.fixture(autouse=True)
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this user's, and no way of showing things left over."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["gx", "burst", "--cloud", "recipe.yaml"])
    output.set_mode()


def scene(tasks: int = 400, *, private: int = 0, **more: Any) -> Scene:
    jobs = [Job(task=f"t{n}", group="s/0", tokens_in=200, tokens_out=100, is_private=n < private) for n in range(tasks)]
    return Scene(name="r", trace=Trace(jobs=tuple(jobs)), edge=Edge(pace=PACE, slots=8), is_measured=True, **more)


def running(ended: int, of: int) -> Writing:
    """A run of which some tasks have ended, and one bench told what they took."""
    w = Writing()
    w.begin(RUN)
    tasks = [w.queue(RUN, i, f"T-{i}") for i in range(of)]
    for task in tasks[:ended]:
        w.lease(RUN, task)
        w.succeed(RUN, task, {"a": 1}, tok_in=100, tok_out=200)
    rows = [4, 4, 4, 2] * 50
    times = [0.01 + 0.002 * n for n in rows]
    w.bodies.append(
        e.BenchMeasured(
            run=RUN,
            worker="edge",
            epoch=1,
            incarnation=1,
            slots=4,
            decode_calls=len(rows),
            decode_tokens=sum(rows),
            decode_squares=sum(n * n for n in rows),
            decode_s=sum(times),
            decode_token_s=sum(n * t for n, t in zip(rows, times, strict=True)),
            busy_s=sum(times),
        )
    )
    return w


def rows(call: Call, *args: str) -> list[dict[str, Any]]:
    found = call(burst.register, "burst", "--plan", *args, "--json")
    return [json.loads(line) for line in found.stdout.splitlines()]


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_left_of_a_live_run_is_planned_from_what_it_measured(tmp_path: Path, call: Call) -> None:
    running(ended=8, of=4000).write(tmp_path / ".gx")
    alone, *rented = rows(call, RUN, "--gpu", "L4", "--gpu", "H100", "--max-containers", "4")
    assert (alone["gpu"], alone["containers"], alone["usd_high"]) == (None, 0, 0)
    assert [(row["gpu"], row["containers"]) for row in rented if row["containers"] in (1, 2, 4)] == [
        (gpu, n) for gpu in ("L4", "H100") for n in (1, 2, 4)
    ]
    assert all(row["seconds"] < alone["seconds"] and 0 < row["usd_low"] <= row["usd_high"] for row in rented)
    assert sum(row["is_chosen"] for row in (alone, *rented)) == 1
    assert "tokens/s measured" in next(row["reason"] for row in (alone, *rented) if row["is_chosen"])
    assert rented[0]["prices"]["date"] and any("6 ×" in text for text in rented[0]["assumed"])


def test_a_person_reads_a_table_bars_and_what_was_assumed(tmp_path: Path, call: Call) -> None:
    running(ended=8, of=2000).write(tmp_path / ".gx")
    args = ("burst", "--plan", RUN, "--gpu", "L4", "--deadline", "2m", "--plain")
    result = call(burst.register, *args)
    assert "edge only" in result.stdout and "within 2 min " in result.stdout and "late" in result.stdout
    assert result.stdout.count("< placement's choice") == 1
    assert "assumed: a container takes 60 s to start" in result.stderr
    assert "prices: https://" in result.stderr and "nothing was rented" in result.stderr


@pytest.mark.parametrize("flag", ["--plan", "--rehearse"])
def test_more_containers_than_anybody_rents_out_are_refused_at_once(tmp_path: Path, call: Call, flag: str) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    with pytest.raises(UsageError, match="max_containers: expected 1 to 100, got 100000000"):
        call(burst.register, "burst", flag, str(tmp_path / "recipe.yaml"), "--max-containers", "100000000")


def test_a_run_of_which_nothing_has_ended_tells_nothing(tmp_path: Path, call: Call) -> None:
    running(ended=0, of=5).write(tmp_path / ".gx")
    with pytest.raises(UsageError, match="nothing of triage-ccc444 has ended yet"):
        rows(call, RUN)


def test_a_run_that_is_over_is_planned_as_a_whole(tmp_path: Path, call: Call) -> None:
    w = running(ended=40, of=40)
    w.bodies.append(e.RunFinished(run=RUN, succeeded=40, failed=0))
    (tmp_path / ".gx").mkdir()
    now = iter([1_700_000_000.0] * 2 + [1_700_000_030.0] * 9)
    with EventLog.open(tmp_path / ".gx", now=lambda: next(now)) as log:
        log.append_sync(w.bodies[:-1], list(w.blobs.values()), source="node:1")
        log.append_sync(w.bodies[-1:], [], source="node:1")
    result = call(burst.register, "burst", "--plan", RUN, "--gpu", "L4", "--plain")
    assert "is over: this is all of it, which took 30.0 s" in result.stderr


def test_what_cannot_be_meant_is_refused(tmp_path: Path, call: Call) -> None:
    running(ended=1, of=2).write(tmp_path / ".gx")
    for args, said in (
        ((), "expected one of --cloud, --plan and --rehearse"),
        (("--plan", "--cloud"), "expected one of --cloud, --plan and --rehearse"),
        (("--plan", RUN, "--limit", "3"), "--limit goes with a recipe"),
        (("--plan", RUN, "--gpu", "l4"), "expected one of T4, L4"),
        (("--plan", RUN, "--budget", "much"), "expected dollars, such as 2.00, got 'much'"),
        (("--plan", RUN, "--deadline", "soon"), "expected a duration"),
    ):
        with pytest.raises(UsageError, match=said):
            call(burst.register, "burst", *args)
    with pytest.raises(NotFound, match="there is no run nope"):
        call(burst.register, "burst", "--plan", "nope")
    with pytest.raises(NotFound, match="no run is live"):
        call(burst.register, "burst", "--cloud")
    with pytest.raises(NotFound, match="triage-ccc444 is not live"):
        call(burst.register, "burst", "--rehearse", "triage-c")


# ── recipes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_recipe_that_never_ran_here_is_planned_on_assumptions_that_are_said(tmp_path: Path, call: Call) -> None:
    write_tiny_model(tmp_path / "model.gguf", context=512)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("steps:", "deadline: 10m\nsteps:"))
    rows_file = tmp_path / "rows.jsonl"
    rows_file.write_text("".join(json.dumps({"id": str(n), "text": "word " * 20}) + "\n" for n in range(50)))
    args = (str(tmp_path / "recipe.yaml"), "-i", str(rows_file), "--gpu", "L4", "--max-containers", "2")
    found = rows(call, *args)
    assert [row["containers"] for row in found] == [0, 1, 2]
    assert all(row["meets_deadline"] is not None for row in found), "the recipe has one"
    assert any("has not run here yet" in text for text in found[0]["assumed"])


def test_private_steps_stay_on_paper_too(tmp_path: Path, call: Call) -> None:
    write_tiny_model(tmp_path / "model.gguf", context=512)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("id: s,", "id: s, private: true,"))
    (tmp_path / "rows.jsonl").write_text('{"id": "1", "text": "a"}\n')
    args = ("burst", "--plan", str(tmp_path / "recipe.yaml"), "-i", str(tmp_path / "rows.jsonl"), "--plain")
    result = call(burst.register, *args)
    assert "stays on this machine: s" in result.stderr and " x " not in result.stdout


# ── reckoning ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_cheapest_choice_that_meets_the_deadline_is_marked() -> None:
    made = on_paper(scene(4000), [OFFERS["L4"]], most=8, usd=20.0, deadline_s=600.0)
    (chosen,) = [choice for choice in made.choices if choice.is_chosen]
    assert chosen.containers == made.verdict.containers > 0 and chosen.is_in_time
    assert all(not choice.is_in_time for choice in made.choices if choice.containers < chosen.containers // 2)


def test_a_cap_without_room_for_a_container_leaves_this_machine_alone() -> None:
    made = on_paper(scene(4000), [OFFERS["L4"]], most=4, usd=0.01, deadline_s=None)
    assert made.verdict.containers == 0 and made.choices[0].is_chosen
    assert all(choice.usd == 0 for choice in made.choices)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 300), st.integers(0, 300), st.floats(0.05, 5))
def test_a_cap_is_kept_and_nothing_private_is_rented_for(tasks: int, private: int, usd: float) -> None:
    work = scene(tasks, private=private)
    made = on_paper(work, [OFFERS["L4"]], most=4, usd=usd, deadline_s=None)
    assert made.choices[0].usd == 0 == made.choices[0].containers
    assert sum(choice.is_chosen for choice in made.choices) == 1
    shared = sum(job.tokens for job in work.trace.jobs if not job.is_private)
    assert all(choice.usd <= usd * 1.001 and choice.tokens_rented <= shared * 1.01 for choice in made.choices)


def test_a_sample_that_stands_for_many_takes_as_long_as_they_do() -> None:
    full = scene(3000)
    few, each = thinned(full.trace, 500)
    assert each == 6 and len(few.jobs) == 500
    whole = play(full.trace, Policy(slots=8), full.edge).makespan_s
    slow = msgspec.structs.replace(PACE.faster(1 / each), row_s=PACE.row_s * each)
    assert play(few, Policy(slots=8), Edge(pace=slow, slots=8)).makespan_s == pytest.approx(whole, rel=0.05)


def test_bars_are_plain_where_a_stream_has_no_blocks() -> None:
    recipe = parse_recipe(RECIPE)
    plan = plan_of(scene(2000), Terms(gpu=("L4",), max_containers=2), recipe)
    assert "#" in bars(plan, "ascii")[0] and "█" in bars(plan, "utf-8")[0]
    longest = max(plan.sheet.choices, key=lambda choice: choice.seconds)
    assert bars(plan, "ascii")[plan.sheet.choices.index(longest)].count("#") == 32


# ── leave to spend ───────────────────────────────────────────────────────────────────────────────────────────────


def estimate() -> Plan:
    return plan_of(scene(4000), Terms(gpu=("L4",), max_containers=2), parse_recipe(RECIPE))


GOES = {"s": Outlook(reads=("item.text",), reason="")}


@pytest.mark.parametrize("usd", [None, 1.5])
def test_nobody_spends_without_leave(usd: float | None, capsys: pytest.CaptureFixture[str]) -> None:
    terms = Terms(gpu=("L4",), max_containers=2, usd=usd)
    if usd is None:
        with pytest.raises(UsageError, match="needs a budget, --yes, or a terminal") as refused:
            agreed(terms, estimate(), GOES, is_yes=False)
        assert refused.value.hint.startswith("gx burst --cloud recipe.yaml --budget '$")
    else:
        assert agreed(terms, estimate(), GOES, is_yes=False).usd == usd
    said = capsys.readouterr().err
    assert "may leave this machine: prompts of step s (it reads item.text)" in said
    assert "estimate: $" in said and "prices: https://" in said and "cap: $" in said


def test_yes_agrees_to_the_estimates_upper_end_with_room_for_one_container() -> None:
    plan = estimate()
    cap = agreed(Terms(gpu=("L4",), max_containers=2), plan, GOES, is_yes=True).usd
    assert cap is not None and cap >= plan.estimates[plan.chosen].high_usd and cap >= plan.reserve_usd


def test_without_an_estimate_there_must_be_a_cap() -> None:
    with pytest.raises(UsageError, match="nobody can tell what this would cost"):
        agreed(Terms(), None, GOES, is_yes=True)
    assert agreed(Terms(usd=2.0), None, GOES, is_yes=False).usd == 2.0


def test_a_rehearsal_and_no_burst_need_no_leave(capsys: pytest.CaptureFixture[str]) -> None:
    kept = {"s": Outlook(reads=(), reason="step s is private")}
    assert agreed(Terms(is_rehearsal=True), None, kept, is_yes=False).usd is None
    assert agreed(Terms(mode="off"), None, GOES, is_yes=False).mode == "off"
    said = capsys.readouterr().err
    assert "stays here: step s: step s is private" in said and "nothing may leave this machine" in said


def test_the_command_stands_over_the_recipe() -> None:
    text = RECIPE.replace("steps:", "budget: {usd: 2}\nburst: {gpu: A10, max_containers: 3}\nsteps:")
    recipe = parse_recipe(text)
    assert terms_of(recipe) == Terms(gpu=("A10",), max_containers=3, usd=2.0)
    changed = terms_of(recipe, mode="force", gpu=["L4", "H100"], containers=9, usd=0.5, target_s=60.0)
    assert changed == Terms(mode="force", gpu=("L4", "H100"), max_containers=9, usd=0.5, target_s=60.0)


@pytest.mark.parametrize(
    ("text", "tokens", "usd"),
    [(None, None, None), ("200", 200, None), ("1_000", 1000, None), ("2.00", None, 2.0), ("$2", None, 2.0)],
)
def test_a_budget_of_a_run_is_tokens_or_dollars(text: str | None, tokens: int | None, usd: float | None) -> None:
    assert tokens_or_dollars(text, bursts=False) == (tokens, usd)


def test_a_budget_that_could_be_both_is_asked_about() -> None:
    with pytest.raises(UsageError, match="say which: dollars or tokens"):
        tokens_or_dollars("2", bursts=True)
    for wrong in ("0", "-1.0", "nan", "inf", "two", "$"):
        with pytest.raises(UsageError):
            tokens_or_dollars(wrong, bursts=False)
    assert dollars("2") == dollars("$2.00") == dollars("2usd") == 2.0


def test_the_verb_is_in_the_help() -> None:
    app = typer.Typer()
    app.command("none")(lambda: None)
    burst.register(app)
    assert "--rehearse" in CliRunner().invoke(app, ["burst", "--help"]).output
