"""A run's results in each form: the same records, whole, in the order of their rows."""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from typer.testing import Result

from gx.cli import export
from gx.core import event as e
from gx.core.errors import GxError, NotFound, UsageError
from gx.node.workspace import Workspace
from gx.run.history import past
from gx.run.history.export import Sheet
from gx.run.history.past import Place
from tests.verbs.writing import ONE, RECIPE, Writing

Call = Callable[..., Result]


def asked(place: Path) -> past.Ask:
    from gx.cli.asking import asked as answered

    return lambda sql: answered(Workspace(place), lambda ask: ask(sql))


def records(call: Call, *args: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in call(export.register, "export", *args).stdout.splitlines()]


def test_records_are_those_of_gx_run_in_the_order_of_the_rows(place: Path, call: Call) -> None:
    first, second, third, fourth = records(call, ONE)
    assert first == {
        "id": "T-1",
        "index": 0,
        "step": "s",
        "status": "succeeded",
        "output": {"category": "bug", "score": 1},
        "usage": {"tokens_in": 7, "tokens_out": 3, "ms": 1500.0},
        "cached": False,
    }
    assert second["output"]["category"] == "how-to, or so", "what a stale attempt said is no result"
    assert third["error"] == {"code": "template", "message": "no text"}
    assert (fourth["output"], fourth["finish"]) == ("cut te", "length")


def test_the_input_comes_along_where_it_is_wanted(place: Path, call: Call) -> None:
    assert [row["input"]["text"] for row in records(call, ONE, "--with-input")] == [f"row T-{n}" for n in range(1, 5)]


def test_the_fields_of_an_answer_are_columns(place: Path, call: Call) -> None:
    text = call(export.register, "export", ONE, "--to", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0])[:8] == [
        "id", "index", "step", "status", "output.category", "output.score", "output.tags", "output",
    ]  # fmt: skip
    assert [row["output.category"] for row in rows] == ["bug", "how-to, or so", "", ""]
    assert (rows[1]["output.tags"], rows[2]["error.code"], rows[3]["output"]) == ('["a"]', "template", "cut te")


def test_parquet_keeps_types(place: Path, call: Call, tmp_path: Path) -> None:
    file = tmp_path / "it's.parquet"
    call(export.register, "export", ONE, "--to", "parquet", "-o", str(file))
    found = duckdb.sql(f"""SELECT id, index, "output.score", "output.tags", cached, "usage.ms"
        FROM '{str(file).replace("'", "''")}' ORDER BY index""").fetchall()
    assert found[:2] == [("T-1", 0, 1.0, None, False, 1500.0), ("T-2", 1, 0.5, '["a"]', False, 1500.0)]
    assert [path.name for path in tmp_path.iterdir() if "parquet" in path.name] == [file.name]


def test_a_column_has_the_type_that_holds_all_its_values() -> None:
    sheet = Sheet()
    for value in (
        {"n": 1, "t": "2031-01-09", "m": 1, "b": True, "g": 2**70},
        {"n": 0.5, "m": "x", "b": None, "e": None},
    ):
        sheet.add({"id": "1", "output": value})
    kinds = {name: kind for name, kind in sheet.columns.items() if name.startswith("output.")}
    assert kinds == {
        "output.n": "DOUBLE", "output.t": "VARCHAR", "output.m": "VARCHAR", "output.b": "BOOLEAN",
        "output.g": "VARCHAR", "output.e": "VARCHAR",
    }  # fmt: skip


def test_a_run_without_a_row_has_a_header(tmp_path: Path, call: Call) -> None:
    empty = Writing()
    empty.begin("empty-222222")
    empty.write(tmp_path / ".gx")
    assert call(export.register, "export", "empty", "--to", "csv").stdout == "id,index,step,status,cached\n"
    file = tmp_path / "none.parquet"
    result = call(export.register, "export", "empty", "--to", "parquet", "-o", str(file))
    assert duckdb.sql(f"SELECT count(*) FROM '{file}'").fetchall() == [(0,)]
    assert "it is running, and these are those that there are so far" in result.stderr


