"""`gx runs`, `gx log`, `gx sql`, `gx show`, `gx erase`: asking the log what happened, and removing content from it.

Parse, call, print: what is found out is in `gx.run` and `gx.cli.show`. DuckDB is loaded when a verb runs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gx import output
from gx.core.errors import UsageError, WorkspaceError
from gx.output import ExitCode

if TYPE_CHECKING:
    from gx.node.workspace import Workspace
    from gx.run.log import EventLog
    from gx.run.log.verify import Report

WorkspaceOpt = Annotated[
    Path | None,
    typer.Option("--workspace", help="The .gx folder; by default the nearest one above.", show_default=False),
]
JsonOpt = Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or a table on stdout.")]
FOLLOW_EVERY_S = 0.25
FOLLOW_PAGE = 10_000
PAGE = 10_000


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb in (runs, show, log, sql, erase):
        app.command(verb.__name__)(verb)


def runs(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest N runs.")] = 20,
    as_json: JsonOpt = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """List the runs of this workspace, the newest first.

    Example: gx runs --json | jq -r 'select(.status == "interrupted").run'
    """
    question = f"""SELECT run, name, status, started, ended, tasks, succeeded, failed, tokens, seconds
        FROM runs ORDER BY started DESC LIMIT {limit}"""
    _ask(workspace, question, as_json=as_json, none="no run yet")


def sql(
    question: Annotated[str, typer.Argument(help="One SELECT; - reads it from stdin.", show_default=False)],
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="At most N rows.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.01, help="Give up after this many seconds.")] = 10.0,
    as_json: JsonOpt = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Ask the log in SQL; it can be read, never changed.

    Views: runs, tasks, results, attempts, spend, decisions, egress, engine; `gx sql "describe tasks"` shows the columns
    of one.

    Example: gx sql "select status, count(*) from tasks group by all"
    """
    text = sys.stdin.read() if question == "-" else question
    _ask(workspace, text, as_json=as_json, none="no rows", timeout_s=timeout, max_rows=limit)


def log(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for further events.")] = False,
    run: Annotated[str | None, typer.Option("--run", help="Of this run only.")] = None,
    kind: Annotated[
        str | None, typer.Option("--type", help='Of this type only; "task.*" matches all of a kind.')
    ] = None,
    after: Annotated[int, typer.Option("--after", help="Only events after this seq.")] = -1,
    verify: Annotated[bool, typer.Option("--verify", help="Check that every event is there and unchanged.")] = False,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Copy a damaged log aside and keep all of it that can be read.")
    ] = False,
    as_json: JsonOpt = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Print the events of the log, one JSON object a line.

    Example: gx log --run triage-k3m9xq --type task.failed | jq .data.message
    """
    from gx.cli.place import workspace_of

    place = workspace_of(workspace)
    if salvage:
        _report(_salvage(place), as_json)
    elif verify:
        from gx.run.log.verify import verify as check

        with place.shared() as opened:
            report = check(opened)
        _report(report, as_json)
    elif follow:
        for line in _followed(place, run=run, kind=kind, after=after):
            _write(line)
    else:
        with place.shared() as opened:
            for _, line in _lines(opened, run=run, kind=kind, after=after):
                _write(line)


def show(
    subject: Annotated[str, typer.Argument(help="A run or a task, by its id or the start of it.", show_default=False)],
    as_json: JsonOpt = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Show all that is known of a run or a task: prompts, answer, attempts, errors, timing.

    Example: gx show "$(gx sql --json "select task from results where status = 'failed' limit 1" | jq -r .task)"
    """
    from gx.cli import show as showing
    from gx.cli.place import workspace_of

    with workspace_of(workspace).shared() as opened:
        name, is_run = showing.resolve(opened, subject)
        found = showing.run_story(opened, name) if is_run else showing.task_story(opened, name)
    if output.wants_json(as_json):
        output.emit([found], as_json=True)
    else:
        _write(showing.as_text(found).encode())


