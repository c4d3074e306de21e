"""A person's SQL reads the log and nothing else, and never for longer than it may."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gx.core import event as e
from gx.core.errors import QueryError
from gx.core.ids import digest
from gx.core.task import EdgeLease
from gx.run.log import EventLog
from gx.run.log.query import DEEPEST, run_sql, table_of

RUN = "r-1"


def story() -> list[e.Body]:
    """One run: row 0 fails once, then succeeds; row 1 is answered from the log; row 2 fails; row 3 is leased."""
    lease = EdgeLease(epoch=1, incarnation=1)

    def queued(index: int) -> list[e.Body]:
        task = f"t{index}"
        return [
            e.TaskQueued(run=RUN, task=task, step="s", path=str(index), index=index, id=f"row-{index}"),
            e.TaskPrepared(run=RUN, task=task, attempt=1, key=f"k{index}", model="m", prompt=()),
        ]

    def leased(task: str, attempt: int = 1) -> e.Body:
        return e.TaskLeased(run=RUN, task=task, attempt=attempt, worker="edge", lease=lease)

    def failed(task: str) -> e.Body:
        return e.AttemptFailed(
            run=RUN, task=task, attempt=1, worker="edge", code="bad", message="no", ms=10.0, tok_in=5, tok_out=1
        )

    return [
        e.RunCreated(run=RUN, name="triage", fingerprint="f", recipe=digest(b"r"), params=digest(b"p")),
        *(body for index in range(4) for body in queued(index)),
        leased("t0"),
        failed("t0"),
        e.TaskRetried(run=RUN, task="t0", attempt=1, not_before=0.0),
        leased("t0", 2),
        e.TaskSucceeded(
            run=RUN,
            task="t0",
            attempt=2,
            key="k0",
            output=digest(b'"yes"'),
            worker="edge",
            ms=30.0,
            tok_in=5,
            tok_out=2,
        ),
        e.TaskSucceeded(run=RUN, task="t1", attempt=1, key="k1", output=digest(b'"yes"'), cached="t0"),
        leased("t2"),
        failed("t2"),
        e.TaskFailed(run=RUN, task="t2", attempt=1, code="bad", message="no"),
        leased("t3"),
    ]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog.open(tmp_path) as opened:
        opened.append_sync(story(), [e.Blob(digest=digest(b'"yes"'), content=b'"yes"')], source="test")
        yield opened


def test_views_tell_the_story_of_a_run(log: EventLog) -> None:
    def rows(sql: str) -> list[tuple[object, ...]]:
        return run_sql(log, sql).rows

    assert rows("SELECT run, name, status, ended, tasks, succeeded, failed, tokens FROM runs") == [
        (RUN, "triage", "running", None, 4, 2, 1, 19)
    ]
    assert rows("SELECT id, status, attempts, model, cached FROM tasks ORDER BY index") == [
        ("row-0", "succeeded", 2, "m", None),
        ("row-1", "succeeded", 0, "m", "t0"),
        ("row-2", "failed", 1, "m", None),
        ("row-3", "leased", 1, "m", None),
    ]
    assert rows("SELECT index, status, output, error_code, tok_in, tok_out, ms FROM results ORDER BY index") == [
        (0, "succeeded", '"yes"', None, 10, 3, 40.0),
        (1, "succeeded", '"yes"', None, 0, 0, None),
        (2, "failed", None, "bad", 5, 1, 10.0),
    ]
    assert rows("SELECT task, attempt, outcome, ms FROM attempts ORDER BY task, attempt") == [
        ("t0", 1, "failed", 10.0),
        ("t0", 2, "succeeded", 30.0),
        ("t2", 1, "failed", 10.0),
        ("t3", 1, None, None),
    ]
    assert rows("SELECT * EXCLUDE (run) FROM spend") == [("s", "m", 15, 4, 19, 0.05)], "it tells no dollars"
    assert rows("SELECT * FROM decisions") == rows("SELECT * FROM egress") == []


def test_an_answer_names_its_columns_and_types(log: EventLog) -> None:
    result = run_sql(log, "SELECT run, started, tasks FROM runs;")
    assert (result.columns, result.types) == (("run", "started", "tasks"), ("VARCHAR", "TIMESTAMP", "BIGINT"))


def test_rows_past_the_cap_are_left_out_and_that_is_said(log: EventLog) -> None:
    assert run_sql(log, "SELECT 1 FROM tasks", max_rows=4).is_cut is False
    result = run_sql(log, "SELECT 1 FROM tasks", max_rows=3)
    assert (len(result.rows), result.is_cut) == (3, True)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO blobs VALUES (1, 'a', 'b', 'c')",
        "UPDATE events SET source = 'x'",
        "DELETE FROM blobs",
        "DROP TABLE events",
        "CREATE TABLE mine(x INTEGER)",
        "CREATE TEMP TABLE mine(x INTEGER)",
        "WITH gone AS (INSERT INTO blobs VALUES (1, 'a', 'b', 'c') RETURNING seq) SELECT * FROM gone",
        "EXPLAIN ANALYZE DELETE FROM blobs",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "COPY (SELECT 1) TO '{folder}/log.duckdb.wal'",
        "EXPORT DATABASE '{folder}/out'",
        "ATTACH '{folder}/other.duckdb'",
        "SET enable_external_access = true",
        "CHECKPOINT",
        "SELECT 1; DELETE FROM blobs",
        "COMMIT",
        "",
    ],
)
def test_writes_are_refused(log: EventLog, sql: str) -> None:
    before = sorted(path.name for path in log.folder.iterdir())
    with pytest.raises(QueryError):
        run_sql(log, sql.format(folder=log.folder))
    assert sorted(path.name for path in log.folder.iterdir()) == before
    assert log.file.ask("SELECT count(*) FROM blobs") == [(1,)]
    assert log.append_sync([e.NodeStopped(epoch=1)], source="test")[0].seq == log.last_seq


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM '{folder}/secret.csv'",
        "SELECT * FROM read_csv('{folder}/secret.csv')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM '{folder}/log.duckdb'",
        "SELECT * FROM read_blob('{folder}/' || 'log.duck' || 'db')",
        "FROM query('SELECT * FROM read' || '_text(''/etc/passwd'')')",
        "SELECT getenv('HOME')",
    ],
)
def test_reading_files_is_refused(log: EventLog, sql: str) -> None:
    (log.folder / "secret.csv").write_text("a,b\n1,2\n")
    with pytest.raises(QueryError):
        run_sql(log, sql.format(folder=log.folder))


def test_a_question_that_takes_too_long_is_stopped(log: EventLog) -> None:
    with pytest.raises(QueryError) as caught:
        run_sql(log, "SELECT count(*) FROM range(100000000000) t(i) WHERE sin(i) > 2", timeout_s=0.1)
    assert caught.value.code == "query.timeout"
    assert run_sql(log, "SELECT 1").rows == [(1,)]


def test_a_mistake_is_answered_in_duckdbs_words_with_a_suggestion(log: EventLog) -> None:
    with pytest.raises(QueryError) as caught:
        run_sql(log, "SELECT * FROM tasksss")
    assert "tasksss does not exist" in caught.value.message
    assert "tasks" in caught.value.hint
    with pytest.raises(QueryError, match="syntax error"):
        run_sql(log, "selec 1")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT to_days(2000000000)",
        "SELECT INTERVAL '1 month' * 100000000",
        "SELECT [to_days(2000000000)]",
        "SELECT '\udcff'",
    ],
)
def test_a_value_or_a_question_that_python_cannot_hold_is_an_error_of_the_question(log: EventLog, sql: str) -> None:
    with pytest.raises(QueryError, match=r"can.t be read|UTF-8"):
        run_sql(log, sql)


@pytest.mark.parametrize("text", ["1e999", "[1e400]", "[" * 5000 + "]" * 5000, "[" * DEEPEST + "[[]]" + "]" * DEEPEST])
def test_json_that_others_could_not_read_is_shown_as_text(log: EventLog, text: str) -> None:
    table = table_of(run_sql(log, f"SELECT '{text}'::JSON AS x, '[1, [2]]'::JSON AS y"))
    assert table.rows == [{"x": text, "y": [1, [2]]}]


def test_columns_of_one_name_are_all_in_the_table(log: EventLog) -> None:
    table = table_of(run_sql(log, "SELECT 1 AS x, 2 AS x, 3 AS x_2, 4 AS x"))
    assert len(set(table.columns)) == 4 and list(table.rows[0].values()) == [1, 2, 3, 4]
