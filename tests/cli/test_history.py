"""What the verbs that read the log print, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from gx.cli import history
from gx.core import event as e
from gx.core.errors import GxError, InputError, NotFound, UsageError
from gx.core.ids import digest
from gx.core.task import EdgeLease
from gx.node.workspace import Workspace
from gx.run.log import EventLog

RUN, TASK, OTHER = "triage-abc234", "aaaa000000000000", "aabb000000000000"


def blob(text: str) -> e.Blob:
    return e.Blob(digest=digest(text.encode()), content=text.encode())


def ref(text: str) -> str:
    return digest(text.encode())


STORY: list[e.Body] = [
    e.RunCreated(run=RUN, name="triage", fingerprint="f", recipe=ref("version: 1"), params=ref('{"n":1}')),
    e.RunResumed(run=RUN, budget_tokens=99),
    e.TaskQueued(run=RUN, task=TASK, step="s", path="0", index=0, id="T-1", item=ref('{"text":"hello"}')),
    e.TaskQueued(run=RUN, task=OTHER, step="s", path="1", index=1, id="T-2"),
    e.TaskPrepared(
        run=RUN,
        task=TASK,
        attempt=1,
        key="k",
        model="m",
        prompt=(e.PromptPart(role="user", content=ref("say \x1b[1m")),),
    ),
    e.TaskLeased(run=RUN, task=TASK, attempt=1, worker="edge", lease=EdgeLease(epoch=1, incarnation=1)),
    e.TaskSucceeded(run=RUN, task=TASK, attempt=1, key="k", output=ref('{"a":2}'), worker="edge", ms=5.0, tok_in=7),
    e.TaskFailed(run=RUN, task=OTHER, attempt=1, code="bad", message="no"),
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / ".gx"
    folder.mkdir()
    with EventLog.open(folder, now=lambda: 1_700_000_000.0) as log:
        contents = ["version: 1", '{"n":1}', '{"text":"hello"}', "say \x1b[1m", '{"a":2}']
        log.append_sync(STORY, [blob(text) for text in contents], source="test")
    return folder


def call(*args: str, place: Path, stdin: bytes | None = None) -> Result:
    app = typer.Typer()
    history.register(app)
    result = CliRunner().invoke(app, [*args, "--workspace", str(place)], input=stdin)
    if isinstance(result.exception, GxError):
        raise result.exception
    return result


def rows(*args: str, place: Path) -> list[dict[str, Any]]:
    result = call(*args, "--json", place=place)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_runs_are_listed(place: Path) -> None:
    (row,) = rows("runs", place=place)
    assert (row["run"], row["status"], row["tasks"], row["succeeded"], row["failed"]) == (RUN, "running", 2, 1, 1)
    assert row["started"] == "2023-11-14T22:13:20.000Z"


def test_sql_answers_in_json_lines(place: Path) -> None:
    assert rows("sql", "SELECT 1 AS a, 2 AS a, data FROM events WHERE seq = 2", place=place) == [
        {"a": 1, "a_2": 2, "data": {"type": "run.resumed", "run": RUN, "budget_tokens": 99}}
    ]


def test_a_question_on_stdin_that_is_no_text_is_refused(place: Path) -> None:
    with pytest.raises(InputError, match="expected text in UTF-8, got byte 0xe9 at 8"):
        call("sql", "-", place=place, stdin=b"select '\xe9'")
    assert json.loads(call("sql", "-", "--json", place=place, stdin="select 'é' as e".encode()).stdout) == {"e": "é"}


def test_the_log_is_printed_with_filters(place: Path) -> None:
    assert [row["seq"] for row in rows("log", place=place)] == list(range(9))
    assert [row["seq"] for row in rows("log", "--type", "run.*", place=place)] == [1, 2]
    assert [row["seq"] for row in rows("log", "--type", "task.failed", "--run", RUN, place=place)] == [8]
    (last,) = rows("log", "--after", "7", place=place)
    assert last == {
        "seq": 8,
        "time": "2023-11-14T22:13:20.000000Z",
        "source": "test",
        "type": "task.failed",
        "run": RUN,
        "task": OTHER,
        "attempt": 1,
        "data": {"type": "task.failed", "run": RUN, "task": OTHER, "attempt": 1, "code": "bad", "message": "no"},
    }


def test_following_waits_for_the_owner_and_goes_on(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace.find(place)
    seen: list[int] = []
    acts = iter(["own", "still", "append and leave", "stop"])
    owner = workspace.exclusive()

    class Stop(Exception):
        """The end of the test's patience."""

    def sleep(_: float) -> None:
        match next(acts):
            case "own":
                log = owner.__enter__()
                log.append_sync([e.NodeStopped(epoch=1)], source="test")
            case "append and leave":
                owner.__exit__(None, None, None)
            case "stop":
                raise Stop

    with pytest.raises(Stop):
        for line in history._followed(workspace, run=None, kind=None, after=6, sleep=sleep):
            seen.append(json.loads(line)["seq"])
    assert seen == [7, 8, 9]
    assert capsys.readouterr().err.count("waiting") == 1


