"""The results of a run in other forms: records a page at a time, rows of columns as CSV or Parquet, CloudEvents.

It knows shapes and formats, and asks the log through `history.past`. Whatever the run's length, what is held at a time
is one page. Columns are known only when all rows were seen, so rows wait for them in a file.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from gx.core import event as e
from gx.core.errors import GxError
from gx.run.history import past
from gx.run.history.past import Ask, Past, Place
from gx.run.record import Record

PAGE = 2000
PAGE_BYTES = 16 << 20
"""The most content of one page, unless one record has more."""
BASE = {"id": "VARCHAR", "index": "BIGINT", "step": "VARCHAR", "status": "VARCHAR", "cached": "BOOLEAN"}
"""The columns that every record has, with DuckDB's types."""
_ORDER = ("id", "index", "step", "status", "matrix", "output", "finish", "scores", "logprobs", "error", "usage",
          "cached", "input")  # fmt: skip
_SPREAD = frozenset({"matrix", "output", "scores", "error", "usage", "input"})
"""Fields of a record whose own fields get a column each."""
_KINDS = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE"}


# ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────


def records_after(ask: Ask, run: Past, after: Place, *, with_input: bool) -> tuple[list[Record], Place | None]:
    """The next records after a place, in the order of their rows, and where they end; `None` if that was all."""
    tasks, last = past.ended_after(ask, run, after, PAGE)
    refs = {t.id: [r for r in (t.output, t.likelihoods, t.input if with_input else None) if r] for t in tasks}
    sizes = past.sizes(ask, {ref for own in refs.values() for ref in own})
    total = 0
    for number, task in enumerate(tasks):
        total += sum(sizes.get(ref, 0) for ref in refs[task.id])
        if total > PAGE_BYTES and number:
            tasks, last = tasks[:number], _place(ask, run, tasks[number - 1].id)
            break
    found = past.contents(ask, {ref for task in tasks for ref in refs[task.id]})
    made = [
        Record(
            task=task,
            output=found.get(task.output or ""),
            likelihoods=found.get(task.likelihoods or ""),
            input=found.get(task.input or "") if with_input else None,
        )
        for task in tasks
    ]
    return made, last


def _place(ask: Ask, run: Past, task: str) -> Place:
    where = f"type = 'task.queued' AND run = {past.text(run.run)} AND task = {past.text(task)}"
    queued = past.events(ask, where)[0]
    assert isinstance(queued.body, e.TaskQueued)
    return Place(queued.body.index, queued.seq)


# ── rows of columns ──────────────────────────────────────────────────────────────────────────────────────────────


class Sheet:
    """Records as rows of flat columns (`output.category`), kept in a file until all columns are known."""

    def __init__(self) -> None:
        self._rows: IO[bytes] = tempfile.NamedTemporaryFile(suffix=".jsonl")  # noqa: SIM115  it lives as long as this
        self._types = dict(BASE)
        self._longest = 0

    def add(self, record: dict[str, Any]) -> None:
        """One more record."""
        row = dict(_cells(record))
        for name, value in row.items():
            if value is not None:
                kind = _kind(value)
                self._types[name] = _both(self._types.get(name, kind), kind)
            else:
                self._types.setdefault(name, "")
        line = msgspec.json.encode(row) + b"\n"
        self._longest = max(self._longest, len(line))
        self._rows.write(line)

    @property
    def columns(self) -> dict[str, str]:
        """Each column with its type; what never had a value is text."""
        names = sorted(self._types, key=lambda name: _ORDER.index(name.partition(".")[0]))
        return {name: self._types[name] or "VARCHAR" for name in names}

    def write_csv(self, out: IO[bytes]) -> None:
        """All rows as CSV (RFC 4180): text as it is, other values as JSON has them, nothing for what isn't there."""
        columns = list(self.columns)
        text = io.TextIOWrapper(out, "utf-8", errors="replace", newline="", write_through=True)
        try:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(columns)
            self._rows.seek(0)
            for line in self._rows:
                row = msgspec.json.decode(line)
                writer.writerow([_cell(row.get(name)) for name in columns])
        finally:
            text.detach()

    def write_parquet(self, path: Path) -> None:
        """All rows as Parquet, through a DuckDB connection of its own, which knows nothing of the log.

        :raises GxError: if DuckDB can't, as for columns that differ in case only.
        """
        import duckdb

        self._rows.flush()
        typed = ", ".join(f"{past.text(name)}: {past.text(kind)}" for name, kind in self.columns.items())
        source = f"""read_json({past.text(self._rows.name)}, format = 'newline_delimited', columns = {{{typed}}},
            maximum_object_size = {max(self._longest * 2, 1 << 20)})"""
        with tempfile.TemporaryDirectory() as spill:
            con = duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "512MB", "temp_directory": spill})
            try:
                con.execute(f"COPY (SELECT * FROM {source}) TO {past.text(str(path))} (FORMAT parquet)")
            except duckdb.Error as error:
                raise GxError(f"the rows can't be written as Parquet: {error}", hint="--to csv may do") from None
            finally:
                con.close()


def _cells(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if name in _SPREAD and isinstance(value, dict) and value:
            yield from ((f"{name}.{field}", part) for field, part in value.items())
        else:
            yield name, value


def _kind(value: Any) -> str:
    if type(value) is int and not -(2**63) <= value < 2**63:
        return "VARCHAR"
    return _KINDS.get(type(value), "VARCHAR")


def _both(one: str, other: str) -> str:
    if one == other or not one:
        return other
    return "DOUBLE" if {one, other} == {"BIGINT", "DOUBLE"} else "VARCHAR"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────


def events_after(ask: Ask, run: Past, after: int) -> list[dict[str, Any]]:
    """The next events of the run after a `seq`, as CloudEvents 1.0 in the structured mode; none if that was all.

    https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md, with its extension `sequence`; `run`, `attempt`
    and `worker` are extensions of our own. Content stands in `data` by its digest.
    """
    rows = ask(
        f"""SELECT id::VARCHAR AS id, seq, ts, source, type, task, attempt, worker, data::VARCHAR AS body FROM events
        WHERE run = {past.text(run.run)} AND seq > {after} AND seq <= {run.seq} ORDER BY seq LIMIT {PAGE}"""
    )
    return [_cloud_event(row, run.run) for row in rows]


def _cloud_event(row: dict[str, Any], run: str) -> dict[str, Any]:
    when = datetime.fromtimestamp(row["ts"] / 1e6, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    found = {
        "specversion": "1.0",
        "id": row["id"],
        "source": f"/gx/{row['source']}",
        "type": f"gx.{row['type']}",
        "subject": row["task"] or run,
        "time": when,
        "datacontenttype": "application/json",
        "sequence": f"{row['seq']:012d}",  # must sort as text
        "run": run,
        "attempt": row["attempt"],
        "worker": row["worker"],
    }
    kept = {name: value for name, value in found.items() if value not in (None, "")}
    return kept | {"data": msgspec.Raw(row["body"].encode())}


def seq_of(event: dict[str, Any]) -> int:
    """The `seq` of a CloudEvent that was made here."""
    return int(event["sequence"])
