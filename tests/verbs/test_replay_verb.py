"""`gx replay`: a run in the log, played again under other policies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from gx.cli import replay
from gx.core import event as e
from gx.core.errors import NotFound, UsageError
from gx.run.log import EventLog
from tests.verbs.writing import ONE, Writing

Call = Callable[..., Result]
RUN = "triage-ccc444"
DECODE_MS, ROW_MS, PROMPT_MS = 10.0, 2.0, 1.0


def measured(run: str, rows: list[int], prompts: list[int]) -> e.BenchMeasured:
    """What an engine would count whose calls take exactly what they should."""
    times = [(DECODE_MS + ROW_MS * n) / 1000 for n in rows]
    return e.BenchMeasured(
        run=run, worker="edge", epoch=1, incarnation=1, slots=4,
        decode_calls=len(rows), decode_tokens=sum(rows), decode_squares=sum(n * n for n in rows), decode_s=sum(times),
        decode_token_s=sum(n * t for n, t in zip(rows, times, strict=True)),
        prefill_calls=len(prompts), prefill_tokens=sum(prompts), prefill_squares=sum(n * n for n in prompts),
        prefill_s=sum(prompts) * PROMPT_MS / 1000, prefill_token_s=sum(n * n for n in prompts) * PROMPT_MS / 1000,
        busy_s=sum(times) + sum(prompts) * PROMPT_MS / 1000,
    )  # fmt: skip


def finished(n: int = 16, tokens_out: int = 200) -> Writing:
    """A run of tasks that were all there at once, four at a time."""
    w = Writing()
    w.begin(RUN)
    for task in [w.queue(RUN, i, f"T-{i}") for i in range(n)]:
        w.lease(RUN, task)
        w.succeed(RUN, task, {"a": 1}, tok_in=100, tok_out=tokens_out, tok_cached=40)
    rows = [4] * (tokens_out * n // 4 - 40) + [1, 2, 3, 2] * 20
    w.bodies.append(measured(RUN, rows, [60] * n))
    w.bodies.append(e.RunFinished(run=RUN, succeeded=n, failed=0))
    return w


def write(w: Writing, folder: Path, span_s: float) -> None:
    """With the run's events spread over so many seconds."""
    folder.mkdir(exist_ok=True)
    now = iter([1_700_000_000.0] * 2 + [1_700_000_000.0 + span_s] * 9)
    with EventLog.open(folder, now=lambda: next(now)) as log:
        log.append_sync(w.bodies[:-1], list(w.blobs.values()), source="node:1")
        log.append_sync(w.bodies[-1:], [], source="node:1")


def rows(call: Call, *args: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in call(replay.register, "replay", *args, "--json").stdout.splitlines()]


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    w = finished()
    busy_s = next(b.busy_s for b in w.bodies if isinstance(b, e.BenchMeasured))
    write(w, tmp_path / ".gx", span_s=busy_s + 1.0)
    return tmp_path / ".gx"


def test_policies_are_compared_with_the_run_as_it_was(recorded: Path, call: Call) -> None:
    own, more, one = rows(call, RUN, "-p", "slots=16", "-p", "slots=1")
    assert own["policy"] == "as it ran" and own["slots"] == 4
    assert own["seconds"] == pytest.approx(own["measured_s"], rel=0.1)
    expected_s = 16 * 60 * PROMPT_MS / 1000 + 200 * (DECODE_MS + 16 * ROW_MS) / 1000 + 1.0
    assert more["seconds"] == pytest.approx(expected_s, rel=0.1)
    assert more["seconds"] < own["seconds"] < one["seconds"]
    assert [row["usd"] for row in (own, more, one)] == [0, 0, 0]


def test_containers_shorten_it_for_money_and_say_what_is_assumed(recorded: Path, call: Call) -> None:
    policy = "containers=2,gpu=L4,burst=always,start=1s"
    _, rented = rows(call, RUN, "-p", policy)
    assert rented["usd"] > 0 and rented["rented"] > 0 and rented["containers"] == 2
    assert "6 × as fast as this machine" in rented["assumed"]
    result = call(replay.register, "replay", RUN, "-p", policy, "--plain")
    assert "fitted on" in result.stderr and "10.0 ms + 2.00 ms a row" in result.stderr
    assert "prices: https://" in result.stderr and "played again" in result.stderr