def test_verify_says_whether_the_log_is_whole(place: Path) -> None:
    (row,) = rows("log", "--verify", place=place)
    assert (row["events"], row["is_whole"]) == (9, True)
    (place / "log.head").write_text('{"seq":8,"hash":"00"}')
    with pytest.raises(GxError):
        call("log", "--verify", place=place)
    (row,) = rows("log", "--salvage", place=place)
    assert (row["events"], row["lost"]) == (9, 0)
    assert [row["copies"]] == [str(path) for path in place.glob("damaged-*")]


def test_a_task_is_shown_whole_by_the_start_of_its_id(place: Path) -> None:
    (row,) = rows("show", "aaaa", place=place)
    assert row["task"] == TASK
    assert row["item"] == {"text": "hello"}
    assert row["prompt"] == [{"role": "user", "content": "say \x1b[1m"}]
    assert row["output"] == {"a": 2}
    assert [(a["attempt"], a["outcome"], a["tok_in"]) for a in row["attempts"]] == [(1, "succeeded", 7)]
    assert "\x1b" not in call("show", TASK, "--plain", place=place).stdout


def test_a_run_is_shown_with_its_recipe_and_first_failures(place: Path) -> None:
    (row,) = rows("show", "tri", place=place)
    assert (row["recipe"], row["params"], row["budget_tokens"]) == ("version: 1", {"n": 1}, 99)
    assert row["failures"] == [{"task": OTHER, "step": "s", "id": "T-2", "code": "bad", "message": "no"}]
    assert row["steps"][0]["tasks"] == 2
    assert "version: 1" in call("show", RUN, "--plain", place=place).stdout


def test_a_run_is_shown_with_how_its_engine_did(place: Path) -> None:
    (row,) = rows("show", RUN, place=place)
    assert row["engine"] is None and "engine" not in call("show", RUN, "--plain", place=place).stdout
    one = e.BenchMeasured(
        run=RUN, worker="edge", epoch=1, incarnation=1, requests=3, prompt_tokens=100, cached_tokens=80, queue_s=1.1,
        prefill_tokens=2000, prefill_s=1.0, decode_tokens=200, decode_s=2.0,
    )  # fmt: skip
    other = e.BenchMeasured(run=RUN, worker="edge", epoch=2, incarnation=1, requests=1, queue_s=0.5, prefill_tokens=408,
                            prefill_s=1.0, decode_tokens=131)  # fmt: skip
    with EventLog.open(place) as log:
        log.append_sync([one, other, msgspec.structs.replace(one, run="another")], [], source="test")
    (row,) = rows("show", RUN, place=place)
    engine = row["engine"]
    assert (engine["prompt_tokens_per_s"], engine["written_tokens_per_s"]) == (1204.0, 165.5)
    assert (engine["cached_share"], engine["mean_queue_s"], engine["requests"]) == (0.8, 0.4, 4)
    words = "1,204 prompt tok/s, 166 tok/s written, 80 % of prompts from the cache, 0.4 s in the queue"
    assert f"engine         {words}\n" in call("show", RUN, "--plain", place=place).stdout


def test_an_unknown_or_ambiguous_id_is_refused(place: Path) -> None:
    with pytest.raises(NotFound):
        call("show", "zz", place=place)
    with pytest.raises(UsageError, match=OTHER):
        call("show", "aa", place=place)


def test_erasing_needs_a_yes_and_is_shown(place: Path) -> None:
    with pytest.raises(UsageError):
        call("erase", "aaaa", place=place)
    (row,) = rows("erase", "aaaa", "--yes", place=place)
    assert (row["subject"], row["blobs"]) == (TASK, 3)
    (shown,) = rows("show", "aaaa", place=place)
    assert (shown["output"], len(shown["erased"])) == (None, 3)
    assert "(erased)" in call("show", TASK, "--plain", place=place).stdout


def test_registering_the_verbs_loads_no_duckdb() -> None:
    code = (
        "import sys, typer; from gx.cli import history; history.register(typer.Typer()); print('duckdb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
