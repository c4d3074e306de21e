"""What a report tells in words: causes of failures, decisions, containers, departures, and some rows.

Where contents are withheld, a failure is its code and no more: what a model wrote may stand in its message.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gx.run.history import past
from gx.run.history.past import Ask, Past, Place, text
from gx.run.history.report.amounts import Scope
from gx.run.history.report.values import Cause, Decision, Departure, Rented, Row
from gx.run.history.why import lines_of
from gx.run.record import Record

CAUSES = 50
FIRST, LAST = 50, 150
"""Decisions that are told, from the beginning and from the end."""
CONTAINERS = 200
ROWS = 10
LONGEST = 600
"""Characters of an input, an answer or a message."""
LONGEST_DECISION = 300
_VARYING = r"""'[^']*'|"[^"]*"|`[^`]*`|\b[0-9a-f]{12,}\b|\d[\d.,:]*"""
"""What two failures of one cause don't share: quotes, names, numbers."""
_DECISIONS = (
    "run.created", "run.resumed", "run.interrupted", "run.cancelled", "run.paused", "run.continued", "run.changed",
    "run.stopped", "run.finished", "stop.asked", "clock.jumped", "step.skipped", "step.paused", "step.continued",
    "step.routed", "rule.fired", "rule.cleared", "rule.failed", "burst.asked", "burst.allowed", "question.asked",
    "question.answered", "placement.decided", "container.reserved", "container.ended", "rent.refused", "cap.reached",
)  # fmt: skip


def causes_of(ask: Ask, scope: Scope, *, is_withheld: bool) -> tuple[tuple[Cause, ...], int]:
    """Why tasks and attempts failed, what failed most first; and how many causes are left out."""
    message = "coalesce(data->>'$.message', data->>'$.reason', '')"
    shape = "NULL" if is_withheld else f"regexp_replace(left({message}, 200), {text(_VARYING)}, '…', 'g')"
    grouped = f"""SELECT coalesce(data->>'$.code', 'lost') AS code, {shape} AS shape,
            {"NULL" if is_withheld else f"left(arg_min({message}, seq), {LONGEST})"} AS message,
            count(*) FILTER (type = 'task.failed') AS tasks, count(*) FILTER (type <> 'task.failed') AS attempts,
            coalesce(list(task ORDER BY seq) FILTER (type = 'task.failed'), list(task ORDER BY seq))[:3] AS examples
        FROM events WHERE {scope.own} AND type IN ('task.failed', 'attempt.failed', 'attempt.lost') GROUP BY code, shape
        """
    rows = ask(f"{grouped} ORDER BY tasks DESC, attempts DESC, code, shape LIMIT {CAUSES}")
    (count,) = ask(f"SELECT count(*) AS n FROM ({grouped})")
    return tuple(msgspec.convert(row, Cause) for row in rows), count["n"] - len(rows)


def decisions_of(ask: Ask, scope: Scope) -> tuple[tuple[Decision, ...], int]:
    """What was decided for the run, in order; and how many of that are left out in the middle."""
    where = f"{scope.own} AND type IN {past.texts(_DECISIONS)}"
    seqs = [row["seq"] for row in ask(f"SELECT seq FROM events WHERE {where} ORDER BY seq")]
    kept = seqs if len(seqs) <= FIRST + LAST else [*seqs[:FIRST], *seqs[-LAST:]]
    lines = lines_of(past.events(ask, f"seq IN ({', '.join(map(str, kept))})"), {}) if kept else ()
    return tuple(Decision(seq=line.seq, at=line.at, text=_cut(line.text, LONGEST_DECISION)) for line in lines), len(
        seqs
    ) - len(kept)


def containers_of(ask: Ask, scope: Scope) -> tuple[tuple[Rented, ...], int]:
    """The containers in the order of their reservation, and how many are left out; `spent` has the cost of all."""
    rows = ask(f"""
        WITH r AS (SELECT data->>'$.container' AS container, min(seq) AS seq, any_value(data->>'$.gpu') AS gpu,
                any_value(CAST(data->>'$.usd_per_s' AS DOUBLE)) AS usd_per_s,
                min(CAST(data->>'$.at' AS DOUBLE)) AS since
            FROM events WHERE {scope.own} AND type = 'container.reserved' GROUP BY container),
        s AS (SELECT data->>'$.container' AS container,
                max(CAST(data->>'$.at' AS DOUBLE)) FILTER (type = 'container.ended') AS ended,
                max(CAST(data->>'$.at' AS DOUBLE)) FILTER (type = 'container.seen') AS seen
            FROM events WHERE {scope.own} AND type IN ('container.seen', 'container.ended') GROUP BY container),
        t AS (SELECT seq, coalesce(data->>'$.terms.is_rehearsal', data->>'$.burst.is_rehearsal', 'false') AS rehearsed
            FROM events WHERE {scope.own} AND type IN ('burst.allowed', 'run.created'))
        SELECT r.container, r.gpu, r.since, coalesce(s.ended, s.seen) AS until, s.ended IS NOT NULL AS has_ended,
            greatest(0, coalesce(s.ended, s.seen) - r.since) * r.usd_per_s AS usd,
            (SELECT arg_max(t.rehearsed, t.seq) FROM t WHERE t.seq < r.seq) = 'true' AS rehearsed
        FROM r LEFT JOIN s USING (container) ORDER BY r.seq""")
    clock = scope.clock
    found = [
        Rented(
            container=row["container"],
            gpu=row["gpu"],
            start_s=clock.at_s(row["since"] * 1e6),
            end_s=None if row["until"] is None else clock.at_s(row["until"] * 1e6),
            usd=row["usd"] or 0.0,
            has_ended=row["has_ended"],
            is_rehearsal=bool(row["rehearsed"]),
        )
        for row in rows[:CONTAINERS]
    ]
    return tuple(found), len(rows) - len(found)


def departures_of(ask: Ask, scope: Scope) -> tuple[Departure, ...]:
    """What was sent to other machines, or to a rehearsal's processes on this one."""
    rows = ask(f"""
        SELECT data->>'$.to' AS destination, count(*) AS turns, sum(CAST(data->>'$.bytes' AS BIGINT))::BIGINT AS bytes
        FROM events WHERE {scope.own} AND type = 'egress.declared' GROUP BY destination ORDER BY turns DESC""")
    return tuple(Departure(**row) for row in rows)


def rows_of(ask: Ask, run: Past) -> tuple[Row, ...]:
    """The first rows of the output step that ended, with what was given and what came."""
    tasks, _ = past.ended_after(ask, run, Place(), ROWS)
    refs = {ref for task in tasks for ref in (task.output, task.input) if ref}
    small = {ref for ref, size in past.sizes(ask, refs).items() if size <= 1 << 20}
    content = past.contents(ask, small)
    found = []
    for task in tasks:
        record = Record(task=task, output=content.get(task.output or ""), input=content.get(task.input or ""))
        shown = record.as_dict(with_input=True)
        answer = shown.get("output", shown.get("error"))
        row = Row(id=task.row_id, status=task.status.value, input=_json(shown.get("input")), answer=_json(answer))
        found.append(row)
    return tuple(found)


def _json(value: Any) -> str:
    if value is None:
        return ""
    shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return _cut(shown, LONGEST)


def _cut(shown: str, longest: int) -> str:
    return shown if len(shown) <= longest else shown[:longest] + " …"
