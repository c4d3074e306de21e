"""What a client may ask of the log through the node: SQL that only reads, events from a `seq`, stories, its health."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gx.core.errors import QueryError, WorkspaceError
from gx.core.tables import Table
from gx.node.call import Client
from gx.node.serve import LOCK_S
from gx.run.log.verify import Report
from tests.node.served import ENDLESS, PATIENCE_S, Served, recipe, serve

ENDLESS_SQL = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b"


@pytest.fixture
def run(served: Served) -> str:
    """A run of three rows that is over."""
    started = served.submit(recipe("told"), rows=3)
    served.watch(started.run)
    return started.run


def ask(served: Served, sql: str, **more: Any) -> Table:
    table: Table = served.client.ask("POST", "/v1/query", {"sql": sql, **more}, kind=Table)
    return table


# ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_question_in_sql_is_answered(served: Served, run: str) -> None:
    found = ask(served, f"SELECT run, status, tasks FROM runs WHERE run = '{run}'")
    assert found == Table(columns=("run", "status", "tasks"), rows=[{"run": run, "status": "finished", "tasks": 3}])
    cut = ask(served, f"SELECT seq FROM events WHERE run = '{run}' ORDER BY seq", max_rows=2)
    assert (len(cut.rows), cut.is_cut) == (2, True)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM events",
        "INSERT INTO events SELECT * FROM events",
        "UPDATE events SET data = ''",
        "DROP VIEW runs",
        "CREATE TABLE t AS SELECT 1",
        "ATTACH '/tmp/other.duckdb'",
        "SELECT 1; DELETE FROM events",
        "COPY events TO '/tmp/events.csv'",
        "CHECKPOINT",
        "SET enable_external_access = true",
        "PRAGMA database_list",
        "INSTALL httpfs",
        "WITH x AS (SELECT 1) DELETE FROM events",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        'SELECT * FROM "/etc/passwd"',
        "SELECT * FROM 'log.duckdb'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM query('SELECT 1')",
        "EXPLAIN ANALYZE DELETE FROM events",
        "SELECT nextval('s')",
        "no SQL at all",
        "",
        ";",
    ],
)
def test_what_would_write_or_read_a_file_is_refused(served: Served, sql: str) -> None:
    before = served.node.log.last_seq
    with pytest.raises(QueryError) as refused:
        ask(served, sql)
    assert "root:" not in str(refused.value)
    assert ask(served, "SELECT max(seq) AS seq FROM events").rows == [{"seq": before}]


def test_an_endless_question_ends_with_its_time_and_holds_up_nobody(served: Served) -> None:
    is_held_up = True
    for timeout_s in (0.5, 5.0, 25.0):  # the longer ones for a machine on which quick answers take as long
        with ThreadPoolExecutor(1) as pool:
            endless = pool.submit(ask, served, ENDLESS_SQL, timeout_s=timeout_s)
            assert ask(served, "SELECT 1 AS one").rows == [{"one": 1}]
            assert served.client.ask("GET", "/v1/node")["pid"] == os.getpid()
            is_held_up = endless.done()
            with pytest.raises(QueryError) as late:
                endless.result(PATIENCE_S)
        assert late.value.code == "query.timeout"
        if not is_held_up:
            break
    assert not is_held_up


@pytest.mark.parametrize("more", [{"timeout_s": 0}, {"timeout_s": -1}, {"timeout_s": 1e9}, {"max_rows": 0}])
def test_a_question_s_bounds_are_bounded(served: Served, more: dict[str, Any]) -> None:
    answer = served.post("/v1/query", {"sql": "SELECT 1", **more})
    assert (answer.status_code, answer.json()["code"]) == (400, "usage")


def test_rows_with_what_json_has_not_are_answered(served: Served) -> None:
    sql = """SELECT 'nan'::DOUBLE AS a, 'inf'::FLOAT AS b, 123456789012345678901234567890::HUGEINT AS c, 'a\\xFF'::BLOB
        AS d, {'x': [1, NULL]} AS e, MAP {1: 'y'} AS f, INTERVAL 1 DAY AS g, DATE '2020-01-01' AS h, '[1]'::JSON AS i,
        uuid() AS j, 1.5::DECIMAL(4, 2) AS k"""
    (row,) = ask(served, sql).rows
    assert (row["c"], row["e"], row["i"]) == (123456789012345678901234567890, {"x": [1, None]}, [1])


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────


def events(served: Served, **query: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in served.client.lines("/v1/events", **query)]


def test_events_come_from_a_seq_in_order_and_all_of_them(served: Served, run: str) -> None:
    last = served.node.log.last_seq
    assert [event["seq"] for event in events(served)] == list(range(last + 1))
    assert [event["seq"] for event in events(served, after=last - 3)] == [last - 2, last - 1, last]
    assert events(served, after=last + 5) == []
    of_run = events(served, run=run)
    assert of_run[0]["type"] == "run.created"
    assert {event["run"] for event in of_run} == {run}
    ends = events(served, run=run, type="task.succ*")
    assert [event["type"] for event in ends] == ["task.succeeded"] * 3


@pytest.mark.parametrize("query", [{"after": "x"}, {"after": ""}, {"follow": "perhaps"}])
def test_a_stream_that_can_not_be_asked_for_so_is_refused(served: Served, query: dict[str, str]) -> None:
    answer = served.http.get("/v1/events", params=query)
    assert (answer.status_code, answer.json()["kind"]) == (400, "UsageError")


@contextlib.contextmanager
def following(served: Served, **query: Any) -> Iterator[Iterator[dict[str, Any]]]:
    with served.http.stream("GET", "/v1/events", params={"follow": "true", **query}) as answer:
        yield map(json.loads, answer.iter_lines())


def test_who_follows_and_comes_back_misses_nothing_and_sees_nothing_twice(served: Served) -> None:
    seen: list[dict[str, Any]] = []
    run = served.submit(recipe("followed", tokens=30), rows=20, is_detached=True, fresh=True).run
    while not seen or seen[-1]["type"] != "run.finished" or seen[-1]["run"] != run:
        after = seen[-1]["seq"] if seen else -1
        with following(served, after=after) as lines:  # and leaves again after a few
            for _ in range(7):
                seen.append(next(lines))
                if seen[-1]["type"] == "run.finished" and seen[-1]["run"] == run:
                    break
    assert [event["seq"] for event in seen] == list(range(len(seen)))
    assert seen == events(served)[: len(seen)]


def test_who_follows_one_run_hears_of_it_as_it_happens(served: Served) -> None:
    run = served.submit(recipe("live", tokens=ENDLESS), rows=2, is_detached=True, fresh=True).run
    with following(served, run=run, type="run.*") as lines:
        assert next(lines)["type"] == "run.created"
        served.tell(run, "pause")
        assert next(lines)["type"] == "run.paused"
        served.tell(run, "cancel")
        last = next(lines)
    assert (last["type"], last["run"]) == ("run.cancelled", run)


def test_a_follower_keeps_no_node_up(served: Served) -> None:
    """It would hold the model in memory for as long as somebody looks at the log."""
    with following(served) as lines:
        next(lines)
        served.until(lambda: served.inside(lambda: served.api.n_open) == 0)  # as those before it are closed by now


# ── stories, health ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_and_a_task_have_their_stories(served: Served, run: str) -> None:
    story = served.client.ask("GET", f"/v1/stories/{run}")
    assert (story["kind"], story["run"], story["status"]) == ("run", run, "finished")
    task = next(iter(served.state(run).tasks))
    story = served.client.ask("GET", f"/v1/stories/{task}")
    assert (story["kind"], story["task"], story["run"]) == ("task", task, run)
    answer = served.http.get("/v1/stories/nobody")
    assert (answer.status_code, answer.json()["kind"]) == (404, "NotFound")


def test_the_log_is_verified_while_it_is_written(served: Served) -> None:
    run = served.submit(recipe("verified", tokens=30), rows=20, is_detached=True, fresh=True).run
    report: Report = served.client.ask("GET", "/v1/log/verification", kind=Report)
    assert report.is_whole
    served.watch(run)


# ── the node itself ──────────────────────────────────────────────────────────────────────────────────────────────


def test_an_idle_node_leaves_when_asked_and_a_busy_one_only_if_told(served: Served) -> None:
    """On a node of its own, since nothing is asked of it afterwards."""
    place = served.folder.parent / "leaving"
    place.mkdir()
    (place / "tiny.gguf").symlink_to(served.folder.parent / "tiny.gguf")
    with serve(place / "ws") as node:
        run = node.submit(recipe("busy", tokens=500), rows=12, is_detached=True).run
        answer = node.post("/v1/node/leave", {"only_idle": True})
        assert (answer.status_code, answer.json()["code"]) == (409, "workspace.busy")
        assert run in answer.json()["message"]
        assert not node.inside(lambda: node.api.is_leaving)
        node.until(lambda: node.inside(lambda: node.node.runs[run].state.leased))
        with following(node, run=run, type="run.*") as lines:
            assert node.post("/v1/node/leave", {}).status_code == 200
            with pytest.raises(WorkspaceError, match="leaving") as refused:
                node.submit(recipe("late"))
            assert refused.value.code == "workspace.leaving"
            *_, last = lines  # a node that leaves ends them
        assert (last["type"], last["data"]["reason"]) == ("run.interrupted", "the node was stopped by a tester")
        assert node.inside(lambda: node.node.runs.live()) == []


def test_a_client_finds_a_node_where_one_is(served: Served, tmp_path: Any) -> None:
    from gx.node.call import find

    assert isinstance(find(served.folder), Client)
    assert find(tmp_path) is None
    assert LOCK_S > 1
