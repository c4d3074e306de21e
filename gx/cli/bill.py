"""What a burst came to, told once its run is over: what its containers cost, or would have."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from gx import output
from gx.core.words import counted

if TYPE_CHECKING:
    from gx.node.workspace import Workspace
    from gx.run.history.spent import Container

REPORT_S = 30.0
"""How long the report of a rehearsal's processes may take once its run is over: they end first."""


def tell_spent(place: Workspace, run: str) -> None:
    """Say on stderr what the run's containers cost, as far as the log knows."""
    paid = [one for one in _rented(place, run) if not one.is_rehearsal]
    if not paid:
        output.note("no container was rented: nothing was spent")
        return
    note = "; some may run yet, `gx spend` follows them" if any(one.seconds is None for one in paid) else ""
    number = counted(len(paid), "container")
    output.note(f"spent: ${_usd(paid):.4f} for {number}, {_seconds(paid):.0f} s in all{note}")


def tell_rehearsed(place: Workspace, run: str) -> None:
    """Say on stderr what would have happened: what `gx spend` has of the containers, then what their processes did.

    The two differ: a container costs from its reservation on, and to its idle end, while a process begins when there is
    something to do. Of a node that died before, only `gx spend` knows the containers.
    """
    rented = [one for one in _rented(place, run) if one.is_rehearsal]
    if not rented:
        output.note("rehearsed: no container was wanted")
        return
    for gpu in sorted({one.gpu for one in rented}):
        mine = [one for one in rented if one.gpu == gpu]
        output.note(
            f"rehearsed: {len(mine)} x {gpu} would have cost ${_usd(mine):.4f}: {_seconds(mine):.1f} s from reservation"
            " to end, as `gx spend` has it"
        )
    _tell_stand(place.folder / "rehearsals" / f"{run}.json")
    output.note("nothing was rented, nothing was spent, nothing left this machine")


def _tell_stand(file: Path) -> None:
    """What the processes that stood for containers did, by the control plane's own report."""
    import msgspec

    from cloud.rehearsal import Rehearsed

    until = time.monotonic() + REPORT_S
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.2)
    try:
        seen = msgspec.json.decode(file.read_bytes(), type=Rehearsed)
    except (OSError, msgspec.MsgspecError):
        output.note(f"rehearsed: there is no report of the processes in {file}")
        return
    for bill in seen.bills:
        usd = "" if bill.usd is None else f", ${bill.usd:.4f} by the second"
        parts = f"{bill.loading_s:.1f} loading, {bill.busy_s:.1f} busy, {bill.idle_s:.1f} idle"
        number = counted(bill.containers, "process", "processes")
        output.note(f"rehearsed: {number} for {bill.gpu} lived {bill.billed_s:.1f} s ({parts}){usd}")
    calls = ", ".join(f"{count} {how}" for how, count in sorted(seen.calls.items()))
    output.note(f"rehearsed: calls: {calls or 'none'}" + "".join(f"; {fault}" for fault in seen.faults))


def _rented(place: Workspace, run: str) -> list[Container]:
    from gx.cli.asking import asked
    from gx.run.history.spent import containers

    return asked(place, lambda ask: containers(ask, run))


def _usd(rented: list[Container]) -> float:
    return sum(one.usd for one in rented)


def _seconds(rented: list[Container]) -> float:
    return sum(one.seconds or 0.0 for one in rented)
