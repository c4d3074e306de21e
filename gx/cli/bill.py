"""What a burst came to, told once its run is over: what its containers cost, or would have."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gx import output

if TYPE_CHECKING:
    from gx.node.workspace import Workspace

REPORT_S = 30.0
"""How long the report of a rehearsal may take once its run is over: its containers end first."""


def tell_spent(place: Workspace, run: str) -> None:
    """Say on stderr what the run's containers cost, as far as the log knows."""
    from gx.cli.asking import asked
    from gx.run.history.spent import containers

    rented = asked(place, lambda ask: containers(ask, run))
    paid = [one for one in rented if not one.is_rehearsal]
    if not paid:
        output.note("no container was rented: nothing was spent")
        return
    held_s = sum(one.seconds or 0.0 for one in paid)
    note = "; some may run yet, `gx spend` follows them" if any(one.seconds is None for one in paid) else ""
    output.note(f"spent: ${sum(one.usd for one in paid):.4f} for {len(paid)} containers, {held_s:.0f} s in all{note}")


def tell_rehearsed(place: Workspace, run: str) -> None:
    """Say on stderr what would have happened: containers, their seconds, dollars, calls and faults."""
    import msgspec

    from cloud.rehearsal import Rehearsed

    file = place.folder / "rehearsals" / f"{run}.json"
    until = time.monotonic() + REPORT_S
    while not file.exists() and _has_reserved(place, run) and time.monotonic() < until:
        time.sleep(0.2)
    try:
        seen = msgspec.json.decode(file.read_bytes(), type=Rehearsed)
    except (OSError, msgspec.MsgspecError):
        output.note("rehearsed: no container was wanted" if not _has_reserved(place, run) else f"no report in {file}")
        return
    for bill in seen.bills:
        usd = "an unknown price" if bill.usd is None else f"${bill.usd:.4f}"
        output.note(
            f"rehearsed: {bill.containers} x {bill.gpu} would have cost {usd}: {bill.billed_s:.1f} s"
            f" ({bill.loading_s:.1f} loading, {bill.busy_s:.1f} busy, {bill.idle_s:.1f} idle)"
        )
    calls = ", ".join(f"{count} {how}" for how, count in sorted(seen.calls.items()))
    output.note(f"rehearsed: calls: {calls or 'none'}" + "".join(f"; {fault}" for fault in seen.faults))
    output.note("nothing was rented, nothing was spent, nothing left this machine")


def _has_reserved(place: Workspace, run: str) -> bool:
    from gx.cli.asking import asked
    from gx.run.history.spent import containers

    return bool(asked(place, lambda ask: containers(ask, run)))
