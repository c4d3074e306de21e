"""`gx export`: the results of a run as a file for other programs.

Parse, call, write: what the forms look like is in `gx.run.history.export`. A file that was asked for appears
when it is whole.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from gx import output
from gx.cli.place import WorkspaceOpt
from gx.core.errors import GxError, UsageError

if TYPE_CHECKING:
    from gx.node.workspace import Workspace
    from gx.run.history.past import Past
    from gx.run.record import Record

RunArg = Annotated[str, typer.Argument(help="A run, by its id or the start of it.", show_default=False)]


class Form(str, Enum):
    """What a run can be exported as."""

    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"
    cloudevents = "cloudevents"
    otlp = "otlp"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("export")(export)


def export(
    run: RunArg,
    form: Annotated[
        Form | None, typer.Option("--to", help="By default JSON lines, or a table on a terminal.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file; - is stdout, as is leaving it out.")
    ] = None,
    with_input: Annotated[
        bool, typer.Option("--with-input", help="Put each row's own fields into its record.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes.")] = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """Write the results of a run in the order of its rows: JSON lines, CSV or Parquet; or its events as CloudEvents.

    With --to otlp its traces and metrics, without content, are sent to the collector of OTEL_EXPORTER_OTLP_ENDPOINT.

    The fields of an answer are columns of CSV and Parquet: output.category, output.urgency, …

    Example: gx export triage-k3m9xq --to csv -o tickets.csv
    """
    from gx.cli.asking import asked
    from gx.cli.place import workspace_of
    from gx.run.history.past import look_at

    output.set_mode(quiet=quiet)
    is_stdout = out is None or str(out) == "-"
    if form is Form.parquet and is_stdout and sys.stdout.isatty():
        raise UsageError("Parquet is no text, and stdout is a terminal", hint="name a file: -o FILE.parquet")
    place = workspace_of(workspace)
    if form is Form.otlp:
        if out is not None or with_input:
            raise UsageError("--to otlp sends to a collector: it takes neither -o nor --with-input")
        _send(place, run)
        return
    past = asked(place, lambda ask: look_at(ask, run))
    with _target(None if is_stdout else out) as (stream, file):
        if form is None and is_stdout and not output.wants_json():
            count = _table(place, past, with_input=with_input)
        elif form is Form.cloudevents:
            count = _events(place, past, stream)
        elif form in (Form.csv, Form.parquet):
            count = _columns(place, past, form, stream, file, with_input=with_input)
        else:
            count = _lines(place, past, stream, with_input=with_input)
    what = "events" if form is Form.cloudevents else "rows"
    more = "" if past.status == "finished" else f"; it is {past.status}, and these are those that there are so far"
    output.note(f"{count:,} {what} of {past.run}{'' if is_stdout else f' in {out}'}{more}")


# ── the forms ────────────────────────────────────────────────────────────────────────────────────────────────────


def _records(place: Workspace, past: Past, *, with_input: bool) -> Iterator[list[Record]]:
    """The records, a page at a time."""
    from gx.cli.asking import asked
    from gx.run.history.export import records_after
    from gx.run.history.past import Place

    after: Place | None = Place()
    while after is not None:
        here = after
        records, after = asked(
            place,
            lambda ask: records_after(ask, past, here, with_input=with_input),  # noqa: B023
            runs=[past.run],
        )
        yield records


def _lines(place: Workspace, past: Past, stream: IO[bytes], *, with_input: bool) -> int:
    import msgspec

    from gx.wiring import used_models

    model = ", ".join(past.recipe.models[name].source for name in used_models(past.recipe))
    count = 0
    for records in _records(place, past, with_input=with_input):
        for record in records:
            row = record.as_batch(model=model) if record.task.is_batch else record.as_dict(with_input=with_input)
            stream.write(msgspec.json.encode(row) + b"\n")
        count += len(records)
    return count


def _table(place: Workspace, past: Past, *, with_input: bool) -> int:
    from gx.cli.table import StreamedTable

    table, count = StreamedTable(sys.stdout), 0
    for records in _records(place, past, with_input=with_input):
        table.write([record.as_dict(with_input=with_input) for record in records])
        count += len(records)
    return count


def _columns(
    place: Workspace, past: Past, form: Form | None, stream: IO[bytes], file: Path | None, *, with_input: bool
) -> int:
    from gx.run.history.export import Sheet

    sheet, count = Sheet(), 0
    for records in _records(place, past, with_input=with_input):
        for record in records:
            sheet.add(record.as_dict(with_input=with_input))
        count += len(records)
    if form is Form.csv:
        sheet.write_csv(stream)
    elif file is not None:
        sheet.write_parquet(file)
    else:
        with tempfile.NamedTemporaryFile(suffix=".parquet") as made:
            sheet.write_parquet(Path(made.name))
            while chunk := made.read(1 << 20):
                stream.write(chunk)
    return count


def _events(place: Workspace, past: Past, stream: IO[bytes]) -> int:
    import msgspec

    from gx.cli.asking import asked
    from gx.run.history.export import events_after, seq_of

    after, count = -1, 0
    while found := asked(place, lambda ask: events_after(ask, past, after), runs=[past.run]):  # noqa: B023
        for event in found:
            stream.write(msgspec.json.encode(event) + b"\n")
        after, count = seq_of(found[-1]), count + len(found)
    return count


def _send(place: Workspace, start: str) -> None:
    """Let the node, which writes down what leaves, send a run's traces. :raises GxError: if not all of it arrived."""
    from gx import settings
    from gx.cli.asking import asked
    from gx.core.event import TelemetryEnded
    from gx.node.start import ensure
    from gx.otel.collector import check_collector, collector_of
    from gx.run.history.past import find_run

    collector = collector_of(os.environ)
    if collector is None:
        raise UsageError("OpenTelemetry is switched off here: OTEL_SDK_DISABLED, or both exporters are none")
    check_collector(collector, is_offline=settings.load().offline)
    run = asked(place, lambda ask: find_run(ask, start))
    ended: TelemetryEnded = ensure(place.folder).ask(
        "POST", f"/v1/runs/{run}/otel", collector, kind=TelemetryEnded, timeout_s=None
    )
    if ended.error:
        raise GxError(
            f"not all of {run} arrived at {ended.to}: {ended.error}", code="otel.sent",
            hint="OTEL_EXPORTER_OTLP_ENDPOINT names the collector; to send it again does no harm",
        )  # fmt: skip
    output.note(f"{ended.arrived:,} spans of {run} arrived at {ended.to}")


# ── where it goes ────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _target(out: Path | None) -> Iterator[tuple[IO[bytes], Path | None]]:
    """Where bytes go, and the file that it is, if it is one: it gets its name when the block ends well.

    :raises GxError: if it can't be written.
    """
    try:
        if out is None:
            with output.writing():
                stream = output.data_out()
                yield stream, None
                stream.flush()
            return
        if out.exists() and not out.is_file():  # a pipe or a device
            with out.open("wb") as stream:
                yield stream, None
            return
        new = out.with_name(f".{out.name}.{os.getpid()}")
        try:
            with new.open("wb") as stream:
                yield stream, new
            new.replace(out)
        finally:
            new.unlink(missing_ok=True)
    except BrokenPipeError:  # whoever read it has enough
        raise
    except OSError as error:
        raise GxError(f"{out} can't be written: {error.strerror or error}", hint="name another file with -o") from None
