"""The charts over the time of a run: what ended, how fast, and what workers and containers did meanwhile. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from gx.report.grammar import BAD, GOOD, INK, OTHER, WIDE, Chart, bar, over_time, told_apart, unit_of, upward
from gx.report.words import amount, duration, number, seconds
from gx.run.history.report.values import Report

MOST_CONTAINERS = 40


def progress(run: Report) -> Chart:
    """Tasks that had ended, by how."""
    scale, unit = unit_of(run)
    series = {
        "succeeded": [m.succeeded for m in run.moments],
        "failed": [m.failed for m in run.moments],
        "cancelled or skipped": [m.others for m in run.moments],
    }
    kept = {name: [0, *accumulate(values)] for name, values in series.items() if any(values)}
    at = [0.0, *(m.at_s + run.moment_s for m in run.moments)]
    values = [{"t": t / scale, "n": n, "how": name} for name, own in kept.items() for t, n in zip(at, own, strict=True)]
    ended = " and ".join(f"{number(own[-1])} {name}" for name, own in kept.items())
    spec = over_time(unit) | {
        "height": 220,
        "data": {"values": values},
        "mark": {"type": "line", "strokeWidth": 2, "interpolate": "linear"},
    }
    spec["encoding"] |= {"y": upward("n", "tasks that ended")} | told_apart(list(kept), [GOOD, BAD, OTHER])
    table = [
        (seconds(t), *(number(own[n]) for own in kept.values())) for n, t in enumerate(at) if n % _every(len(at)) == 0
    ]
    return Chart(
        name="progress",
        title="Progress",
        sentence=f"Of {number(run.counts.tasks)} tasks, {ended} within {duration(run.seconds)}.",
        spec=spec,
        columns=("after", *kept),
        table=table,
    )


def answers(run: Report) -> Chart:
    """Tasks that ended a second, by moment."""
    scale, unit = unit_of(run)
    rates = [(m.succeeded + m.failed + m.others) / run.moment_s for m in run.moments]
    values = [bar(m.at_s / scale, (m.at_s + run.moment_s) / scale, r) for m, r in zip(run.moments, rates, strict=True)]
    spec = over_time(unit) | {"height": 130, "data": {"values": values}, "mark": {"type": "bar", "color": GOOD}}
    spec["encoding"]["x"] |= {"bin": "binned"}
    spec["encoding"] |= {"x2": {"field": "t2"}, "y": upward("n", "tasks a second")}
    best = max(range(len(rates)), key=rates.__getitem__)
    mean = sum(rates) * run.moment_s / run.seconds if run.seconds else rates[0]
    return Chart(
        name="answers",
        title="Tasks a second",
        sentence=f"{amount(mean)} on the mean; {amount(rates[best])} at most, {seconds(run.moments[best].at_s)} "
        "after the beginning.",
        spec=spec,
        columns=("from", "tasks a second"),
        table=[(seconds(m.at_s), amount(rate)) for m, rate in zip(run.moments, rates, strict=True)],
    )


def speed(run: Report) -> Chart:
    """Tokens read and written a second, by moment: those of attempts that ended then."""
    scale, unit = unit_of(run)
    series = {
        "read": [m.tok_in / run.moment_s for m in run.moments],
        "written": [m.tok_out / run.moment_s for m in run.moments],
    }
    at = [m.at_s for m in run.moments]
    values = [
        {"t": t / scale, "n": n, "how": name}
        for name, own in series.items()
        for t, n in [*zip(at, own, strict=True), (at[-1] + run.moment_s, own[-1])]
    ]
    spec = over_time(unit) | {
        "height": 130,
        "data": {"values": values},
        "mark": {"type": "line", "strokeWidth": 1.5, "interpolate": "step-after"},
    }
    spec["encoding"] |= {"y": upward("n", "tokens a second")} | told_apart(list(series), [GOOD, BAD])
    over = run.seconds or run.moment_s
    return Chart(
        name="speed",
        title="Tokens a second",
        sentence=f"{amount(run.tok_in / over)} read and {amount(run.tok_out / over)} written on the mean. "
        "A token counts when its attempt ends.",
        spec=spec,
        columns=("from", *series),
        table=[(seconds(t), *(amount(own[n]) for own in series.values())) for n, t in enumerate(at)],
    )


def workers(run: Report) -> Chart:
    """Attempts at once, a strip for each worker."""
    scale, unit = unit_of(run)
    at = [m.at_s for m in run.moments]
    values = [
        {"t": t / scale, "n": n, "worker": worker.worker}
        for worker in run.workers
        for t, n in [*zip(at, worker.levels, strict=True), (at[-1] + run.moment_s, worker.levels[-1])]
    ]
    time = over_time(unit)
    strip = {
        "width": WIDE,
        "height": 70,
        "mark": {
            "type": "area",
            "interpolate": "step-after",
            "color": GOOD,
            "fillOpacity": 0.3,
            "line": {"color": GOOD, "strokeWidth": 1},
        },
        "encoding": time["encoding"] | {"y": upward("n", "at once", ticks=2)},
    }
    spec = {
        "data": {"values": values},
        "facet": {
            "row": {
                "field": "worker",
                "title": None,
                "sort": [worker.worker for worker in run.workers],
                "header": {"labelOrient": "top", "labelAnchor": "start", "labelColor": INK, "labelFontWeight": 600},
            }
        },
        "spec": strip,
        "resolve": {"scale": {"y": "independent"}},
        "config": time["config"],
    }
    told = "; ".join(
        f"{w.worker}: {number(w.attempts)} attempts, {amount(_mean(w.levels))} at once on the mean, "
        f"{amount(max(w.levels))} at most"
        for w in run.workers
    )
    return Chart(
        name="workers",
        title="What workers had to do",
        sentence=f"{told}.",
        spec=spec,
        columns=("from", *(worker.worker for worker in run.workers)),
        table=[(seconds(t), *(amount(worker.levels[n]) for worker in run.workers)) for n, t in enumerate(at)],
    )


def containers(run: Report) -> Chart:
    """When each container was rented."""
    scale, unit = unit_of(run)
    seen = [one for one in run.containers if one.end_s is not None]
    values = [
        {"t": one.start_s / scale, "t2": (one.end_s or 0.0) / scale, "name": f"{n}  {one.gpu}"}
        for n, one in enumerate(seen[:MOST_CONTAINERS], 1)
    ]
    spec = over_time(unit) | {
        "height": {"step": 16},
        "data": {"values": values},
        "mark": {"type": "bar", "color": GOOD, "cornerRadius": 2},
    }
    spec["encoding"] |= {"x2": {"field": "t2"}, "y": {"field": "name", "type": "nominal", "sort": None, "title": None}}
    paid = sum(one.usd for one in run.containers if not one.is_rehearsal)
    first = f" The first {MOST_CONTAINERS} are drawn." if len(seen) > MOST_CONTAINERS else ""
    return Chart(
        name="containers",
        title="Rented containers",
        sentence=f"{len(run.containers)} were reserved, for ${paid:,.4f}.{first}",
        spec=spec,
        columns=("container", "GPU", "from", "to", "cost"),
        table=[
            (
                one.container,
                one.gpu,
                seconds(one.start_s),
                ("" if one.has_ended else "last seen ") + seconds(one.end_s) if one.end_s is not None else "never seen",
                f"${one.usd:,.4f}" + (" (rehearsed)" if one.is_rehearsal else ""),
            )
            for one in run.containers
        ],
    )


def _every(n: int) -> int:
    """Of so many rows of a table, each how many-th is shown: some 60 of them."""
    return max(1, n // 60)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
