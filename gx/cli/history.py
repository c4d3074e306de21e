"""`gx runs`, `gx log`, `gx sql`, `gx show`, `gx erase`: asking the log what happened, and removing content from it.

Parse, call, print: what is found out is in `gx.run` and `gx.cli.show`. DuckDB is loaded when a verb runs.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from gx import output
from gx.cli import health
from gx.cli.place import WorkspaceOpt
from gx.core.errors import NotFound, UsageError, WorkspaceError
from gx.output import ExitCode

if TYPE_CHECKING:
    from gx.core.tables import Table
    from gx.node.workspace import Workspace

JsonOpt = Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or a table on stdout.")]
FOLLOW_EVERY_S = 0.25
LEAVING_S = 10.0
"""How long a node that was sent home may take to let the log go."""


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb in (runs, show, log, sql, erase):
        app.command(verb.__name__)(verb)


def runs(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest N runs.")] = 20,
    as_json: JsonOpt = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """List the runs of this workspace, the newest first; of one that was archived, the archive is named.

    Example: gx runs --json | jq -r 'select(.status == "interrupted").run'
    """
    from gx.run.log.schema import VIEWS

    columns = "run, name, status, started, ended, tasks, succeeded, failed, tokens, seconds"
    question = f"""WITH gone AS ({VIEWS["archived"]})
        SELECT {columns}, NULL AS archive FROM runs UNION ALL SELECT {columns}, archive FROM gone
        ORDER BY started DESC LIMIT {limit}"""  # not the view: an older file may not have it
    _ask(workspace, question, as_json=as_json, none="no run yet")


def sql(
    question: Annotated[str, typer.Argument(help="One SELECT; - reads it from stdin.", show_default=False)],
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="At most N rows.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.01, help="Give up after this many seconds.")] = 10.0,
    archived: Annotated[
        bool, typer.Option("--archived", help="Ask the archives instead: what was moved there.")
    ] = False,
    as_json: JsonOpt = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Ask the log in SQL; it can be read, never changed.

    Views: runs, tasks, results, attempts, spend, decisions, egress, engine, memories, recalled, archived; and the table
    events. `gx sql "describe tasks"` shows the columns of one. With --archived they are made of all events up to the
    last archive.

    Example: gx sql "select status, count(*) from tasks group by all"
    """
    if question == "-":
        from gx.cli.memoryinput import text_of

        question = text_of("-")
    _ask(workspace, question, as_json=as_json, none="no rows", timeout_s=timeout, max_rows=limit, is_archived=archived)


