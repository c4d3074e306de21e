"""What verbs print: nothing that a terminal would obey."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

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


def on_a_terminal(*words: str, place: Path) -> str:
    """What a verb prints there."""
    ours, theirs = os.openpty()
    process = subprocess.Popen([*GX, *words, "--workspace", str(place)], stdout=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    found = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while more := os.read(ours, 1 << 16):
            found += more
    os.close(ours)
    assert process.wait(180) == 0
    return found.decode()


@pytest.mark.parametrize("words", [("log",), ("diff", ONE, TWO, "--json")], ids=" ".join)
def test_nothing_that_a_row_or_a_model_says_is_obeyed_by_a_terminal(place: Path, words: tuple[str, ...]) -> None:
    shown = on_a_terminal(*words, place=place)
    assert "red" in shown and "txt" in shown
    assert not [c for c in shown if not c.isprintable() and c not in "\r\n\t"]
