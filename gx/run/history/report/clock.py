"""The time of a run while it went on: wall-clock time without what passed between its end and its resumption.

A run that was killed on Friday and resumed on Monday took the hours that it worked. Where a node died without a word,
the time away begins with the last event of the run.

Invariant: the clock never goes back, and stands still while the run is away.
"""

from __future__ import annotations

from gx.core.message import Value
from gx.run.history.past import Ask, text

LEAST_S = 1.0
"""Less than this is no absence: a node that comes up again takes about as long."""
MOST = 64
"""Absences that are taken out, the longest first: each is a term of every question."""


class Absence(Value, frozen=True, kw_only=True):
    """From one event to the next while the run was away; µs since 1970."""

    start: int
    end: int


class Clock(Value, frozen=True, kw_only=True):
    """Turns instants (µs since 1970) into seconds of the run."""

    began: int
    absences: tuple[Absence, ...]

    def at_s(self, ts: float) -> float:
        """The seconds of the run at an instant; 0 before it began."""
        away = sum(max(0.0, min(ts, gap.end) - gap.start) for gap in self.absences)
        return max(0.0, (ts - self.began - away) / 1e6)

    def sql(self, ts: str) -> str:
        """The same as an expression over the expression `ts`."""
        away = "".join(f" - greatest(0, least({ts}, {gap.end}) - {gap.start})" for gap in self.absences)
        return f"greatest(0, ({ts} - {self.began}{away}) / 1e6)"

    @property
    def away_s(self) -> float:
        return sum(gap.end - gap.start for gap in self.absences) / 1e6


def clock_of(ask: Ask, run: str, seq: int) -> tuple[Clock, int]:
    """The clock of a run as of the event `seq`, and how often the run was resumed."""
    named = text(run)
    rows = ask(f"""
        SELECT e.type, e.ts, CASE WHEN e.type = 'run.resumed' THEN
            (SELECT max(p.ts) FROM events p WHERE p.run = {named} AND p.seq < e.seq) END AS before
        FROM events e WHERE e.seq <= {seq} AND ((e.run = {named} AND e.type IN ('run.created', 'run.resumed',
            'run.interrupted', 'run.stopped')) OR e.type = 'node.started') ORDER BY e.seq""")
    began = next(row["ts"] for row in rows if row["type"] == "run.created")
    found, is_away, resumed, has_begun = list[Absence](), False, 0, False
    for row in rows:
        has_begun = has_begun or row["type"] == "run.created"
        if row["type"] in ("run.interrupted", "run.stopped", "node.started"):
            is_away = has_begun
        elif row["type"] == "run.resumed" and is_away:
            resumed, is_away = resumed + 1, False
            if row["ts"] - row["before"] >= LEAST_S * 1e6:
                found.append(Absence(start=row["before"], end=row["ts"]))
    longest = sorted(found, key=lambda gap: gap.start - gap.end)[:MOST]
    return Clock(began=began, absences=tuple(sorted(longest, key=lambda gap: gap.start))), resumed
