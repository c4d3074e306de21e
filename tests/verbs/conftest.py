"""A workspace with two runs of one recipe, and a verb that is called on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from gx.core.errors import GxError
from tests.verbs.writing import two_runs


@pytest.fixture
def place(tmp_path: Path) -> Path:
    two_runs().write(tmp_path / ".gx")
    return tmp_path / ".gx"


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., Result]:
    """A verb as from the command line, on the workspace of the test."""

    def run(register: Callable[[typer.Typer], None], *args: str, text: str | None = None) -> Result:
        app = typer.Typer()
        app.command("none")(lambda: None)
        register(app)
        result = CliRunner().invoke(app, [*args, "--workspace", str(tmp_path / ".gx")])
        if isinstance(result.exception, GxError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result

    return run
