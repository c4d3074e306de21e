"""The lines of the monitor's lists."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from gx.tui.panes import wrapped

HEAD = "12:00:00 rule       "
CONSOLE = Console(file=StringIO(), width=200)


@pytest.mark.parametrize("width", [30, 45, 60])
def test_a_word_longer_than_the_pane_stays_one_word(width: int) -> None:
    word = "".join(f"/{n:03}" for n in range(60))
    lines = [line.plain for line in wrapped(Text(f"{HEAD}see {word} there"), width, CONSOLE)]
    assert max(map(len, lines)) <= width
    below = [line.strip() for line in lines[1:]]
    assert word in "".join([lines[0][len(HEAD) :].removeprefix("see "), *below])
    assert all(" " not in line.removesuffix(" there") for line in below)


def test_words_that_fit_are_parted_between_lines_and_what_is_below_is_set_in() -> None:
    text = "the backlog outlasts the deadline, so that containers are rented for what is left of it"
    first, *rest = [line.plain for line in wrapped(Text(HEAD + text), 50, CONSOLE)]
    assert rest and all(line.startswith(" " * len(HEAD)) for line in rest)
    assert " ".join([first.strip(), *map(str.strip, rest)]) == HEAD + text
