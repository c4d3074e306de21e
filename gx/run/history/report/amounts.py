"""The amounts of a report, counted by the log: by moment, by step, by worker, and how times and tokens are spread.

Each function is a question or two in SQL whose answer is bounded whatever the run's length. A task is counted by its
first end, as in the view `tasks`; tokens are counted of every attempt, those of late twins included.
"""

from __future__ import annotations

from math import ceil, floor, log10
from typing import NamedTuple

from gx.run.history.past import Ask, text
from gx.run.history.report.clock import Clock
from gx.run.history.report.values import Bin, Busy, Counts, Moment, Spread, Step, Unit

MOMENTS = 120
"""As many as can be told apart in a chart that is as wide as a page."""
BINS = 24
WORKERS = 12
"""Workers of a report: this machine, and each kind of GPU."""
ENDS = "('task.succeeded', 'task.failed', 'task.cancelled', 'task.skipped')"
COST = "('task.succeeded', 'attempt.failed', 'attempt.superseded')"
COMPUTED = "type = 'task.succeeded' AND data->>'$.cached' IS NULL AND ms IS NOT NULL"
"""Answers that a model gave for this run."""


class Scope(NamedTuple):
    """The run as of an event, and its clock."""

    run: str
    seq: int
    clock: Clock

    @property
    def own(self) -> str:
        """The condition for its events."""
        return f"run = {text(self.run)} AND seq <= {self.seq}"


def steps_of(ask: Ask, scope: Scope) -> tuple[Step, ...]:
    """The steps in the order of their first tasks."""
    rows = ask(f"""
        WITH q AS (SELECT task, any_value(data->>'$.step') AS step, min(seq) AS seq FROM events
                WHERE {scope.own} AND type = 'task.queued' GROUP BY task),
        d AS (SELECT task, arg_min(type, seq) FILTER (type IN {ENDS}) AS last,
                bool_or(type = 'task.succeeded' AND data->>'$.cached' IS NOT NULL) AS cached,
                sum(tok_in) AS tok_in, sum(tok_out) AS tok_out, max(ms) FILTER ({COMPUTED}) AS ms
            FROM events WHERE {scope.own} AND task IS NOT NULL AND type IN ('task.succeeded', 'task.failed',
                'task.cancelled', 'task.skipped', 'attempt.failed', 'attempt.superseded') GROUP BY task)
        SELECT step, count(*) AS tasks, count(*) FILTER (last = 'task.succeeded') AS succeeded,
            count(*) FILTER (last = 'task.failed') AS failed, count(*) FILTER (last = 'task.cancelled') AS cancelled,
            count(*) FILTER (last = 'task.skipped') AS skipped,
            count(*) FILTER (last = 'task.succeeded' AND cached) AS cached,
            coalesce(sum(tok_in), 0)::BIGINT AS tok_in, coalesce(sum(tok_out), 0)::BIGINT AS tok_out,
            quantile_cont(ms, 0.5) / 1e3 AS p50_s, quantile_cont(ms, 0.99) / 1e3 AS p99_s
        FROM q LEFT JOIN d USING (task) GROUP BY step ORDER BY min(seq)""")
    counted = Counts.__struct_fields__
    return tuple(
        Step(
            counts=Counts(**{name: row[name] for name in counted}),
            **{name: row[name] for name in row if name not in counted},
        )
        for row in rows
    )


def total(steps: tuple[Step, ...]) -> Counts:
    """The counts of all steps."""
    return Counts(**{n: sum(getattr(step.counts, n) for step in steps) for n in Counts.__struct_fields__})


def moments_of(ask: Ask, scope: Scope, width_s: float, n: int) -> tuple[Moment, ...]:
    """What happened in each of `n` moments of `width_s` seconds; the last takes what comes after."""
    place = f"least({n - 1}, floor({scope.clock.sql('ts')} / {width_s}))::INTEGER"
    ended = ask(f"""
        SELECT {place} AS n, count(*) FILTER (type = 'task.succeeded') AS succeeded,
            count(*) FILTER (type = 'task.failed') AS failed,
            count(*) FILTER (type IN ('task.cancelled', 'task.skipped')) AS others
        FROM (SELECT arg_min(type, seq) AS type, min(ts) AS ts FROM events
            WHERE {scope.own} AND type IN {ENDS} GROUP BY task) GROUP BY n""")
    spent = ask(f"""
        SELECT {place} AS n, coalesce(sum(tok_in), 0)::BIGINT AS tok_in, coalesce(sum(tok_out), 0)::BIGINT AS tok_out
        FROM events WHERE {scope.own} AND type IN {COST} GROUP BY n""")
    blank = dict.fromkeys(("succeeded", "failed", "others", "tok_in", "tok_out"), 0)
    amounts = [blank.copy() for _ in range(n)]
    for row in (*ended, *spent):
        amounts[row["n"]] |= {name: value for name, value in row.items() if name != "n"}
    return tuple(Moment(at_s=_exact(k * width_s), **amount) for k, amount in enumerate(amounts))