def log(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for further events.")] = False,
    run: Annotated[str | None, typer.Option("--run", help="Of this run only.")] = None,
    kind: Annotated[
        str | None, typer.Option("--type", help='Of this type only; "task.*" matches all of a kind.')
    ] = None,
    after: Annotated[int, typer.Option("--after", help="Only events after this seq.")] = -1,
    verify: Annotated[bool, typer.Option("--verify", help="The same as `gx verify`.")] = False,
    salvage: Annotated[bool, typer.Option("--salvage", help="The same as `gx repair --yes`.")] = False,
    as_json: JsonOpt = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Print the events of the log, one JSON object a line.

    Example: gx log --run triage-k3m9xq --type task.failed | jq .data.message
    """
    from gx.cli.place import workspace_of
    from gx.node.reader import ask, reading

    place = workspace_of(workspace)
    if salvage:
        health.mend(place, is_agreed=True, is_dry=False, as_json=as_json)
    elif verify:
        health.show_report(ask(place, lambda reader: reader.verify()), as_json)
    elif follow:
        for line in _followed(place, run=run, kind=kind, after=after):
            _write(line)
    else:
        with reading(place) as reader, output.writing():
            out = output.data_out()
            for page in reader.pages(run=run, kind=kind, after=after):
                out.write(page)
            out.flush()


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
    from gx.node.reader import ask

    found = ask(workspace_of(workspace), lambda reader: reader.story(subject))
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

    That it existed, its times, counts and row ids stay in the log, which still verifies. With a task goes what the
    other steps of its run made of the same row. What a reduce made of many rows, or another run of this one, stays, as
    does what it needs of this: erase that run too. Copies elsewhere are not reached. No run may be live meanwhile.
    """
    from gx.cli.place import workspace_of
    from gx.node.start import send_home
    from gx.run.history.story import resolve
    from gx.run.log.erase import erase as erase_content
    from gx.run.log.erase_archived import archived_run, erase_archived

    can_ask = sys.stdin.isatty() and sys.stderr.isatty()
    if not yes and not can_ask:
        raise UsageError("erasing can't be undone, and there is no terminal to ask on", hint="add --yes")
    place = workspace_of(workspace)
    send_home(place.folder)
    with place.shared(wait_s=LEAVING_S) as opened:
        is_archived = False
        try:
            name, is_run = resolve(opened, subject)
        except NotFound:
            name, is_run, is_archived = archived_run(opened, subject), True, True
    what = f"{'archived run' if is_archived else 'run' if is_run else 'task'} {name}"
    if not yes and not typer.confirm(f"Erase the content of {what} for good?", err=True):
        output.note("nothing was erased")
        raise typer.Exit(ExitCode.error)
    with place.exclusive(wait_s=LEAVING_S) as opened:
        report = erase_archived(opened, name) if is_archived else erase_content(opened, name)
    output.emit([msgspec.to_builtins(report)], columns=["subject", "seq", "blobs", "size_bytes"], as_json=as_json)
    output.note(f"erased {report.blobs} contents of {what} ({report.size_bytes:,} bytes)")
    if report.kept:
        others = sorted(set(report.kept.values()))
        output.note(f"kept {len(report.kept)} that others use too: {', '.join(others[:5])}{' …' * (len(others) > 5)}")
    if report.copies:
        output.note(f"copies of a damaged log may still hold it: {', '.join(report.copies)} in {place.folder}")


def _ask(
    workspace: Path | None,
    question: str,
    *,
    as_json: bool | None,
    none: str,
    timeout_s: float = 10.0,
    max_rows: int | None = None,
    is_archived: bool = False,
) -> None:
    from gx.cli.place import workspace_of
    from gx.node import reader as readers

    def answered(reader: readers.Reader) -> Table:
        return reader.table(question, timeout_s=timeout_s, max_rows=max_rows)

    place = workspace_of(workspace)
    if is_archived:
        with readers.archived(place) as reader:
            answer = answered(reader)
    else:
        answer = readers.ask(place, answered)
    output.emit(answer.rows, columns=list(answer.columns), as_json=as_json)
    if not answer.rows:
        output.note(none)
    if answer.is_cut:
        output.note(f"there are more than {max_rows} rows")


def _followed(
    place: Workspace, *, run: str | None, kind: str | None, after: int, sleep: Callable[[float], None] = time.sleep
) -> Iterator[bytes]:
    """Lines without end: of the node while one is up, else of the file, which is looked at when it has changed."""
    from gx.node.call import NodeGone, find

    is_told, seen = False, -1
    while True:
        if (client := find(place.folder)) is not None:
            with contextlib.suppress(NodeGone):
                for line in client.lines("/v1/events", run=run, type=kind, after=after, follow="true"):
                    after = msgspec.json.decode(line, type=_Numbered).seq
                    yield line.rstrip()
            continue
        try:
            changed = (place.folder / "log.head").stat().st_mtime_ns
        except OSError:
            changed = 0
        if changed != seen:
            try:
                page, after, is_all = _page(place, run, kind, after)
                seen, is_told = changed if is_all else seen, False
                yield from page  # the lock is let go: whoever reads this may be slow
                continue
            except WorkspaceError as error:
                if error.code not in ("workspace.locked", "workspace.empty"):
                    raise
                if not is_told:
                    output.note(f"waiting: {error.message}")
                    is_told = True
        sleep(FOLLOW_EVERY_S)


def _page(place: Workspace, run: str | None, kind: str | None, after: int) -> tuple[list[bytes], int, bool]:
    """The lines of the next events of the file, the `seq` that they reach, and whether that is the last."""
    from gx.run.log.lines import PAGE, pages_of

    with place.shared() as opened:
        last = min(opened.last_seq, after + PAGE)
        page = b"".join(pages_of(opened, run=run, kind=kind, after=after, last=last))
        return page.splitlines(), max(after, last), last >= opened.last_seq


class _Numbered(msgspec.Struct):
    seq: int


def _write(line: bytes) -> None:
    output.write(line.decode() + "\n")