def test_automatic_bursts_tell_their_decisions(recorded: Path, call: Call) -> None:
    _, auto = rows(call, RUN, "-p", "containers=2,start=1s,faster=20,burst=auto")
    assert auto["decisions"][0]["reason"]
    assert auto["seconds"] <= rows(call, RUN, "-p", "slots=4")[1]["seconds"] * 1.02


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path, call: Call) -> None:
    w = finished()
    del w.bodies[-1]
    w.write(tmp_path / ".gx")
    with pytest.raises(UsageError, match="expected a finished run"):
        rows(call, RUN, "-p", "slots=2")


def test_a_run_that_computed_nothing_is_refused(tmp_path: Path, call: Call) -> None:
    w = Writing()
    w.begin(RUN)
    w.succeed(RUN, w.queue(RUN, 0, "T-0"), {"a": 1}, cached="f" * 16)
    w.bodies.append(e.RunFinished(run=RUN, succeeded=1, failed=0))
    w.write(tmp_path / ".gx")
    with pytest.raises(UsageError, match="computed nothing"):
        rows(call, RUN, "-p", "slots=2")


def test_a_run_whose_calls_were_not_added_up_is_refused(place: Path, call: Call) -> None:
    with pytest.raises(UsageError, match="doesn't say what the engine's calls took"):
        rows(call, ONE, "-p", "slots=2")


def test_what_is_no_run_or_no_policy_is_refused(recorded: Path, call: Call) -> None:
    with pytest.raises(NotFound):
        rows(call, "nope", "-p", "slots=2")
    with pytest.raises(UsageError, match="did you mean `slots`"):
        rows(call, RUN, "-p", "slot=2")
    with pytest.raises(UsageError, match="containers=0"):
        rows(call, RUN, "-p", "containers=0,burst=auto")


def test_time_in_which_a_run_was_interrupted_or_over_does_not_count(tmp_path: Path, call: Call) -> None:
    w = finished()
    w.bodies[-1:] = [e.RunInterrupted(run=RUN, reason="away"), e.RunResumed(run=RUN), w.bodies[-1]]
    folder = tmp_path / ".gx"
    folder.mkdir()
    with EventLog.open(folder, now=lambda: 1_700_000_000.0) as log:
        log.append_sync(w.bodies[:-3], list(w.blobs.values()), source="node:1")
    later: list[e.Body] = [e.NodeStarted(epoch=2, pid=9)]
    told = ((10.0, w.bodies[-3:-2]), (5000.0, w.bodies[-2:-1]), (5002.0, w.bodies[-1:]), (9000.0, later))
    for at_s, bodies in told:
        with EventLog.open(folder, now=lambda: 1_700_000_000.0 + at_s) as log:  # noqa: B023
            log.append_sync(bodies, [], source="node:1")
    assert rows(call, RUN, "-p", "slots=4")[0]["measured_s"] == pytest.approx(12.0)


def test_time_in_which_a_run_was_held_up_is_told(tmp_path: Path, call: Call) -> None:
    w = finished()
    held: list[e.Body] = [
        e.RunPaused(run=RUN, by="ada"),
        e.QuestionAsked(run=RUN, question="q", text="Well?", choices=("go on", "stop")),
        e.RunContinued(run=RUN, by="ada"),
        e.QuestionAnswered(run=RUN, question="q", choice="go on", by="ada"),
    ]
    now = [1_700_000_000.0]
    (tmp_path / ".gx").mkdir()
    with EventLog.open(tmp_path / ".gx", now=lambda: now[0]) as log:
        log.append_sync(w.bodies[:-1], list(w.blobs.values()), source="node:1")
        for body in [*held, w.bodies[-1]]:
            log.append_sync([body], [], source="node:1")
            now[0] += 10.0
    assert any("held up for 30 s" in note for note in rows(call, RUN, "-p", "slots=4")[0]["notes"])