def spread_of(ask: Ask, scope: Scope, column: str, unit: Unit) -> Spread | None:
    """How a column of the answers that were computed is spread; `None` where there were none."""
    value = f"{column} / 1e3" if unit == "s" else column
    (row,) = ask(f"""
        SELECT count(*) AS count, avg(v) AS mean, min(v) AS least, max(v) AS most, quantile_cont(v, 0.5) AS p50,
            quantile_cont(v, 0.9) AS p90, quantile_cont(v, 0.99) AS p99, quantile_cont(v, 0.995) AS high
        FROM (SELECT {value} AS v FROM events WHERE {scope.own} AND {COMPUTED})""")
    if not row["count"]:
        return None
    least, high = row.pop("least"), row.pop("high")
    width = bin_width(least, high, unit)
    first, last = floor(least / width), floor(high / width)
    found = ask(f"""
        SELECT least({last + 1}, floor(({value}) / {width}))::BIGINT AS n, count(*) AS count
        FROM events WHERE {scope.own} AND {COMPUTED} GROUP BY n""")
    counts = {one["n"]: one["count"] for one in found}
    bins = [_bin(n, width, counts.get(n, 0)) for n in range(first, last + 1)]
    if over := counts.get(last + 1, 0):
        bins.append(Bin(start=_exact((last + 1) * width), stop=None, count=over))
    count = row.pop("count")
    return Spread(unit=unit, count=count, bins=tuple(bins), **{name: _exact(v) for name, v in row.items()})


def _bin(n: int, width: float, count: int) -> Bin:
    return Bin(start=_exact(n * width), stop=_exact((n + 1) * width), count=count)


def _exact(value: float) -> float:
    """Without the dust of binary fractions: 0.3, not 0.30000000000000004."""
    return round(float(value), 6)


def bin_width(least: float, high: float, unit: Unit) -> float:
    """A round width with at most `BINS` bins or so between two values; of tokens, a whole number."""
    wanted = max(high - least, high * 0.1) / BINS
    return round_up(max(wanted, 1.0 if unit == "tokens" else 1e-6))


def round_up(value: float) -> float:
    """The next of … 0.1, 0.2, 0.5, 1, 2, 5, 10 … that is no less than a value above 0."""
    scale = 10.0 ** floor(log10(value))
    return _exact(next(k * scale for k in (1, 2, 5, 10) if k * scale >= value * (1 - 1e-9)))


def moment_width(seconds: float) -> tuple[float, int]:
    """A round width for moments of a run that took so long, and how many there are."""
    width_s = round_up(max(seconds, 0.1) / MOMENTS)
    return width_s, max(1, ceil(seconds / width_s - 1e-9))


def workers_of(ask: Ask, scope: Scope, width_s: float, n: int) -> tuple[Busy, ...]:
    """What each worker had to do, the busiest first. An attempt that hasn't ended lasts until now."""
    ends = "('task.succeeded', 'attempt.failed', 'attempt.lost', 'attempt.superseded', 'task.cancelled', 'task.failed')"
    spans = f"""
        WITH l AS (SELECT task, attempt, min(ts) AS ts, bool_or(data->>'$.lease.type' = 'cloud') AS is_rented,
                any_value(data->>'$.lease.gpu') AS gpu
            FROM events WHERE {scope.own} AND type = 'task.leased' GROUP BY ALL),
        c AS (SELECT task, attempt, arg_max(data->>'$.gpu', seq) AS gpu
            FROM events WHERE {scope.own} AND type = 'call.made' GROUP BY ALL),
        d AS (SELECT task, attempt, min(ts) AS ts FROM events WHERE {scope.own} AND type IN {ends} GROUP BY ALL),
        s AS (SELECT CASE WHEN is_rented THEN coalesce(c.gpu, l.gpu, '?') ELSE '' END AS worker,
                {scope.clock.sql("l.ts")} AS a,
                {scope.clock.sql(f"coalesce(d.ts, (SELECT max(ts) FROM events WHERE {scope.own}))")} AS b
            FROM l LEFT JOIN c USING (task, attempt) LEFT JOIN d USING (task, attempt))"""
    attempts = ask(f"{spans} SELECT worker, count(*) AS attempts FROM s GROUP BY worker ORDER BY sum(b - a) DESC")
    levels = ask(f"""{spans},
        p AS (SELECT worker, a, b, unnest(range(floor(a / {width_s})::BIGINT,
            least({n}, floor(b / {width_s})::BIGINT + 1))) AS n FROM s)
        SELECT worker, n, sum(greatest(0, least(b, (n + 1) * {width_s}) - greatest(a, n * {width_s}))) / {width_s}
            AS level FROM p GROUP BY worker, n""")
    by_worker = {row["worker"]: [0.0] * n for row in attempts}
    for row in levels:
        by_worker[row["worker"]][row["n"]] = round(row["level"], 3)
    return tuple(
        Busy(
            worker=f"{row['worker']} containers" if row["worker"] else "this machine",
            attempts=row["attempts"],
            levels=tuple(by_worker[row["worker"]]),
        )
        for row in attempts[:WORKERS]
    )
