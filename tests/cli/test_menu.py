"""`gx --help`: every verb in one chapter, each on one line of a terminal of 80 columns; groups say all of theirs."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from gx.cli.app import app
from gx.cli.menu import CHAPTERS, WIDEST_LINE

VERBS = list(typer.main.get_command(app).commands)


def test_every_verb_stands_in_one_chapter() -> None:
    listed = [verb for verbs in CHAPTERS.values() for verb in verbs]
    assert sorted(listed) == sorted(VERBS)


def test_each_verb_fits_on_a_line_of_eighty_columns() -> None:
    lines = [line for verbs in CHAPTERS.values() for line in verbs.values()]
    assert max(map(len, lines)) <= WIDEST_LINE
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output.splitlines()
    assert all(any(row.endswith(line) for row in shown) for line in lines)


@pytest.mark.parametrize("group", ["memory", "models", "cloud", "node"])
def test_a_group_says_whole_sentences(group: str) -> None:
    shown = CliRunner().invoke(app, [group, "--help"], env={"COLUMNS": "80"}).output
    assert "..." not in shown.split("Commands:")[1]
