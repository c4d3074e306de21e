"""`gx audit egress`: what of a run left this machine, from the events that were committed before it did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gx import output
from gx.cli.place import RunArg, WorkspaceOpt
from gx.core.terms import REHEARSAL

if TYPE_CHECKING:
    from gx.run.history.past import Ask

JsonOpt = Annotated[bool | None, typer.Option("--json/--plain", help="JSON or text on stdout.")]
_COLUMNS = ("at", "task", "step", "attempt", "to", "bytes", "digest", "fields")
_DIGEST_CHARS = 12
"""Of a digest on a terminal; --json has all of it."""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    verbs = typer.Typer(help="List what the log says of a run's privacy.", no_args_is_help=True)
    verbs.callback()(_audit)
    verbs.command("egress")(egress)
    app.add_typer(verbs, name="audit")


def _audit() -> None:
    """Check a run's conduct by the log."""


def egress(run: RunArg, as_json: JsonOpt = None, workspace: WorkspaceOpt = None) -> None:
    """List what of a run left this machine: which task, where to, made from which fields, how many bytes.

    Each row is an event that was committed before the bytes left. No content is in it; the digest is that of the bytes.

    Example: gx audit egress triage
    """
    from gx.cli.asking import asked
    from gx.cli.place import workspace_of

    name, rows = asked(workspace_of(workspace), lambda ask: departures(ask, run), runs=(run,))
    if output.wants_json(as_json):
        output.emit(rows, as_json=True)
    else:
        output.emit(map(_shown, rows), columns=_COLUMNS, as_json=False)
    output.note(total(name, rows))


def departures(ask: Ask, start: str) -> tuple[str, list[dict[str, Any]]]:
    """The run whose id starts so, and a row for each departure, in order. :raises NotFound: if there is no such run."""
    from gx.run.history.past import find_run, text

    run = find_run(ask, start)
    found = ask(
        f"""SELECT e.at, t.step, e.task, e.attempt, e.destination AS "to", e.bytes, e.digest, e.fields,
            e.data->>'$.sort' AS sort
        FROM egress e LEFT JOIN tasks t USING (task) WHERE e.run = {text(run)} ORDER BY e.seq"""
    )
    return run, [{**row, "fields": _names(row["fields"])} for row in found]


def _names(fields: Any) -> list[str]:
    return list(json.loads(fields) if isinstance(fields, str) else fields or ())


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "digest": row["digest"][:_DIGEST_CHARS], "fields": ", ".join(row["fields"])}


def total(run: str, rows: Sequence[dict[str, Any]]) -> str:
    """All of it in a sentence; what went to a rehearsal is told apart, for it did not leave."""
    left = [row for row in rows if row["to"] != REHEARSAL]
    rehearsed = [row for row in rows if row["to"] == REHEARSAL]
    told = []
    if left:
        places = ", ".join(sorted({row["to"] for row in left}))
        told.append(f"{_things(left)} of {run} left this machine for {places}: {_size(left)}")
    if rehearsed:
        told.append(
            f"{_things(rehearsed)} of {run} went to a rehearsal and did not leave this machine: {_size(rehearsed)}"
        )
    return "; ".join(told) or f"nothing of {run} left this machine"


def _things(rows: Sequence[dict[str, Any]]) -> str:
    """What went, by its kinds: `2 tasks in 3 turns and 1 notice`."""
    turns = [row["task"] for row in rows if row["task"] is not None]
    sorts = [row["sort"] for row in rows if row["sort"] is not None]
    told = {"task": len(set(turns)), "turn": len(turns), "notice": len(rows) - len(turns) - len(sorts)}
    parts = [f"{count:,} {name}{'' if count == 1 else 's'}" for name, count in told.items() if count]
    counted = {sort: sorts.count(sort) for sort in sorted(set(sorts))}
    parts += [f"{count:,} batch{'' if count == 1 else 'es'} of {sort}" for sort, count in counted.items()]
    return " and ".join([" in ".join(parts[:2]), *parts[2:]] if turns else parts)


def _size(rows: Sequence[dict[str, Any]]) -> str:
    return f"{sum(row['bytes'] for row in rows):,} bytes"
