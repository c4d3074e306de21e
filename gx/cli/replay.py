"""`gx replay`: how long a recorded run would have taken under another policy, and what it would have cost.

Parse, call, print: what is found out is in `gx.run.replay`. Nothing is run, rented or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gx import output
from gx.cli.place import WorkspaceOpt

if TYPE_CHECKING:
    from gx.core.task import Offer
    from gx.run.replay.compare import Outcome
    from gx.run.replay.recorded import Recorded

JsonOpt = Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or a table on stdout.")]
TIMEOUT_S = 120.0
"""The longest that an input is taken to run, for what the cap reserves."""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("replay")(replay)


def replay(
    run: Annotated[str, typer.Argument(help="A finished run, by its id or the start of it.", show_default=False)],
    policy: Annotated[
        list[str],
        typer.Option("--policy", "-p", help="What to try instead; several are compared.", show_default=False),
    ],
    as_json: JsonOpt = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Play a recorded run through another policy on a simulated clock: how long, and how much.

    A policy is keys and values: slots=16, burst=off|auto|always, containers=4, gpu=L4, usd=2 (the cap), deadline=30m,
    faster=10 (than this machine) and start=60s of a container. The first line is the run's own policy, played again:
    how far it is from what was measured says how far to trust the others.

    Example: gx replay triage-k3m9xq --policy slots=16 --policy slots=8,containers=4,gpu=L4,burst=auto
    """
    from gx.cli.asking import asked
    from gx.cli.place import workspace_of
    from gx.run.replay import compare
    from gx.run.replay.recorded import recorded
    from gx.run.replay.wanted import wanted

    offers = _offers()
    policies = [wanted(text, gpus=tuple(offers)) for text in policy]
    found = asked(workspace_of(workspace), lambda ask: recorded(ask, run), runs=[run])
    mine = compare.own(found)
    outcomes = [mine, *(compare.outcome(found, one, offers) for one in policies)]
    is_json = output.wants_json(as_json)
    output.emit([_row(found, one, is_json=is_json) for one in outcomes], as_json=as_json)
    _notes(found, mine, outcomes, offers)


def _offers() -> dict[str, Offer]:
    """What may be rented, at known prices."""
    from cloud.cost import COLD_START_S, RATES, offers

    return offers(RATES, timeout_s=TIMEOUT_S, start_limit_s=COLD_START_S)


# ── showing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _row(run: Recorded, one: Outcome, *, is_json: bool) -> dict[str, Any]:
    played = one.played
    row = {
        "policy": one.policy,
        "slots": one.slots,
        "seconds": round(played.makespan_s, 1),
        "of measured": round(played.makespan_s / run.makespan_s, 2),
        "usd": round(played.usd, 4),
        "containers": played.containers,
        "here": played.edge_tasks,
        "rented": played.cloud_tasks,
    }
    if not is_json:
        return row | {"usd": f"{played.usd:.4f}"}
    row["of_measured"] = row.pop("of measured")
    decisions = [{"at_s": round(at_s, 1), "reason": verdict.reason} for at_s, verdict in played.decisions]
    fitted = {"run": run.run, "measured_s": round(run.makespan_s, 1), "assumed": one.assumed, "notes": list(run.notes)}
    return row | fitted | {"container_s": round(played.container_s, 1), "decisions": decisions}


def _notes(run: Recorded, mine: Outcome, outcomes: Sequence[Outcome], offers: dict[str, Offer]) -> None:
    off = mine.played.makespan_s / run.makespan_s - 1
    decode, prefill = run.pace.decode, run.pace.prefill
    way = "more" if off > 0 else "less"
    output.note(f"measured: {run.makespan_s:.1f} s at {run.slots} slots; played again as it ran, {abs(off):.0%} {way}")
    output.note(
        f"fitted on {run.calls:,} calls of {run.run}: a decode takes {1000 * decode.fixed_s:.1f} ms"
        f" + {1000 * decode.each_s:.2f} ms a row, a prompt {1000 * prefill.each_s:.2f} ms a token"
    )
    for note in run.notes:
        output.note(f"note: {note}")
    for text in dict.fromkeys(one.assumed for one in outcomes if one.assumed):
        output.note(f"assumed: {text}")
    if any(one.played.usd for one in outcomes):
        rates = next(iter(offers.values()))
        output.note(f"prices: {rates.source}, {rates.date}")
    for one in outcomes:
        for at_s, verdict in one.played.decisions:
            output.note(f"{one.policy}: after {at_s:.0f} s, {verdict.reason}")
