"""`gx why`: in words, why a task, a run or an event is as it is. What is said is found out in `gx.run.history.why`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from gx import output
from gx.cli.place import WorkspaceOpt
from gx.core.inert import inert

if TYPE_CHECKING:
    from gx.run.history.why import Line, Why

JsonOpt = Annotated[bool | None, typer.Option("--json/--plain", help="JSON or text on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("why")(why)


def why(
    subject: Annotated[
        str,
        typer.Argument(
            help="A run or a task, by its id or the start of it; or an event, by its seq.", show_default=False
        ),
    ],
    as_json: JsonOpt = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Say in words why a task has its state, why a run ended or stands, or what an event was decided from.

    It says nothing but what follows from the log's events, and names them.

    Example: gx why "$(gx sql --json "select task from results where status = 'failed' limit 1" | jq -r .task)"
    """
    import msgspec

    from gx.cli.asking import asked
    from gx.cli.place import workspace_of
    from gx.run.history.evidence import why as reason

    found = asked(workspace_of(workspace), lambda ask: reason(ask, subject))
    if output.wants_json(as_json):
        row = msgspec.to_builtins(found)
        row["lines"] = [{"seq": line.seq, "time": _time(line.at), "text": line.text} for line in found.lines]
        output.emit([row], as_json=True)
    else:
        output.write(as_text(found))


def as_text(found: Why) -> str:
    """The answer, then the events that it rests on, a line each."""
    of_run = f" of run {found.run}" if found.run not in ("", found.subject) else ""
    head = f"{found.kind} {found.subject}{of_run}: {found.status}"
    days = len({_time(line.at)[:10] for line in found.lines}) > 1
    return inert("\n".join([head, found.answer, "", *(_line(line, has_day=days) for line in found.lines)])) + "\n"


def _line(line: Line, *, has_day: bool) -> str:
    when = _time(line.at)
    return f"{when[:10] + ' ' if has_day else ''}{when[11:23]}  {'#' + str(line.seq):>7}  {line.text}"


def _time(at: int) -> str:
    return datetime.fromtimestamp(at / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