def erase(
    subject: Annotated[str, typer.Argument(help="A run or a task, by its id or the start of it.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: JsonOpt = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Erase the content of a run or a task from the disk: its rows, prompts, answers and error details.

    That it existed, its times, counts and row ids stay in the log, which still verifies. What other tasks made of the
    content is theirs: erase them too. Copies elsewhere are not reached.
    """
    from gx.cli import show as showing
    from gx.cli.place import workspace_of
    from gx.run.log.erase import erase as erase_content

    can_ask = sys.stdin.isatty() and sys.stderr.isatty()
    if not yes and not can_ask:
        raise UsageError("erasing can't be undone, and there is no terminal to ask on", hint="add --yes")
    place = workspace_of(workspace)
    with place.shared() as opened:
        name, is_run = showing.resolve(opened, subject)
    what = f"{'run' if is_run else 'task'} {name}"
    if not yes and not typer.confirm(f"Erase the content of {what} for good?", err=True):
        output.note("nothing was erased")
        raise typer.Exit(ExitCode.error)
    with place.exclusive() as opened:
        report = erase_content(opened, name)
    output.emit([msgspec.to_builtins(report)], columns=["subject", "seq", "blobs", "size_bytes"], as_json=as_json)
    output.note(f"erased {report.blobs} contents of {what} ({report.size_bytes:,} bytes)")
    if report.kept:
        others = sorted(set(report.kept.values()))
        output.note(f"kept {len(report.kept)} that others use too: {', '.join(others[:5])}{' …' * (len(others) > 5)}")
    if report.copies:
        output.note(f"copies of a salvage may still hold it: {', '.join(report.copies)} in {place.folder}")


def _ask(
    workspace: Path | None,
    question: str,
    *,
    as_json: bool | None,
    none: str,
    timeout_s: float = 10.0,
    max_rows: int | None = None,
) -> None:
    from gx.cli.place import workspace_of
    from gx.run.log.query import run_sql

    with workspace_of(workspace).shared() as opened:
        answer = run_sql(opened, question, timeout_s=timeout_s, max_rows=max_rows)
    columns = [
        name if answer.columns.index(name) == place else f"{name}_{place + 1}"
        for place, name in enumerate(answer.columns)
    ]
    rows = [
        {name: _plain(value, kind) for name, value, kind in zip(columns, row, answer.types, strict=True)}
        for row in answer.rows
    ]
    output.emit(rows, columns=columns, as_json=as_json)
    if not rows:
        output.note(none)
    if answer.is_cut:
        output.note(f"there are more than {max_rows} rows")


def _plain(value: Any, kind: str = "") -> Any:
    """A value of DuckDB as JSON has it."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return msgspec.json.decode(value) if kind == "JSON" else value
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds") + "Z"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    return str(value)


def _lines(log: EventLog, *, run: str | None, kind: str | None, after: int) -> Iterator[tuple[int, bytes]]:
    """Each event that fits, with its `seq`: the envelope's names are those of CloudEvents where it has one."""
    sql = """SELECT seq, ts, source, type, run, task, attempt, worker, data FROM events
        WHERE seq BETWEEN $1 AND $2 AND ($3 IS NULL OR run = $3) AND ($4 IS NULL OR type GLOB $4) ORDER BY seq"""
    for first in range(max(after + 1, 0), log.last_seq + 1, PAGE):
        for seq, ts, *rest, data in log.file.ask(sql, [first, first + PAGE - 1, run, kind]):
            named = zip(("source", "type", "run", "task", "attempt", "worker"), rest, strict=True)
            when = datetime.fromtimestamp(ts / 1e6, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
            line = {"seq": seq, "time": when, **{name: value for name, value in named if value is not None}}
            yield seq, msgspec.json.encode({**line, "data": msgspec.Raw(data.encode())})


def _followed(
    place: Workspace, *, run: str | None, kind: str | None, after: int, sleep: Callable[[float], None] = time.sleep
) -> Iterator[bytes]:
    """Lines without end. While another process owns the workspace it waits, and says so once."""
    is_told, seen = False, -1
    while True:
        try:
            changed = (place.folder / "log.head").stat().st_mtime_ns
        except OSError:
            changed = 0
        if changed != seen:
            try:
                with place.shared() as opened:
                    page = list(islice(_lines(opened, run=run, kind=kind, after=after), FOLLOW_PAGE))
                    if len(page) == FOLLOW_PAGE:
                        after = page[-1][0]
                    else:
                        after, seen = max(after, opened.last_seq), changed
                is_told = False
                yield from (line for _, line in page)  # the lock is let go: whoever reads this may be slow
                if changed != seen:
                    continue
            except WorkspaceError as error:
                if error.code not in ("workspace.locked", "workspace.empty"):
                    raise
                if not is_told:
                    output.note(f"waiting: {error.message}")
                    is_told = True
        sleep(FOLLOW_EVERY_S)


def _salvage(place: Workspace) -> Report:
    import fcntl

    from gx.run.log.verify import salvage

    with place.locked(fcntl.LOCK_EX, 0.0):
        return salvage(place.folder)


def _report(report: Report, as_json: bool | None) -> None:
    row = {**msgspec.to_builtins(report), "is_whole": report.is_whole}
    output.emit([row], columns=["events", "blobs", "blob_bytes", "erased", "lost", "is_whole"], as_json=as_json)
    for problem in report.problems:
        output.note(f"problem: {problem}")
    if report.copies:
        output.note(f"the files as they were are in {report.copies}")
    if report.lost:
        output.note(f"{report.lost} acknowledged events could not be read")
    if not report.is_whole:
        raise typer.Exit(ExitCode.error)


def _write(line: bytes) -> None:
    sys.stdout.write(line.decode() + "\n")
    sys.stdout.flush()
