"""`gx config`: what it says of each setting is what is in force, and where it came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gx.cli import config
from gx.core.errors import SettingsError
from gx.settings import Settings

runner = CliRunner()


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    for name in Settings.__struct_fields__:
        monkeypatch.delenv(f"GX_{name.upper()}", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    made = typer.Typer()
    config.register(made)
    made.command("other")(lambda: None)
    return made


def settings_of(app: typer.Typer) -> dict[str, dict[str, object]]:
    done = runner.invoke(app, ["config", "--json"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["setting"]: row for row in rows}


def test_every_setting_is_listed_with_its_default(app: typer.Typer) -> None:
    rows = settings_of(app)
    assert list(rows) == list(Settings.__struct_fields__)
    assert {row["source"] for row in rows.values()} == {"default"}
    assert rows["offline"]["value"] is False


def test_the_source_that_won_is_named(app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gx.toml").write_text("threads = 3\noffline = true\n")
    monkeypatch.setenv("GX_THREADS", "5")
    rows = settings_of(app)
    assert (rows["threads"]["value"], rows["threads"]["source"]) == (5, "GX_THREADS")
    assert (rows["offline"]["value"], rows["offline"]["source"]) == (True, str(tmp_path / "gx.toml"))


def test_a_bad_setting_is_an_error_that_names_its_source(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GX_THREADS", "many")
    done = runner.invoke(app, ["config"])
    assert isinstance(done.exception, SettingsError)
    assert "GX_THREADS" in done.exception.message


def test_path_prints_one_bare_path(app: typer.Typer) -> None:
    done = runner.invoke(app, ["config", "path"])
    assert done.exit_code == 0
    (line,) = done.stdout.splitlines()
    assert Path(line).name == "config.toml" and "does not exist" in done.stderr


def test_a_table_is_shown_on_request(app: typer.Typer) -> None:
    done = runner.invoke(app, ["config", "--plain"])
    assert done.stdout.splitlines()[0].split() == ["setting", "value", "source"]
