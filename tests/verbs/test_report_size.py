"""The page of the largest report that there can be."""

from __future__ import annotations

from gx.report.page import page_of
from gx.run.history.report import amounts, telling
from gx.run.history.report.asking import RECIPE_BYTES
from gx.run.history.report.values import (
    Bin,
    Busy,
    Cause,
    Counts,
    Decision,
    Departure,
    Moment,
    Rented,
    Report,
    Row,
    Spread,
    Step,
)

MIB = 1 << 20


def largest() -> Report:
    """A report with as much of everything as `gx.run.history.report` tells at most, and 50 steps."""
    n, told = amounts.MOMENTS, telling.FIRST + telling.LAST
    long = '<&">' * (telling.LONGEST // 4)
    counts = Counts(tasks=99_999_999, succeeded=9_999_999, failed=99, cancelled=9, skipped=9, cached=9)
    bins = tuple(Bin(start=k / 7, stop=(k + 1) / 7, count=k * 12_345) for k in range(2 * amounts.BINS))
    spread = Spread(unit="s", count=9, mean=1.0, p50=1.234, p90=2.345, p99=3.456, most=9.9, bins=bins)
    return Report(
        run="r-222222", name=long, status="finished", standing=long, by=long, file=long, seq=9, began=0,
        seconds=12_345.6, away_s=1e6, resumed=99, counts=counts, tok_in=10**12, tok_out=10**12, usd=1.0,
        usd_rehearsed=1.0, cap_usd=2.0, moment_s=102.88,
        moments=tuple(
            Moment(at_s=k * 102.88, succeeded=k * 997, failed=k * 7, others=k % 3, tok_in=k * 991_337, tok_out=k * 313)
            for k in range(n)
        ),
        latency=spread, tokens_in=spread, tokens_out=spread,
        workers=tuple(
            Busy(worker=f"GPU-{w} containers", attempts=10**8, levels=tuple(k * 1.237 % 97 for k in range(n)))
            for w in range(amounts.WORKERS)
        ),
        containers=tuple(
            Rented(container="c" * 32, gpu="RTX-PRO-6000", start_s=k, end_s=k * 9.87, usd=1.2345, has_ended=False,
                is_rehearsal=True)
            for k in range(1, telling.CONTAINERS + 1)
        ),
        containers_left_out=9,
        steps=tuple(Step(step=f"s-{k}", counts=counts, tok_in=9, tok_out=9, p50_s=1.0, p99_s=2.0) for k in range(50)),
        cost_by_gpu=(), cost_by_model=(),
        causes=tuple(
            Cause(code="timeout", shape=long, message=long, tasks=9, attempts=9, examples=("t" * 16,) * 3)
            for _ in range(telling.CAUSES)
        ),
        causes_left_out=9,
        decisions=tuple(Decision(seq=k, at=k, text=long[: telling.LONGEST_DECISION]) for k in range(told)),
        decisions_left_out=9,
        departures=(Departure(destination="modal", turns=9, bytes=9),),
        is_withheld=False,
        rows=tuple(Row(id="r", status="failed", input=long, answer=long) for _ in range(telling.ROWS)),
        recipe="<" * RECIPE_BYTES, params={"a": long},
    )  # fmt: skip


def test_no_page_is_larger_than_a_mebibyte() -> None:
    page = page_of(largest())
    assert page.count("<svg ") == 8
    assert len(page.encode()) <= MIB
