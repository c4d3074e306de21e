"""The metrics of a run, as its events make them."""

from __future__ import annotations

import pytest

from gx.core import event as e
from gx.core.terms import Terms
from gx.otel import conventions as c
from gx.otel.values import Metric
from tests.otel.scripted import RUN, Script


def named(script: Script) -> dict[str, Metric]:
    return {metric.name: metric for metric in script.measures.metrics()}


def test_boundaries_are_those_of_the_conventions() -> None:
    assert c.TOKEN_BOUNDS == (
        1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864,
    )  # fmt: skip
    assert c.DURATION_BOUNDS == (
        0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
    )  # fmt: skip
    assert c.SCHEMA == "https://opentelemetry.io/schemas/1.41.1"


def test_calls_are_counted_by_how_long_they_took_and_what_they_used() -> None:
    script = Script().begin()
    for index, seconds in enumerate((0.01, 0.3, 100)):
        task = script.queue(index)
        script.lease(task)
        script.succeed(task, after_us=int(seconds * 1e6))
    (spread,) = named(script)[c.OPERATION_DURATION].spreads
    assert (spread.count, spread.least, spread.most) == (3, 0.01, 100.0)
    assert spread.total == pytest.approx(100.31)
    assert [n for n, count in enumerate(spread.buckets) if count] == [0, 5, 14], "a bound belongs to its bucket"
    usage = {str(one.attributes[c.TOKEN_TYPE]): one for one in named(script)[c.TOKEN_USAGE].spreads}
    assert (usage["input"].total, usage["output"].total, usage["input"].count) == (36, 15, 3)
    assert usage["input"].attributes[c.MODEL] == "tiny.gguf"


def test_failed_calls_are_a_series_of_their_own() -> None:
    script = Script().begin()
    task = script.queue()
    script.lease(task)
    script.add(e.AttemptFailed(run=RUN, task=task, attempt=1, worker="edge", code="timeout", message="x", tok_in=4))
    (spread,) = named(script)[c.OPERATION_DURATION].spreads
    assert spread.attributes[c.ERROR] == "timeout"


def test_what_waits_runs_and_ended_is_told() -> None:
    script = Script().begin()
    tasks = [script.queue(index) for index in range(3)]
    script.lease(tasks[0])
    script.lease(tasks[1])
    script.succeed(tasks[0])
    found = named(script)
    assert [found[f"gx.tasks.{name}"].figures[0].value for name in ("queued", "running", "ended")] == [1, 1, 1]
    assert found["gx.tasks.ended"].only_grows and not found["gx.tasks.queued"].only_grows


def test_dollars_are_those_of_the_ledger() -> None:
    script = Script().begin()
    script.add(e.BurstAllowed(run=RUN, terms=Terms(mode="auto", usd=2.0)))
    script.add(
        e.ContainerReserved(
            run=RUN,
            container="c1",
            gpu="L4",
            usd_per_s=0.01,
            timeout_s=60,
            cold_start_s=5,
            lease_s=30,
            window_s=10,
            at=0.0,
        )
    )
    script.add(e.ContainerEnded(run=RUN, container="c1", at=50.0))
    assert named(script)["gx.cost"].figures[0].value == pytest.approx(0.5)
