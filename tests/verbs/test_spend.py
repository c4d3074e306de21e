"""`gx spend`: tokens here, and what containers cost, by whatever they are listed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import Result

from gx.cli import gc, spend
from gx.core import event as e
from gx.core.errors import NotFound, UsageError
from gx.core.task import CloudLease
from gx.core.terms import Terms
from gx.run.history.spent import Container, Work, listed
from tests.verbs.writing import ONE, TWO, Writing

Call = Callable[..., Result]
RATE = 0.001


def reserved(run: str, name: str, at: float, gpu: str = "L4") -> e.ContainerReserved:
    return e.ContainerReserved(
        run=run, container=name, gpu=gpu, usd_per_s=RATE, timeout_s=60, cold_start_s=60, lease_s=60, window_s=10, at=at
    )


def burst() -> Writing:
    """ONE has a task here and a rented one; TWO is a rehearsal with a container that was seen, and one that wasn't."""
    w = Writing()
    w.begin(ONE)
    here, there = w.queue(ONE, 0, "T-0"), w.queue(ONE, 1, "T-1")
    w.lease(ONE, here)
    w.succeed(ONE, here, {"a": 1}, tok_in=100, tok_out=50)
    w.bodies += [e.BurstAllowed(run=ONE, terms=Terms(usd=1.0)), reserved(ONE, "c1", 1000.0)]
    w.bodies.append(e.TaskPrepared(run=ONE, task=there, attempt=1, key="k2", model="m" * 64, prompt=()))
    lease = CloudLease(call="", gpu="L4")
    w.bodies.append(e.TaskLeased(run=ONE, task=there, attempt=1, worker="cloud", lease=lease))
    w.bodies.append(e.CallMade(run=ONE, task=there, attempt=1, call="fc-1", gpu="L4"))
    w.succeed(ONE, there, {"a": 2}, worker="cloud", tok_in=200, tok_out=30, key="k2")
    w.bodies.append(e.ContainerSeen(run=ONE, container="c1", name="ta-1", began_at=1030.0, at=1090.0))
    w.bodies.append(e.ContainerEnded(run=ONE, container="c1", at=1120.0))
    w.begin(TWO, burst=Terms(is_rehearsal=True))
    w.bodies += [reserved(TWO, "c1", 2000.0, "A10"), reserved(TWO, "c2", 2000.0, "A10")]
    w.bodies.append(e.ContainerSeen(run=TWO, container="c1", name="ta-2", began_at=2001.0, at=2040.0))
    return w


@pytest.fixture
def bursts(tmp_path: Path) -> Path:
    burst().write(tmp_path / ".gx")
    return tmp_path / ".gx"


def rows(call: Call, *args: str) -> dict[str, dict[str, Any]]:
    found = [json.loads(line) for line in call(spend.register, "spend", *args, "--json").stdout.splitlines()]
    by = args[args.index("--by") + 1] if "--by" in args else "run"
    return {row[by]: row for row in found}


def test_a_container_costs_from_its_reservation_to_its_end_or_its_last_sight(bursts: Path, call: Call) -> None:
    found = rows(call)
    assert list(found) == [ONE, TWO]
    assert found[ONE]["usd"] == pytest.approx(120 * RATE) and found[ONE]["containers"] == 1
    assert (found[ONE]["tok_in"], found[ONE]["tok_out"], found[ONE]["tokens_rented"]) == (300, 80, 230)
    assert found[TWO]["usd"] == 0, "nobody pays for a rehearsal"
    assert found[TWO]["usd_rehearsed"] == pytest.approx(40 * RATE)
    assert (found[TWO]["containers"], found[TWO]["unseen"]) == (2, 1)


def test_this_machine_and_each_gpu_have_a_line(bursts: Path, call: Call) -> None:
    found = rows(call, "--by", "gpu")
    assert set(found) == {"this machine", "L4", "A10"}
    assert found["this machine"]["tokens"] == 150 and found["this machine"]["seconds_here"] == pytest.approx(1.5)
    assert found["L4"]["tokens"] == 230 and found["L4"]["usd"] == pytest.approx(0.12)


@pytest.mark.parametrize("by", ["step", "model"])
def test_steps_and_models_have_their_share_of_one_run(bursts: Path, call: Call, by: str) -> None:
    ((_, only),) = rows(call, ONE, "--by", by).items()
    assert only["usd"] == pytest.approx(0.12) and only["tokens"] == 380


def test_a_person_reads_a_table_and_what_may_cost_yet(bursts: Path, call: Call) -> None:
    result = call(spend.register, "spend", "--plain")
    assert "0.1200" in result.stdout and "usd, rehearsed" in result.stdout
    assert "in all: $0.1200, and $0.0400 that rehearsals would have cost" in result.stderr
    assert "2 containers have no end in the log, 1 of them never seen" in result.stderr


def test_runs_that_rented_nothing_have_tokens_and_no_dollars(place: Path, call: Call) -> None:
    found = rows(call)
    assert found[ONE]["tokens"] > 0 and found[ONE]["usd"] == 0
    assert "rented" not in call(spend.register, "spend", "--plain").stdout


def test_runs_that_were_archived_are_not_forgotten_without_a_word(bursts: Path, call: Call) -> None:
    w = Writing()
    w.begin("done-ccc444")
    w.bodies.append(e.RunFinished(run="done-ccc444", succeeded=0, failed=0))
    w.bodies += [e.RunFinished(run=ONE, succeeded=2, failed=0)]
    w.write(bursts)
    assert "archived" not in call(spend.register, "spend", "--json").stderr
    call(gc.register, "gc", "--keep-days", "0", "--yes")
    result = call(spend.register, "spend", "--json")
    assert ONE not in result.stdout and TWO in result.stdout
    assert "note: without 2 archived runs: `gx runs` lists them, `gx spend RUN` tells of one" in result.stderr
    found = call(spend.register, "spend", ONE, "--json")
    assert json.loads(found.stdout)["usd"] == pytest.approx(0.12) and "archived" not in found.stderr


def test_what_is_no_run_or_no_list_is_refused(bursts: Path, call: Call) -> None:
    with pytest.raises(NotFound):
        rows(call, "nope")
    with pytest.raises(UsageError, match="expected run, step, model or gpu, got 'day'"):
        call(spend.register, "spend", "--by", "day")


NAMES = st.sampled_from("ab")
GPUS = st.sampled_from(["L4", "A10"])
WORK = st.builds(Work, run=NAMES, step=NAMES, model=NAMES, gpu=st.just("") | GPUS, tok_in=st.integers(0, 9))
SECONDS = st.none() | st.floats(0, 99)
RENTED = st.builds(Container, run=NAMES, gpu=GPUS, usd_per_s=st.floats(0, 1), seconds=SECONDS)


@given(st.lists(WORK), st.lists(RENTED))
def test_the_dollars_are_the_same_by_whatever_they_are_listed(done: list[Work], rented: list[Container]) -> None:
    paid = sum(one.usd for one in rented)
    for by in ("run", "step", "model", "gpu"):
        lines = listed(done, rented, by)  # type: ignore[arg-type]
        assert sum(line.usd for line in lines) == pytest.approx(paid)
        assert sum(line.tok_in for line in lines) == sum(work.tok_in for work in done)
