"""A person's SQL over the log: one question, read-only, bounded in time.

It knows what may be asked, not what it means. Three walls, since none is enough alone: only a statement that reads is
accepted; it runs in a read-only transaction; and the connection can open no file but the log's own (`gx.run.log.file`),
which the functions that read files are not given either. A guard rail for tired people, not a prison.
"""

from __future__ import annotations

import re
import threading
from datetime import datetime
from typing import Any

import duckdb
import msgspec

from gx.core.errors import QueryError
from gx.core.message import Value
from gx.core.tables import Table
from gx.run.log.eventlog import EventLog

_READING = frozenset({"SELECT", "EXPLAIN"})
_FILES = re.compile(
    r"""\b(read_\w+|glob|sniff_csv|parquet_\w+|\w+_scan|query|query_table)["\s]*\(|(\.duckdb)\b""", re.IGNORECASE
)
"""What opens files, or runs SQL from text and so could name one of them."""
DEEPEST = 100
"""Levels of a value of JSON; Python's encoders and decoders give up at some 1,000, less where they are called from."""
_SUGGESTION = re.compile(r"Did you mean (.+?)\?$|Candidate (?:bindings|tables|functions): *(.+)$", re.MULTILINE)


class QueryResult(Value, frozen=True, kw_only=True):
    """The answer: a tuple of Python values a row. `types` are DuckDB's names; `is_cut` says that rows were left out.

    `seq` is the last event that it was read from, where the question was about a run.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    is_cut: bool = False
    seq: int | None = None


def run_sql(
    log: EventLog, sql: str, *, timeout_s: float = 10.0, max_rows: int | None = None, run: str | None = None
) -> QueryResult:
    """Answer one statement that reads; `max_rows` `None` gives all rows. `$run` in it is the id `run`, where given.

    :raises QueryError: `query` with DuckDB's own message; `query.refused` if it would write, read files or is not
        one statement; `query.timeout`.
    """
    with log.file.cursor() as cursor:
        return ask(cursor, sql, timeout_s=timeout_s, max_rows=max_rows, run=run)


def ask(
    cursor: duckdb.DuckDBPyConnection,
    sql: str,
    *,
    timeout_s: float = 10.0,
    max_rows: int | None = None,
    run: str | None = None,
) -> QueryResult:
    """`run_sql`, of a connection that is to be used for nothing else."""
    if not _is_text(sql):
        raise QueryError("expected SQL as text in UTF-8, got bytes that are none", code="query.refused")
    late = threading.Event()

    def stop() -> None:
        late.set()
        cursor.interrupt()

    timer = threading.Timer(timeout_s, stop)
    timer.daemon = True
    timer.start()
    try:
        _check(cursor, sql)
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        return _answer(cursor, sql, max_rows, run)
    except duckdb.InterruptException as error:
        if not late.is_set():
            raise QueryError("the question was interrupted", code="query.interrupted") from error
        raise QueryError(
            f"no answer within {timeout_s:g} s", hint="ask for less, or set --timeout", code="query.timeout"
        ) from error
    except duckdb.Error as error:
        raise _explain(error) from error
    except (OverflowError, ValueError) as error:  # a date or an interval, say, that is beyond Python's
        raise QueryError(f"a value of the answer can't be read: {error}", hint="cast it to VARCHAR") from error
    except RuntimeError as error:  # so DuckDB says that Ctrl-C was pressed
        raise KeyboardInterrupt from error
    finally:
        timer.cancel()
        timer.join()


def table_of(answer: QueryResult) -> Table:
    """The answer as JSON has it; of columns with one name, the later ones are numbered."""
    columns = _apart(answer.columns)
    rows = [
        {name: _plain(value, kind) for name, value, kind in zip(columns, row, answer.types, strict=True)}
        for row in answer.rows
    ]
    return Table(columns=columns, rows=rows, is_cut=answer.is_cut)


def _apart(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, each once: a later one of the same name has the number of its place, or one after it."""
    apart: list[str] = []
    for place, name in enumerate(names):
        numbered = (f"{name}_{n}" for n in range(place + 1, place + len(names) + 2))
        is_first = names.index(name) == place
        apart.append(name if is_first else next(one for one in numbered if one not in names and one not in apart))
    return tuple(apart)


def _plain(value: Any, kind: str = "") -> Any:
    """A value of DuckDB as JSON has it."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _of_json(value) if kind == "JSON" else value
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds") + "Z"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    return str(value)


def _of_json(text: str) -> Any:
    """What a text of JSON says; the text itself where a number is too large, or it nests deeper than others read."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    return text if text.count("[") + text.count("{") > DEEPEST and _nests_deeper(value, DEEPEST) else value


def _nests_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_nests_deeper(one, levels - 1) for one in inner)


def _is_text(sql: str) -> bool:
    try:
        sql.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check(cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = cursor.extract_statements(sql)
    if len(statements) != 1:
        raise QueryError(f"expected one statement, got {len(statements)}", code="query.refused")
    kind = statements[0].type.name
    if kind not in _READING:
        raise QueryError(
            f"expected a question (SELECT, DESCRIBE, SHOW, EXPLAIN), got {kind}",
            hint="the log is written by gx only",
            code="query.refused",
        )
    if found := _FILES.search(sql):
        raise QueryError(
            f"{found[1] or found[2]} is not allowed here", hint="only the log can be asked", code="query.refused"
        )


def _answer(cursor: duckdb.DuckDBPyConnection, sql: str, max_rows: int | None, run: str | None) -> QueryResult:
    cursor.execute(sql) if run is None else cursor.execute(sql, {"run": run})
    columns = [(str(column[0]), str(column[1])) for column in cursor.description or ()]
    if zoned := [name for name, kind in columns if kind == "TIMESTAMP WITH TIME ZONE"]:
        raise QueryError(f"{zoned[0]} has a time zone", hint=f"cast it: ({zoned[0]})::TIMESTAMP", code="query")
    rows = cursor.fetchall() if max_rows is None else cursor.fetchmany(max_rows + 1)
    is_cut = max_rows is not None and len(rows) > max_rows
    last = None if run is None else cursor.execute("SELECT max(seq) FROM events").fetchone()
    return QueryResult(
        columns=tuple(name for name, _ in columns),
        types=tuple(kind for _, kind in columns),
        rows=rows[:max_rows],
        is_cut=is_cut,
        seq=None if last is None else last[0],
    )


def _explain(error: duckdb.Error) -> QueryError:
    message = str(error).strip()
    found = _SUGGESTION.search(message)
    if found is None:
        return QueryError(message)
    return QueryError(message.replace(found[0] + "\n", ""), hint=f"did you mean {found[1] or found[2]}?")
