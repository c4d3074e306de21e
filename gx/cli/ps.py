"""`gx ps`: what runs now, as the workspace's node says. Where none is up, nothing runs, and none is started for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gx import output
from gx.cli.place import WorkspaceOpt

if TYPE_CHECKING:
    from gx.node.renting import ContainerNow, RentedNow
    from gx.node.status import BenchNow, NodeStatus, RunStatusNow

JsonOpt = Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or a table on stdout.")]


def ps(as_json: JsonOpt = None, workspace: WorkspaceOpt = None) -> None:
    """List what runs now: live runs with their progress, backlog, pace and time to go; the benches, and what is rented.

    A container is starting until it is first heard of; its cost is what is known of it so far. The tasks in flight
    are those of all containers of a run: which of them has which, nobody says.

    --json gives a row each, by "kind": run, bench, rented (a run's containers together), container.

    \b
    Examples:
        gx ps --json | jq -r 'select(.kind == "run").left_s'
        gx ps --json | jq 'select(.kind == "container") | {run, gpu, state, age_s, usd}'
    """
    found = status_of(workspace)
    if found is None:
        output.note("nothing is running: no node is up")
        return
    tell(found, as_json)


def tell(found: NodeStatus, as_json: bool | None) -> None:
    """Print what a node does: rows of JSON, or a table of runs, lines of benches, a table of containers."""
    if output.wants_json(as_json):
        output.emit(_rows(found), as_json=True)
        return
    output.emit([_shown_run(run) for run in found.runs], as_json=False)
    if not found.runs:
        output.write("no live run\n")
    for bench in found.benches:
        output.write(_bench_line(bench) + "\n")
    for rented in found.rented:
        output.write(_rented_line(rented) + "\n")
    output.emit([_shown_container(one) for rented in found.rented for one in rented.containers], as_json=False)
    output.write(f"node: process {found.pid}, {found.seq + 1:,} events, {found.usd:.2f} USD spent\n")


def status_of(workspace: Path | None) -> NodeStatus | None:
    """What the workspace's node does; None where none is up."""
    from gx.cli.place import workspace_of
    from gx.node.call import NodeGone, find
    from gx.node.status import NodeStatus

    client = find(workspace_of(workspace).folder)
    try:
        return None if client is None else client.ask("GET", "/v1/node", kind=NodeStatus)
    except NodeGone:
        return None


def _rows(found: NodeStatus) -> list[dict[str, Any]]:
    import msgspec

    containers = [one for rented in found.rented for one in rented.containers]
    together = [msgspec.structs.asdict(one) | {"containers": len(one.containers)} for one in found.rented]
    return [
        *map(_run_row, found.runs),
        *({"kind": "bench", **msgspec.structs.asdict(one)} for one in found.benches),
        *({"kind": "rented", **one} for one in together),
        *({"kind": "container", **msgspec.structs.asdict(one)} for one in containers),
    ]


def _run_row(run: RunStatusNow) -> dict[str, Any]:
    row = {name: getattr(run, name) for name in run.__struct_fields__ if name != "progress"}
    progress = {name: getattr(run.progress, name) for name in run.progress.__struct_fields__}
    return {"kind": "run", **row, **progress}


def _shown_run(run: RunStatusNow) -> dict[str, Any]:
    from gx.core.words import duration

    now = run.progress
    return {
        "run": run.run,
        "status": run.status,
        "done": f"{now.done:,}/{now.total:,}{'' if now.is_total_final else '+'}",
        "failed": f"{now.failed:,}",
        "running": f"{now.running:,}",
        "backlog": f"{run.backlog:,}",
        "tokens/s": "" if run.tokens_per_s is None else f"{run.tokens_per_s:,.1f}",
        "to go": "" if run.left_s is None else duration(run.left_s),
        "clients": "detached" if run.is_detached else f"{run.clients}",
    }


def _bench_line(bench: BenchNow) -> str:
    parts = [f"bench {bench.worker}: {bench.slots_busy} of {bench.slots} slots busy"]
    if bench.threads:
        parts.append(f"{bench.threads} threads")
    if bench.prompt_tokens_per_s:
        parts.append(f"{bench.prompt_tokens_per_s:,.0f} prompt tok/s")
    if bench.written_tokens_per_s:
        parts.append(f"{bench.written_tokens_per_s:,.0f} tok/s written")
    if bench.cached_share is not None:
        parts.append(f"{100 * bench.cached_share:.0f} % of prompts from the cache")
    if bench.mean_queue_s is not None:
        parts.append(f"{bench.mean_queue_s:.1f} s in the queue")
    return ", ".join(parts)


def _rented_line(rented: RentedNow) -> str:
    from gx.tui.draw import dollars

    up = sum(one.state == "up" for one in rented.containers)
    parts = [f"rented for {rented.run}: {up} of {len(rented.containers)} containers up"]
    parts.append(f"{rented.in_flight} tasks in flight" + (f" for {rented.slots} slots" if rented.slots else ""))
    cap = "" if rented.cap_usd is None else f" of {dollars(rented.cap_usd)}"
    parts.append("nothing is paid: a rehearsal" if rented.is_rehearsal else f"{dollars(rented.usd)}{cap} spent")
    return ", ".join(parts)


def _shown_container(one: ContainerNow) -> dict[str, Any]:
    from gx.core.words import duration

    return {
        "container": one.name or one.container,
        "run": one.run,
        "gpu": one.gpu,
        "state": one.state,
        "age": duration(one.age_s),
        "usd": f"{one.usd:.4f}" + (" rehearsed" if one.is_rehearsal else ""),
    }
