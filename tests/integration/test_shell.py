"""gx in the shell: one-liners over stdin, parts of records, files besides, pipes of gx, and what a terminal gets."""

from __future__ import annotations

import codecs
import json
import os
import pty
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from gx.core.inert import inert
from gx.output import ExitCode
from tests import nodes
from tests.integration.project import GX, Project

LINES = "".join(f"line {n}\n" for n in range(6))


@pytest.fixture
def place(folder: Project, tiny: Path) -> Project:
    """A folder with a tiny model by the name of model.gguf."""
    (folder.folder / "model.gguf").symlink_to(tiny)
    folder.env |= {"GX_MODEL": "./model.gguf"}
    return folder.keep()


def shell(place: Project, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A line of the shell, in which `gx` is the real one."""
    words = " ".join(GX)
    line = f'gx() {{ {words} "$@"; }}; {command}'
    done = subprocess.run(
        ["bash", "-c", line], cwd=place.folder, env=place.env, input=stdin, capture_output=True, text=True, timeout=180
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_a_prompt_over_plain_lines_gives_a_bare_line_for_each_in_their_order(place: Project) -> None:
    done = shell(place, "gx map 'Sort: {{ text }}' --choice yes,no --raw --ordered", LINES)
    assert done.returncode == ExitCode.ok, done.stderr
    assert len(done.stdout.splitlines()) == 6 and set(done.stdout.split()) <= {"yes", "no"}


def test_rows_of_json_and_csv_bring_their_fields(place: Project) -> None:
    rows = '{"id": "a", "name": "Ada", "first name": "x"}\n'
    prompt = '{{ name }} {{ item["first name"] }} {{ id }}'
    done = shell(place, f"gx map '{prompt}' --max-tokens 2 --json", rows)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["a"], done.stderr
    (place.folder / "rows.csv").write_text("name,age\nAda,36\n")
    done = shell(place, "gx map '{{ name }} is {{ age }}' -i rows.csv --max-tokens 2 --select .input.age")
    assert done.stdout == '"36"\n', done.stderr


def test_a_template_has_its_loops_and_the_number_of_its_row(place: Project) -> None:
    prompt = "{% for n in [1, 2] %}{{ index }} {{ id }} {{ text }}{% endfor %}"
    done = shell(place, f"gx map '{prompt}' --max-tokens 2 --raw", LINES)
    assert done.returncode == ExitCode.ok, done.stderr


def test_answers_keep_to_a_schema_and_its_fields_can_be_selected(place: Project) -> None:
    schema = {"type": "object", "required": ["mood"], "properties": {"mood": {"enum": ["good", "bad"]}}}
    (place.folder / "schema.json").write_text(json.dumps(schema))
    command = "gx map '{{ text }}' --schema schema.json --ordered --select .index --select mood --raw"
    done = shell(place, command, LINES)
    fields = [line.split("\t") for line in done.stdout.splitlines()]
    assert [index for index, _ in fields] == list("012345") and {mood for _, mood in fields} <= {"good", "bad"}


def test_a_mistyped_field_is_null_in_each_line_and_named_once(place: Project) -> None:
    done = shell(place, "gx map '{{ text }}' --choice yes,no --select mod", LINES)
    assert done.stdout == "null\n" * 6
    assert done.stderr.count("--select: the first output has no mod") == 1


def test_a_tee_has_each_record_once_however_often_the_command_is_run(place: Project) -> None:
    command = "gx map '{{ text }}' --max-tokens 3 --raw --tee all.jsonl"
    for lines in (LINES[:21], LINES, LINES):
        assert shell(place, command, lines).returncode == ExitCode.ok
    records = [json.loads(line) for line in (place.folder / "all.jsonl").read_text().splitlines()]
    assert sorted(record["id"] for record in records) == list("012345")


def test_a_tee_keeps_the_records_of_two_inputs_that_are_answered_alike(place: Project) -> None:
    command = "gx map '{{ text }}' --choice yes,yesyes --max-tokens 1 --select .id --tee all.jsonl"
    for lines in ("monday\n", "tuesday\n", "tuesday\n"):
        assert shell(place, command, lines).returncode in (ExitCode.ok, ExitCode.some_failed)
    kept = [json.loads(line) for line in (place.folder / "all.jsonl").read_text().splitlines()]
    assert [record["id"] for record in kept] == ["0", "0"]
    assert len({record["row"] for record in kept}) == 2


def test_two_one_liners_in_a_pipe_share_the_model_and_both_end(place: Project) -> None:
    lines = "".join(f"row {n}\n" for n in range(300))
    command = (
        "set -o pipefail; gx map 'A {{ text }}' --choice a,b --raw | gx map 'B {{ text }}' --choice c,d --raw | wc -l"
    )
    done = shell(place, command, lines)
    assert (done.returncode, done.stdout.strip()) == (ExitCode.ok, "300"), done.stderr
    assert place.ask("SELECT count(*) FROM events WHERE type = 'bench.started'") == [(1,)]


def test_a_reader_that_has_enough_ends_the_command_as_sigpipe_would(place: Project) -> None:
    lines = "".join(f"row {n}\n" for n in range(3000))
    done = shell(place, "gx map '{{ text }}' --max-tokens 2 --raw | head -1; echo ${PIPESTATUS[0]}", lines)
    assert done.stdout.splitlines()[-1] == str(int(ExitCode.closed_pipe)), done.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("map 'no field'", "says nothing of the row"),
        ("map '{{ text'", "is no template"),
        ("map '{{ text }}' --choice a", "different words"),
        ("map '{{ text }}' --schema none.json", "expected a file"),
        ("map '{{ text }}' --select a..b", "expected a dotted path"),
        ("map '{{ text }}' --tee none/x", "expected a file to append to"),
        ("map '{{ text }}' --notify http://elsewhere.example/", "expected https://"),
        ("map '{{ text | nothing }}'", "nothing"),
        ("ask 'x' -i none.txt", "expected a file"),
        (f"map '{{{{ {'(' * 2000}text{')' * 2000} }}}}'", "nested too deeply"),
        (f"map '{'{{ text }}{% if text %}' * 2000}'", "nested too deeply"),
        ("map '{{ text }}' --schema deep.json", "nested too deeply"),
    ],
)
def test_what_can_be_no_command_is_refused_in_words(place: Project, words: str, why: str) -> None:
    (place.folder / "deep.json").write_text("[" * 100_000)
    done = shell(place, f"gx {words}", "x\n")
    assert (done.returncode, done.stdout) == (ExitCode.usage, ""), done.stderr
    assert why in done.stderr


def test_a_question_is_answered_as_plain_text_and_from_the_log_the_next_time(place: Project) -> None:
    command = "gx ask 'Why {{ so }}?' --max-tokens 5 --system 'You are {% odd %}.'"
    first, second = (shell(place, command) for _ in range(2))
    assert first.returncode == ExitCode.ok and first.stdout.strip(), first.stderr
    assert first.stdout == second.stdout
    assert "the answer is cut after 5 tokens" in first.stderr
    assert "the answer is cut; " in second.stderr  # from the log it took none


def test_a_text_on_stdin_is_read_before_the_question(place: Project) -> None:
    assert shell(place, "gx ask 'What is it?' -i - --max-tokens 3", "A {{ tent }}.\n").returncode == ExitCode.ok
    ((sent,),) = place.ask(
        "SELECT b.bytes FROM events e JOIN blobs b ON b.digest = e.data->>'$.params' WHERE type = 'run.created'"
    )
    assert "A {{ tent }}." in json.loads(bytes(sent))["context"]


def on_terminal(place: Project, *words: str) -> list[str]:
    """What a terminal gets on stdout of a gx that was run on it, piece by piece."""
    own, theirs = pty.openpty()
    process = subprocess.Popen(
        [*GX, *words], cwd=place.folder, env=place.env | {"TERM": "xterm"}, stdin=subprocess.DEVNULL, stdout=theirs,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(theirs)
    seen = list[str]()
    decoder = codecs.getincrementaldecoder("utf-8")()
    while True:
        try:
            chunk = os.read(own, 65536)
        except OSError:  # nobody writes any more
            break
        if not chunk:
            break
        seen.append(decoder.decode(chunk))
    _, err = process.communicate(timeout=180)
    assert process.returncode == ExitCode.ok, err
    return seen


def test_control_characters_reach_a_pipe_as_they_are_and_no_terminal(place: Project) -> None:
    odd = "\x1b]0;owned\x07\x9b2J\u202eab"
    (place.folder / "odd.jsonl").write_text(json.dumps({"id": "o", "text": odd}) + "\n")
    words = ("map", "{{ text }}", "-i", "odd.jsonl", "--max-tokens", "2", "--select", ".input.text", "--raw")
    assert shell(place, f"gx {' '.join(repr(word) for word in words)}").stdout == odd + "\n"
    shown = "".join(on_terminal(place, *words))
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)
    assert "owned" in shown


def test_an_answer_is_printed_on_a_terminal_while_it_is_written(place: Project, long: Path) -> None:
    (place.folder / "long.gguf").symlink_to(long)
    words = ("ask", "Go on.", "-m", "./long.gguf", "--max-tokens", "3000", "--temperature", "1")
    shown = on_terminal(place, *words)
    whole = shell(place, shlex.join(["gx", *words])).stdout
    assert "".join(shown).replace("\r\n", "\n").endswith(inert(whole))
    assert len(shown) > 2


def test_an_answer_that_is_stopped_while_it_is_written_ends_at_once(place: Project, long: Path) -> None:
    (place.folder / "long.gguf").symlink_to(long)
    own, theirs = pty.openpty()
    words = ("ask", "Go on.", "-m", "./long.gguf", "--max-tokens", "30000", "--temperature", "1")
    process = subprocess.Popen(
        [*GX, *words], cwd=place.folder, env=place.env | {"TERM": "xterm"}, stdin=subprocess.DEVNULL, stdout=theirs,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(theirs)
    try:
        assert os.read(own, 65536)  # the beginning of an answer that has no end yet
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=180)
    finally:
        process.kill()
        os.close(own)
    assert process.returncode == ExitCode.interrupted, err
    assert b"interrupted" in err and b"Traceback" not in err


def test_the_command_that_goes_on_is_told_without_the_secret_of_an_address(place: Project) -> None:
    lines = "".join(f"row {n}\n" for n in range(300))
    address = "--notify https://me:pw@localhost:9/SECRET"
    done = shell(place, f"gx map '{{{{ text }}}}' --max-tokens 2 --budget 1 --raw {address}", lines)
    assert done.returncode == ExitCode.budget, done.stderr
    assert "https://localhost:9/…" in done.stderr
    assert "SECRET" not in done.stderr and "pw" not in done.stderr


def test_a_notice_comes_though_the_command_left(place: Project) -> None:
    rows = "".join(f"row {n}\n" for n in range(3))
    (place.folder / "rows.txt").write_text(rows)
    done = shell(place, "gx map '{{ text }}' -i rows.txt --max-tokens 2 --raw --notify 'cat > notice.json'")
    assert done.returncode == ExitCode.ok, done.stderr
    notice = place.folder / "notice.json"
    found = nodes.until(lambda: notice.exists() and notice.read_text())
    assert json.loads(str(found))["tasks"]["succeeded"] == 3
