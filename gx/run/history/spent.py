"""What runs took: tokens and seconds on this machine, tokens in rented containers, and what those cost.

The log is asked by SQL, through whoever can answer; each answer is folded here. A container costs its rate × the time
from its reservation to its end, or to when it was last seen. A step's or a model's dollars are its share of the run's,
by the tokens that containers computed for it. What a rehearsal would have cost is told apart: nobody paid it.

Invariant: the dollars of a run are the same by whatever they are listed, where containers computed anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from gx.core.message import Value
from gx.run.history.past import Ask, text

By = Literal["run", "step", "model", "gpu"]
HERE = "this machine"


class Container(Value, frozen=True, kw_only=True):
    """One container of a run: `seconds` are None while nobody has seen it, which may still cost.

    One that has not `ended` in the log idled, or idles, a little longer than it was seen.
    """

    run: str
    gpu: str
    usd_per_s: float
    seconds: float | None
    has_ended: bool = True
    is_rehearsal: bool = False

    @property
    def usd(self) -> float:
        return (self.seconds or 0.0) * self.usd_per_s


class Work(Value, frozen=True, kw_only=True):
    """What one model computed for one step of a run on one kind of machine; `gpu` is "" for this one.

    `seconds` are those of its tasks, which overlap: a bench runs many at once.
    """

    run: str
    step: str
    model: str
    gpu: str = ""
    tok_in: int = 0
    tok_out: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        return self.tok_in + self.tok_out


class Spent(Value, frozen=True, kw_only=True):
    """A line of the list. `seconds_here` are of tasks on this machine, `container_s` of containers with all they cost.

    `unended` containers have no end in the log, so what they cost after they were last seen is not counted; `unseen`
    of them were reserved, and nobody has seen them.
    """

    name: str
    tok_in: int = 0
    tok_out: int = 0
    tokens_rented: int = 0
    seconds_here: float = 0.0
    containers: int = 0
    unended: int = 0
    unseen: int = 0
    container_s: float = 0.0
    usd: float = 0.0
    usd_rehearsed: float = 0.0


def spent(ask: Ask, by: By, run: str | None = None) -> list[Spent]:
    """The lines, what cost most first. `run` is a whole id; None takes all runs."""
    return listed(works(ask, run), containers(ask, run), by)


def archived(ask: Ask) -> int:
    """How many runs stand in archives alone, so that a list of all runs is without them."""
    from gx.run.log.schema import VIEWS

    (row,) = ask(f"SELECT count(*) AS n FROM ({VIEWS['archived']})")  # not the view: an older file may not have it
    return int(row["n"])


def containers(ask: Ask, run: str | None = None) -> list[Container]:
    """Every container that was reserved."""
    only = "" if run is None else f"AND run = {text(run)}"
    terms = f"""SELECT seq, run, coalesce(data->>'$.terms.is_rehearsal', data->>'$.burst.is_rehearsal') AS rehearsed
        FROM events WHERE type IN ('burst.allowed', 'run.created') {only}"""
    rows = ask(f"""
        WITH terms AS ({terms}),
        r AS (SELECT run, data->>'$.container' AS container, min(seq) AS seq, any_value(data->>'$.gpu') AS gpu,
                any_value(CAST(data->>'$.usd_per_s' AS DOUBLE)) AS usd_per_s,
                min(CAST(data->>'$.at' AS DOUBLE)) AS since
            FROM events WHERE type = 'container.reserved' {only} GROUP BY ALL),
        s AS (SELECT run, data->>'$.container' AS container,
                max(CAST(data->>'$.at' AS DOUBLE)) FILTER (type = 'container.ended') AS ended,
                max(CAST(data->>'$.at' AS DOUBLE)) FILTER (type = 'container.seen') AS seen
            FROM events WHERE type IN ('container.seen', 'container.ended') {only} GROUP BY ALL)
        SELECT r.run, r.gpu, r.usd_per_s, coalesce(s.ended, s.seen) - r.since AS seconds,
            s.ended IS NOT NULL AS has_ended,
            (SELECT arg_max(coalesce(t.rehearsed, 'false'), t.seq) FROM terms t WHERE t.run = r.run AND t.seq < r.seq)
            AS rehearsed
        FROM r LEFT JOIN s USING (run, container) ORDER BY r.seq""")
    return [
        Container(
            run=row["run"],
            gpu=row["gpu"],
            usd_per_s=row["usd_per_s"],
            seconds=None if row["seconds"] is None else max(0.0, row["seconds"]),
            has_ended=row["has_ended"],
            is_rehearsal=row["rehearsed"] == "true",
        )
        for row in rows
    ]


def works(ask: Ask, run: str | None = None) -> list[Work]:
    """What was computed, by run, step, model and GPU."""
    only = "" if run is None else f"AND e.run = {text(run)}"
    leases = f"""SELECT task, attempt, any_value(data->>'$.lease.gpu') FILTER (data->>'$.lease.type' = 'cloud') AS gpu,
            bool_or(data->>'$.lease.type' = 'cloud') AS is_rented
        FROM events e WHERE type = 'task.leased' {only} GROUP BY ALL"""
    calls = f"""SELECT task, attempt, arg_max(data->>'$.gpu', seq) AS gpu
        FROM events e WHERE type = 'call.made' {only} GROUP BY ALL"""
    rows = ask(f"""
        WITH l AS ({leases}), c AS ({calls})
        SELECT t.run, t.step, coalesce(t.model, '') AS model,
            CASE WHEN l.is_rented THEN coalesce(c.gpu, l.gpu, '?') ELSE '' END AS gpu,
            sum(coalesce(e.tok_in, 0))::BIGINT AS tok_in, sum(coalesce(e.tok_out, 0))::BIGINT AS tok_out,
            coalesce(sum(e.ms), 0) / 1e3 AS seconds
        FROM events e JOIN tasks t USING (task)
            LEFT JOIN l ON l.task = e.task AND l.attempt = e.attempt
            LEFT JOIN c ON c.task = e.task AND c.attempt = e.attempt
        WHERE e.type IN ('task.succeeded', 'attempt.failed', 'attempt.superseded') {only}
            AND (e.type <> 'task.succeeded' OR e.data->>'$.cached' IS NULL)
        GROUP BY ALL ORDER BY min(e.seq)""")
    return [Work(**row) for row in rows]


def listed(done: Iterable[Work], rented: Iterable[Container], by: By) -> list[Spent]:
    """The lines of what was done and rented."""
    done, rented = list(done), list(rented)
    lines: dict[str, dict[str, Any]] = {}
    name_of = _names(by)
    for work in done:
        line = lines.setdefault(name_of(work), _blank())
        line["tok_in"] += work.tok_in
        line["tok_out"] += work.tok_out
        line["tokens_rented"] += work.tokens if work.gpu else 0
        line["seconds_here"] += 0.0 if work.gpu else work.seconds
    for one in rented:
        for name, share in _shares(one, done, by, name_of):
            line = lines.setdefault(name, _blank())
            line["containers"] += 1
            line["unended"] += not one.has_ended
            line["unseen"] += one.seconds is None
            line["container_s"] += share * (one.seconds or 0.0)
            line["usd_rehearsed" if one.is_rehearsal else "usd"] += share * one.usd
    found = [Spent(name=name, **line) for name, line in lines.items()]
    return sorted(found, key=lambda line: (-line.usd - line.usd_rehearsed, -line.tok_in - line.tok_out, line.name))


def _names(by: By) -> Callable[[Work], str]:
    """How the line of some work is called."""
    if by == "run":
        return lambda work: work.run
    if by == "gpu":
        return lambda work: work.gpu or HERE
    return lambda work: work.step if by == "step" else work.model


def _shares(one: Container, done: list[Work], by: By, name_of: Callable[[Work], str]) -> Iterable[tuple[str, float]]:
    """Whose a container's cost is: a run's and a GPU's in whole, a step's and a model's by the tokens of its run."""
    if by == "run":
        return [(one.run, 1.0)]
    if by == "gpu":
        return [(one.gpu, 1.0)]
    tokens: dict[str, int] = {}
    for work in done:
        if work.run == one.run and work.gpu == one.gpu:
            tokens[name_of(work)] = tokens.get(name_of(work), 0) + work.tokens
    total = sum(tokens.values())
    return [(name, n / total) for name, n in tokens.items() if n] if total else [("(nothing was computed)", 1.0)]


def _blank() -> dict[str, Any]:
    zero = Spent(name="")
    return {name: getattr(zero, name) for name in zero.__struct_fields__ if name != "name"}
