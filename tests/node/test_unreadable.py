"""A workspace that can't be looked into, as another user's can't: whoever needs its log says so in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gx.cli import answer, history, memory, steer
from gx.core.errors import WorkspaceError
from gx.node import health
from gx.node.workspace import Workspace
from gx.tui.feed import Feed
from tests import nodes


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A name that is too long for a file: root, too, can't look into it."""
    return tmp_path / ("n" * 300)


@pytest.mark.parametrize(
    ("register", "words"),
    [
        (history.register, ("runs",)),
        (answer.register, ("answer", "r")),
        (steer.register, ("pause", "r")),
        (memory.register, ("search", "q")),
    ],
)
def test_a_verb_says_that_it_can_not_be_looked_into(
    place: Path, register: Callable[[typer.Typer], None], words: tuple[str, ...]
) -> None:
    app = typer.Typer()
    app.command("none")(lambda: None)
    register(app)
    result = CliRunner().invoke(app, [*words, "--workspace", str(place)])
    assert isinstance(result.exception, WorkspaceError)
    assert "can't be looked into: File name too long" in result.exception.message and result.exception.hint


def test_the_doctor_says_so_too(place: Path) -> None:
    assert health._nearest(place) == place.parent
    found = [health._workspace(Workspace(place)), health._log(Workspace(place))]
    assert [check.status for check in found] == ["ok", "fail"]
    assert "can't be looked into" in found[1].found and found[1].advice


def test_the_monitor_says_so_and_goes_on_looking(place: Path) -> None:
    feed = Feed(Workspace(place))
    feed.start()
    try:
        assert "can't be looked into" in nodes.until(lambda: feed.problem, within_s=20)
        assert all(thread.is_alive() for thread in feed.threads)
    finally:
        feed.close()
