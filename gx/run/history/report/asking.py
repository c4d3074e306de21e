"""The report of a run, put together from what the log answers."""

from __future__ import annotations

import msgspec

from gx.core.event import AFTERWARDS
from gx.flow.privacy import has_private
from gx.run.history import past
from gx.run.history.evidence import why
from gx.run.history.past import Ask, Past, text
from gx.run.history.report import amounts, telling
from gx.run.history.report.amounts import Scope
from gx.run.history.report.clock import clock_of
from gx.run.history.report.values import Report
from gx.run.history.spent import containers, listed, works

RECIPE_BYTES = 32 << 10
"""The most of a recipe that is told."""


def report_of(ask: Ask, start: str, *, with_content: bool = False) -> Report:
    """The report of the run whose id starts so, as it stands. A private run's contents are in it `with_content` only.

    :raises NotFound: if there is none, or its recipe was erased. :raises UsageError: if several ids start so.
    """
    run = past.look_at(ask, start)
    clock, resumed = clock_of(ask, run.run, run.seq)
    scope = Scope(run.run, run.seq, clock)
    (last,) = ask(f"SELECT max(ts) AS ts FROM events WHERE {scope.own} AND type NOT IN {AFTERWARDS}")
    seconds = clock.at_s(last["ts"])
    width_s, n = amounts.moment_width(seconds)
    steps = amounts.steps_of(ask, scope)
    is_withheld = not with_content and _is_private(ask, run)
    done, rented = works(ask, run.run), containers(ask, run.run)
    by_gpu = listed(done, rented, "gpu")
    causes, causes_left_out = telling.causes_of(ask, scope, is_withheld=is_withheld)
    decisions, decisions_left_out = telling.decisions_of(ask, scope)
    rents, rents_left_out = telling.containers_of(ask, scope)
    content = past.contents(ask, [run.created.recipe, run.created.params])
    recipe = content.get(run.created.recipe, b"")
    return Report(
        run=run.run,
        name=run.created.name,
        status=run.status,
        standing=why(ask, run.run).answer,
        by=run.created.by,
        file=run.created.file,
        seq=run.seq,
        began=clock.began,
        seconds=seconds,
        away_s=clock.away_s,
        resumed=resumed,
        counts=amounts.total(steps),
        tok_in=sum(step.tok_in for step in steps),
        tok_out=sum(step.tok_out for step in steps),
        usd=sum(line.usd for line in by_gpu),
        usd_rehearsed=sum(line.usd_rehearsed for line in by_gpu),
        cap_usd=_cap(ask, scope),
        moment_s=width_s,
        moments=amounts.moments_of(ask, scope, width_s, n),
        latency=amounts.spread_of(ask, scope, "ms", "s"),
        tokens_in=amounts.spread_of(ask, scope, "tok_in", "tokens"),
        tokens_out=amounts.spread_of(ask, scope, "tok_out", "tokens"),
        workers=amounts.workers_of(ask, scope, width_s, n),
        containers=rents,
        containers_left_out=rents_left_out,
        steps=steps,
        cost_by_gpu=tuple(by_gpu),
        cost_by_model=tuple(listed(done, rented, "model")),
        causes=causes,
        causes_left_out=causes_left_out,
        decisions=decisions,
        decisions_left_out=decisions_left_out,
        departures=telling.departures_of(ask, scope),
        is_withheld=is_withheld,
        rows=() if is_withheld else telling.rows_of(ask, run),
        recipe=recipe[:RECIPE_BYTES].decode(errors="ignore") + "\n… (cut)" * (len(recipe) > RECIPE_BYTES),
        params={} if is_withheld else msgspec.json.decode(content.get(run.created.params, b"{}")),
    )


def _is_private(ask: Ask, run: Past) -> bool:
    """Whether its recipe marks anything as private, or any of its tasks became so."""
    if has_private(run.recipe):
        return True
    labelled = "type IN ('task.queued', 'task.prepared') AND data->>'$.label' = 'private'"
    return bool(ask(f"SELECT 1 AS one FROM events WHERE run = {text(run.run)} AND {labelled} LIMIT 1"))


def _cap(ask: Ask, scope: Scope) -> float | None:
    """The cap in dollars that the run has now, if it may spend anything."""
    rows = ask(f"""
        SELECT CAST(coalesce(data->>'$.terms.usd', data->>'$.burst.usd') AS DOUBLE) AS usd FROM events
        WHERE {scope.own} AND (type = 'burst.allowed' OR (type = 'run.created' AND data->>'$.burst' IS NOT NULL))
        ORDER BY seq DESC LIMIT 1""")
    return rows[0]["usd"] if rows else None
