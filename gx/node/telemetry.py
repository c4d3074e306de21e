"""Telling a collector of runs while they go on, and once more when somebody asks for it.

None of it holds a run up or fails it: a run that has ended waits for nobody, its node stays `FLUSH_S` at the most, and
what did not arrive by then is an event, and can be sent from the log at any time (`gx export RUN --to otlp`).
"""

from __future__ import annotations

import logging
import time

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from gx.core import event as e
from gx.core.errors import GxError, LogError
from gx.core.extras import installing
from gx.flow import parse
from gx.flow.plan import Plan
from gx.node.attached import LocalRun
from gx.node.client import Submission
from gx.node.delivery import Commit, Delivery, RunTelemetry
from gx.otel.collector import Collector, check_collector
from gx.run.history.past import text
from gx.run.log import EventLog
from gx.run.log.query import run_sql

EVERY_S = 5.0
"""How often spans are sent while a run goes on, as in OpenTelemetry's own processor; the first ones earlier."""
FIRST_S = 1.0
MOST_WAIT_S = 60.0
"""Between two tries, where a collector takes nothing."""
FLUSH_S = 10.0
"""What may be sent after a run's end."""


def check(collector: Collector | None, *, is_offline: bool) -> None:
    """:raises GxError: if nothing can be sent there, or what it takes isn't installed."""
    if collector is None:
        return
    check_collector(collector, is_offline=is_offline)
    try:
        import gx.otel.otlp  # noqa: F401
    except ImportError:
        raise GxError(
            "telling a collector needs OpenTelemetry's messages, which are not installed",
            code="otel.extra",
            hint=installing("otel"),
        ) from None


class Telemetry:
    """That of all runs. `n_runs` are not all told: the node stays for them, `flush_s` after a run's end at the most."""

    def __init__(self, log: EventLog, *, commit: Commit, flush_s: float = FLUSH_S) -> None:
        self._log, self._commit, self.flush_s = log, commit, flush_s
        self.n_runs = 0

    def follow(self, run: LocalRun, collector: Collector | None, group: TaskGroup) -> None:
        """Tell that collector of the run, unless one is told already: a run has one trace, in one place."""
        if collector is None or run.telemetry is not None:
            return
        run.telemetry = RunTelemetry(run.state.id)
        self.n_runs += 1
        group.start_soon(self._watch, run, run.telemetry, collector)

    async def send(self, run: str, asked: Submission, collector: Collector) -> e.TelemetryEnded:
        """Send what the log has of a run, live or not, from its beginning, and say how it went."""
        plan = parse.plan_recipe(asked.recipe_text, asked.params, file=asked.recipe_file)
        delivery = self._delivery(run, plan, collector)
        self.n_runs += 1
        try:
            arrived, since_s = 0, anyio.current_time()
            while not await delivery.advance(is_last=True):
                if delivery.arrived > arrived:
                    arrived, since_s = delivery.arrived, anyio.current_time()
                elif anyio.current_time() - since_s > self.flush_s:
                    break
                await anyio.sleep(FIRST_S)
            return await self._close(delivery)
        finally:
            self.n_runs -= 1

    async def _watch(self, run: LocalRun, telling: RunTelemetry, collector: Collector) -> None:
        try:
            after = await anyio.to_thread.run_sync(self._arrived, run.state.id, collector)
            delivery = telling.delivery = self._delivery(run.state.id, run.active.plan, collector, after=after)
            async with anyio.create_task_group() as group:
                group.start_soon(_bound, run, group.cancel_scope, self.flush_s)
                await _deliver(run, delivery)
                group.cancel_scope.cancel()
            await self._close(delivery)
        except LogError:  # nothing can be written any more, which the run is told; and nothing leaves unwritten
            pass
        except Exception:  # the node goes on, whatever a collector comes up with
            logging.getLogger("gx").exception("a collector could not be told")
        finally:
            self.n_runs -= 1

    def _delivery(self, run: str, plan: Plan, collector: Collector, *, after: int = -1) -> Delivery:
        return Delivery(run, plan, collector, self._log, commit=self._commit, monotonic=time.monotonic, after=after)

    async def _close(self, delivery: Delivery) -> e.TelemetryEnded:
        await delivery.count_left()
        ended = delivery.ended()
        with anyio.CancelScope(shield=True):
            await self._commit([ended])
        return ended

    def _arrived(self, run: str, collector: Collector) -> int:
        """The event up to which everything had arrived there, as an earlier node wrote; -1 if nothing had."""
        upto = "CASE WHEN type = 'telemetry.ended' THEN data->>'$.upto' ELSE data->>'$.after' END"
        sql = f"""SELECT coalesce(max(CAST({upto} AS BIGINT)), -1) FROM events WHERE run = {text(run)}
            AND type IN ('telemetry.ended', 'egress.telemetry') AND data->>'$.to' = {text(collector.to)}"""
        return int(run_sql(self._log, sql, timeout_s=60.0, max_rows=1).rows[0][0])


async def _deliver(run: LocalRun, delivery: Delivery) -> None:
    """Send what is there every now and then, and the rest when the run is over."""
    wait_s = FIRST_S
    while not run.active.is_over:
        with anyio.move_on_after(wait_s):
            await run.active.over.wait()
        takes = await delivery.advance()
        wait_s = EVERY_S if takes else min(MOST_WAIT_S, max(EVERY_S, wait_s * 2))
    while not await delivery.advance(is_last=True):  # noqa: ASYNC110  a collector tells nobody that it is back
        await anyio.sleep(FIRST_S)


async def _bound(run: LocalRun, scope: anyio.CancelScope, flush_s: float) -> None:
    """Give what is sent after the run's end its time, and no more."""
    await run.active.over.wait()
    scope.deadline = anyio.current_time() + flush_s