def test_events_are_cloud_events(place: Path, call: Call) -> None:
    found = records(call, ONE, "--to", "cloudevents")
    assert found[0]["type"] == "gx.run.created" and found[-1]["type"] == "gx.run.finished"
    for event in found:
        assert {"specversion", "id", "source", "type", "subject", "time", "data"} <= event.keys()
        assert all(name.isalnum() and name.islower() for name in event), "names are lower-case letters and digits"
        assert event["specversion"] == "1.0" and event["data"]["run"] == ONE
        uuid.UUID(event["id"])
        datetime.fromisoformat(event["time"])
    assert [event["sequence"] for event in found] == sorted(event["sequence"] for event in found)


def test_pages_fit_together_and_see_one_moment(place: Path) -> None:
    ask = asked(place)
    run = past.look_at(ask, ONE)
    with Workspace(place).exclusive() as log:
        late = Writing()
        late.bodies.clear()
        late.succeed(ONE, late.queue(ONE, 9, "T-late"), "late")
        log.append_sync(late.bodies, list(late.blobs.values()), source="node:2")
    ids, after = list[str](), Place()
    while after is not None:
        tasks, after = past.ended_after(ask, run, after, 3)
        assert len(tasks) <= 3
        ids += [task.row_id for task in tasks]
    assert ids == ["T-1", "T-2", "T-3", "T-4"]


def test_a_large_answer_is_whole(tmp_path: Path, call: Call) -> None:
    w = Writing()
    w.begin("large-222222")
    answer = "word " * 20_000
    w.succeed("large-222222", w.queue("large-222222", 0, "1"), answer)
    w.write(tmp_path / ".gx")
    assert records(call, "large")[0]["output"] == answer


def test_what_cannot_be_exported_is_refused_with_what_to_do(place: Path, call: Call, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no run nope"):
        call(export.register, "export", "nope")
    with pytest.raises(UsageError, match="triage-aaa222, triage-bbb333"):
        call(export.register, "export", "triage")
    with pytest.raises(GxError, match="No such file or directory"):
        call(export.register, "export", ONE, "-o", str(tmp_path / "none" / "x.csv"))
    assert not list(tmp_path.glob(".x*"))


def test_what_has_not_ended_is_left_out(tmp_path: Path, call: Call) -> None:
    w = Writing()
    w.begin("live-222222")
    w.queue("live-222222", 0, "waits")
    w.succeed("live-222222", w.queue("live-222222", 1, "ended"), "x")
    w.write(tmp_path / ".gx")
    assert [row["id"] for row in records(call, "live")] == ["ended"]


def test_a_tree_speaks_with_its_top_and_only_once_it_has_one(tmp_path: Path, call: Call) -> None:
    w = Writing()
    w.begin("tree-222222")
    recipe = w.put(RECIPE.replace("}]\n", "},\n  {id: top, reduce: s, agent: a, prompt: x}]\n"))
    created = w.bodies.pop()
    w.bodies.append(msgspec.structs.replace(created, recipe=recipe))
    for level, spans in enumerate((((0, 2), (2, 4)), ((0, 2),))):
        w.bodies.append(e.StepGrouped(run="tree-222222", step="top", level=level, spans=spans))
        for number, span in enumerate(spans):
            task = f"{level}{number}" * 8
            w.bodies.append(
                e.TaskQueued(
                    run="tree-222222",
                    task=task,
                    step="top",
                    path=f"{level}.{number}",
                    index=number,
                    id="top",
                    level=level,
                    span=span,
                )
            )
            w.succeed("tree-222222", task, f"{level}.{number}")
        if level == 0:
            w.write(tmp_path / ".gx")
            w.bodies.clear()
            assert records(call, "tree") == []
    w.write(tmp_path / ".gx")
    assert [row["output"] for row in records(call, "tree")] == ["1.0"]
