"""`--tee`: each record once in the file, whole lines only, whatever became of the last run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gx.cli.tee import Tee
from gx.core.errors import GxError
from gx.core.task import Status
from gx.core.view import TaskState
from gx.run.record import Record


def record(name: str, output: Any = "yes", **more: Any) -> dict[str, Any]:
    return {"id": name, "index": 0, "step": "s", "status": "succeeded", "output": output, **more}


def lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def test_a_record_that_the_file_has_is_not_added_again(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    first = Tee(file)
    first.write([record("a", cached=False, usage={"ms": 1.0}), record("b")])
    first.close()
    Tee(file).write([record("a", cached=True, usage={"ms": 2.0}), record("b", "no"), record("c")])
    assert [(r["id"], r["output"]) for r in lines(file)] == [("a", "yes"), ("b", "yes"), ("b", "no"), ("c", "yes")]


def batch_line(run: str, name: str, answer: str) -> dict[str, Any]:
    task = TaskState(id=f"{run}-{name}", step="s", path="0", index=0, row_id=name, order=0, is_batch=True)
    task.status, task.tokens_out = Status.succeeded, len(run)
    return Record(task=task, output=json.dumps(answer).encode()).as_batch(model="m")


def test_a_batch_line_that_another_run_gives_again_is_not_added_again(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    first = Tee(file)
    first.write([batch_line("one", "a", "yes"), batch_line("one", "b", "yes")])
    first.close()
    again = [batch_line("other", "a", "yes"), batch_line("other", "b", "no"), batch_line("other", "c", "yes")]
    Tee(file).write(again)
    kept = [(r["custom_id"], r["response"]["body"]["choices"][0]["message"]["content"]) for r in lines(file)]
    assert kept == [("a", "yes"), ("b", "yes"), ("b", "no"), ("c", "yes")]


def test_what_one_run_has_twice_the_file_has_twice(tmp_path: Path) -> None:
    body = {"custom_id": "r1", "response": {"body": {"model": "m", "choices": ["x"]}}}
    first, second = ({**body, "id": f"batch_req_{n}"} for n in "12")
    for _ in range(2):
        tee = Tee(tmp_path / "all.jsonl")
        tee.write([first])
        tee.write([second])
        tee.close()
    assert (tmp_path / "all.jsonl").read_text().count("custom_id") == 2


def test_a_line_that_a_crash_left_torn_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    file.write_bytes(json.dumps(record("a")).encode() + b'\n{"id": "b", "out')
    Tee(file).write([record("b")])
    assert [r["id"] for r in lines(file)] == ["a", "b"]


def test_a_last_line_without_its_line_end_stays(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    file.write_bytes(json.dumps(record("a")).encode())
    Tee(file).write([record("a"), record("b")])
    assert [r["id"] for r in lines(file)] == ["a", "b"]


@pytest.mark.parametrize("end", [b"id,text\na,hello", b"[1", b'"half', b"\xff"])
def test_a_last_line_that_is_no_beginning_of_a_record_stays_and_is_ended(tmp_path: Path, end: bytes) -> None:
    file = tmp_path / "in.csv"
    file.write_bytes(end)
    Tee(file).write([record("a")])
    assert file.read_bytes() == end + b"\n" + json.dumps(record("a"), separators=(",", ":")).encode() + b"\n"


def test_lines_that_are_no_records_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    file.write_bytes(b"# notes\n[1]\n\xff\xfe\n")
    Tee(file).write([record("a")])
    assert file.read_bytes().startswith(b"# notes\n[1]\n\xff\xfe\n{")


def test_a_file_that_another_gx_writes_is_refused(tmp_path: Path) -> None:
    held = Tee(tmp_path / "out.jsonl")
    with pytest.raises(GxError, match="written by another gx"):
        Tee(tmp_path / "out.jsonl")
    held.write([record("a")])


def test_a_place_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GxError, match="expected a file to append to"):
        Tee(tmp_path / "none" / "out.jsonl")


def test_the_same_answer_to_another_row_of_the_same_number_is_another_record(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    first = Tee(file)
    first.write([record("0", row="aa")])
    first.close()
    Tee(file).write([record("0", row="bb"), record("0", row="aa")])
    assert [r["row"] for r in lines(file)] == ["aa", "bb"]


def test_a_device_without_an_end_is_written_to_and_not_read() -> None:
    with pytest.raises(OSError, match="/dev/full"):
        Tee(Path("/dev/full")).write([record("a")])
    Tee(Path("/dev/zero")).write([record("a")])


def test_a_pipe_gets_each_record_and_one_that_nobody_reads_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(GxError, match="expected a file to append to"):
        Tee(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    Tee(pipe).write([record("a"), record("a")])
    assert [json.loads(line)["id"] for line in os.read(reader, 65536).splitlines()] == ["a"]
    os.close(reader)
