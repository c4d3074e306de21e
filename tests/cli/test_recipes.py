"""`gx schema`, `gx validate`, `gx init`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from gx.cli import recipes
from gx.core.errors import UsageError
from gx.flow.parse import load_recipe, parse_recipe

GOOD = """\
version: 1
name: t
models: {small: smollm2}
agents: {a: {}}
steps:
  - {id: one, for_each: inputs, agent: a, prompt: "{{ item.text }}"}
  - {id: two, reduce: one, agent: a, prompt: "{{ items }}"}
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GX_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def gx(*arguments: str) -> Result:
    app = typer.Typer()
    recipes.register(app)
    return CliRunner().invoke(app, arguments)


def test_schema_is_draft_07_and_accepts_the_starter() -> None:
    import jsonschema
    import yaml

    schema = json.loads(gx("schema").stdout)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator(schema).validate(yaml.safe_load(recipes.STARTER))


def test_validate_says_what_is_in_a_recipe(home: Path) -> None:
    (home / "r.yaml").write_text(GOOD)
    done = gx("validate", "r.yaml")
    assert done.exit_code == 0
    assert done.stdout == "" and "r.yaml: ok: 2 steps, 1 agent, 1 model" in done.stderr


def test_validate_checks_every_recipe_and_exits_2(home: Path) -> None:
    (home / "bad.yaml").write_text(GOOD.replace('agent: a, prompt: "{{ items', 'agent: b, prompt: "{{ items'))
    (home / "good.yaml").write_text(GOOD)
    done = gx("validate", "bad.yaml", "none.yaml", "good.yaml")
    assert done.exit_code == 2
    assert "bad.yaml:7:" in done.stderr and "none.yaml" in done.stderr and "good.yaml: ok" in done.stderr


def test_a_model_that_nobody_knows_is_an_error_at_its_place(home: Path) -> None:
    (home / "r.yaml").write_text(GOOD.replace("smollm2", "smolm2"))
    done = gx("validate", "r.yaml")
    assert done.exit_code == 2
    assert "r.yaml:3:17: error: there is no model `smolm2`" in done.stderr and "did you mean `smollm2`" in done.stderr


def test_a_model_that_is_elsewhere_is_a_note(home: Path) -> None:
    (home / "r.yaml").write_text(GOOD.replace("smollm2", "qwen3-4b"))
    done = gx("validate", "r.yaml")
    assert done.exit_code == 0
    assert "gx models pull qwen3-4b" in done.stderr


def test_init_writes_a_recipe_that_is_one_its_input_and_a_workspace(home: Path) -> None:
    done = gx("init")
    assert done.exit_code == 0, done.output
    recipe = parse_recipe((home / "recipe.yaml").read_text())
    rows = [json.loads(line) for line in (home / str(recipe.inputs)).read_text().splitlines()]
    assert {"id", "text"} == set(rows[0]) and (home / ".gx").is_dir()
    assert "next: gx run recipe.yaml" in done.stderr
    assert gx("validate", "recipe.yaml").exit_code == 0


def test_the_starter_still_parses_with_its_comments_taken_away() -> None:
    opened = recipes.STARTER.replace("\n  # ", "\n  ").replace("\n  One answer", "\n  # One answer")
    opened = opened.replace("agents:\n", "agents:\n  editor: {model: small}\n")
    assert [step.id for step in parse_recipe(opened).steps] == ["sort", "report"]


def test_init_overwrites_nothing_unless_forced(home: Path) -> None:
    (home / "inputs.jsonl").write_text("mine")
    done = gx("init")
    assert isinstance(done.exception, UsageError) and "inputs.jsonl" in done.exception.message
    assert not (home / "recipe.yaml").exists() and (home / "inputs.jsonl").read_text() == "mine"
    assert gx("init", "--force").exit_code == 0
    assert (home / "inputs.jsonl").read_text() != "mine"


def test_init_in_another_folder_says_how_to_get_there(home: Path) -> None:
    done = gx("init", "a b/first.yaml")
    assert done.exit_code == 0
    assert (home / "a b/inputs.jsonl").exists() and (home / "a b/.gx").is_dir()
    assert "next: cd 'a b' && gx run first.yaml" in done.stderr


def test_init_refuses_a_name_that_is_no_recipe() -> None:
    assert isinstance(gx("init", "inputs.jsonl").exception, UsageError)


@pytest.mark.parametrize("name", [path.stem for path in sorted(recipes.bundle().glob("*.yaml"))])
def test_every_bundled_recipe_can_be_started_from(name: str, home: Path) -> None:
    done = gx("init", "mine.yaml", "--from", name)
    assert done.exit_code == 0, done.output
    recipe = load_recipe(home / "mine.yaml")
    assert list(home.glob(str(recipe.inputs))), "its input is where the recipe looks for it"
    if (home / name / "labels.jsonl").exists():
        assert f"then: gx eval mine.yaml --labels {name}/labels.jsonl" in done.stderr
    assert gx("validate", "mine.yaml").exit_code == 0


def test_the_help_of_init_names_every_recipe_that_comes_with_gx() -> None:
    told = "".join(gx("init", "--help").stdout.split())
    assert all(path.stem in told for path in recipes.bundle().glob("*.yaml"))


def test_a_recipe_that_does_not_come_with_gx_is_refused_with_the_nearest(home: Path) -> None:
    missing = gx("init", "--from", "digst").exception
    assert isinstance(missing, UsageError) and missing.hint == "did you mean `digest`?"
    assert not list(home.iterdir())
