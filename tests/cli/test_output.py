"""What verbs print: nothing that a terminal would obey; and what becomes of them where it can't be written."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gx import cli
from gx.output import ExitCode
from tests.integration.project import GX
from tests.verbs.writing import ONE, TWO, Writing

EVIL = "\x9b31mred\u202etxt\x1b[2J"
"""A C1 colour, text from right to left, and an order to clear the screen."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two runs of a row whose id and answers are evil."""
    w = Writing()
    for run in (ONE, TWO):
        w.begin(run)
        w.succeed(run, w.queue(run, 0, EVIL), {"said": f"{EVIL} {run}"})
    w.write(tmp_path / ".gx")
    return tmp_path / ".gx"


def start(*words: str, place: Path | None = None, stdout: Any) -> subprocess.Popen[str]:
    command = [*GX, *words, *(() if place is None else ("--workspace", str(place)))]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True
    )


def on_a_terminal(*words: str, place: Path) -> str:
    """What a verb prints there."""
    ours, theirs = os.openpty()
    process = start(*words, place=place, stdout=theirs)
    os.close(theirs)
    found = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while more := os.read(ours, 1 << 16):
            found += more
    os.close(ours)
    _, told = process.communicate(timeout=180)
    assert process.returncode == 0, told
    return found.decode()


@pytest.mark.parametrize("words", [("log",), ("diff", ONE, TWO, "--json")], ids=" ".join)
def test_nothing_that_a_row_or_a_model_says_is_obeyed_by_a_terminal(place: Path, words: tuple[str, ...]) -> None:
    shown = on_a_terminal(*words, place=place)
    assert "red" in shown and "txt" in shown
    assert not [c for c in shown if not c.isprintable() and c not in "\r\n\t"]


def test_output_that_can_not_be_written_is_an_error_in_words(place: Path) -> None:
    verbs = (
        ("sql", "select * from events"),
        ("sql", "select * from events", "--plain"),
        ("runs", "--plain"),
        ("show", ONE),
        ("show", ONE, "--plain"),
        ("why", ONE, "--plain"),
        ("diff", ONE, TWO),
        ("log",),
        ("spend",),
        ("export", ONE),
        ("export", ONE, "--to", "csv"),
    )
    with Path("/dev/full").open("wb") as full:
        started = [(words, start(*words, place=place, stdout=full)) for words in verbs]
    for words, process in started:
        _, told = process.communicate(timeout=180)
        assert (process.returncode, told.count("\n")) == (1, 2), (words, told)
        assert told.startswith("error: stdout can't be written: No space left on device\nhint: "), (words, told)


HELP = (("--help",), ("--version",), ("run", "--help"), ("models", "--help"), ("models", "list", "-h"))


def test_help_is_output_as_any_other() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with Path("/dev/full").open("wb") as full:
        started = [(start(*words, stdout=full), start(*words, stdout=theirs)) for words in HELP]
    os.close(theirs)
    for words, (process, unread) in zip(HELP, started, strict=True):
        _, told = process.communicate(timeout=180)
        assert process.returncode == 1 and told.startswith("error: stdout can't be written"), (words, told)
        _, told = unread.communicate(timeout=180)
        assert (unread.returncode, told) == (ExitCode.closed_pipe, ""), words


@pytest.mark.parametrize("words", [("runs", "--plain"), ("runs", "--json"), ("why", ONE, "--plain")], ids=" ".join)
def test_a_verb_that_nobody_reads_ends_as_sigpipe_would_end_it(place: Path, words: tuple[str, ...]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    process = start(*words, place=place, stdout=theirs)
    os.close(theirs)
    _, told = process.communicate(timeout=180)
    assert (process.returncode, told) == (ExitCode.closed_pipe, "")


def test_no_verb_writes_to_stdout_past_what_tells_of_its_errors() -> None:
    for file in Path(cli.__path__[0]).glob("*.py"):
        text = file.read_text()
        assert "sys.stdout.write(" not in text and "typer.echo(" not in text, file.name
