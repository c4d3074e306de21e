"""What waits for a collector waits in the log: little is held, batches are small, and what is left is counted."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gx.core import event as e
from gx.node.delivery import BATCH, MOST_WAITING, PAGE, Delivery
from gx.otel.collector import Collector, collector_of
from gx.run.log import EventLog
from tests.otel.receiver import Received
from tests.otel.scripted import RUN, Script, plan

TASKS = 2000
SPANS = 2 * TASKS + 2
"""A call and a task each, a step and the run."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = Script().begin()
    for index in range(TASKS):
        task = script.queue(index)
        script.lease(task)
        script.succeed(task)
    script.finish()
    made = tmp_path_factory.mktemp("log")
    with EventLog.open(made) as log:
        log.append_sync([event.body for event in script.events], source="node:1")
    return made


@pytest.fixture
def log(folder: Path) -> Iterator[EventLog]:
    with EventLog.open(folder, read_only=True) as made:
        yield made


def delivery(log: EventLog, collector: Collector | None, written: list[e.Body], after: int = -1) -> Delivery:
    async def commit(bodies: list[e.Body]) -> None:
        written.extend(bodies)

    assert collector is not None
    return Delivery(RUN, plan(), collector, log, commit=commit, monotonic=time.monotonic, after=after)


@pytest.mark.anyio
async def test_no_more_is_held_than_may_wait_and_all_that_is_left_is_counted(log: EventLog) -> None:
    nowhere = collector_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    made = delivery(log, nowhere, written := [])
    for _ in range(4):
        assert not await made.advance()
    assert made.ended().left <= MOST_WAITING + PAGE
    assert len(written) == 4, "what is tried is written down each time"
    await made.count_left()
    assert (made.ended().arrived, made.ended().left, made.ended().upto) == (0, SPANS, -1)


@pytest.mark.anyio
async def test_what_was_never_tried_is_told_with_its_reason(log: EventLog, there: Received) -> None:
    made = delivery(log, there.collector(), [])
    await made.count_left()
    assert (made.ended().left, made.ended().error) == (SPANS, "traces: the time to send it was over")


@pytest.mark.anyio
async def test_a_large_run_arrives_in_batches_and_each_says_what_arrived_before_it(
    log: EventLog, there: Received
) -> None:
    made = delivery(log, there.collector(), written := [])
    assert await made.advance(is_last=True)
    assert (made.arrived, len(there.spans())) == (SPANS, SPANS)
    leaves = [one for one in written if isinstance(one, e.TelemetryLeaves) and one.sort == "traces"]
    assert max(one.count for one in leaves) == BATCH and sum(one.count for one in leaves) == SPANS
    assert all(later.after <= earlier.upto for earlier, later in itertools.pairwise(leaves))
    assert made.ended().upto == leaves[-1].upto


@pytest.mark.anyio
async def test_a_successor_sends_what_had_not_arrived_and_metrics_of_the_whole(log: EventLog, there: Received) -> None:
    there.statuses = [200, 200, 503]
    first = delivery(log, there.collector(), written := [])
    assert not await first.advance(is_last=True)
    last = written[-1]
    assert isinstance(last, e.TelemetryLeaves)
    second = delivery(log, there.collector(), [], after=last.after)
    assert await second.advance(is_last=True)
    ids = [span.span_id for span in there.spans()]
    assert len(set(ids)) == SPANS and len(ids) - SPANS <= 1, "at most the spans of one event are sent again"
    (duration,) = there.last_metrics()["gen_ai.client.operation.duration"].histogram.data_points
    assert duration.count == TASKS
