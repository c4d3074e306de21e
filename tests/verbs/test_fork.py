"""A run once more: what didn't change is answered from the log, and the rest is computed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gx.cli.fork import _sources
from gx.core import event as e
from gx.core.errors import UsageError
from gx.flow.parse import parse_recipe, plan_recipe
from gx.flow.remodel import with_models
from gx.node.workspace import Workspace
from gx.run.freshly import steps_from
from tests.integration.project import Done, Project
from tests.tiny_model import write_tiny_model
from tests.verbs.writing import RECIPE as OLD
from tests.verbs.writing import Writing

RECIPE = """\
version: 1
name: two
params: {tone: plain}
models: {m: ./model.gguf}
agents:
  a: {model: m, persona: You answer., sampling: {temperature: 1, max_tokens: 6}}
  b: {model: m, persona: "You are {{ params.tone }}.", sampling: {temperature: 1, max_tokens: 6}}
steps:
  - {id: first, for_each: inputs, agent: a, prompt: "{{ item.text }}"}
  - {id: second, for_each: first, agent: b, prompt: "{{ item }}"}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project in which a run of three good rows and a bad one ended; the node stays up between commands."""
    folder = tmp_path_factory.mktemp("fork")
    made = Project(folder)
    made.env["GX_NODE_LINGER_S"] = "20"
    made.write(RECIPE, write_tiny_model(folder / "tiny.gguf", context=512), rows=3)
    write_tiny_model(folder / "other.gguf", context=512, seed=1)
    made.add({"id": "bad"})
    first = made.run("run", "recipe.yaml", "-i", "rows.jsonl")
    assert (first.status, computed(first)) == (3, 6)
    made.env["ORIGIN"] = run_of(first)
    yield made
    made.close()


def run_of(done: Done) -> str:
    """The run that a command was about."""
    return next(line.split()[1] for line in done.err.splitlines() if line.startswith("run "))


def computed(done: Done) -> int:
    """How many tasks the run of a command computed: those that no log answered."""
    counts = {name: int(n) for n, name in re.findall(r"(\d+) (succeeded|from the log)", done.err)}
    return counts["succeeded"] - counts.get("from the log", 0)


def test_without_a_change_all_is_answered_from_the_log(project: Project) -> None:
    done = project.run("fork", project.env["ORIGIN"], "--with-input")
    assert (done.status, computed(done)) == (3, 0)
    assert all(record["cached"] and "text" in record["input"] for record in done.records)
    assert f"compare: gx diff {project.env['ORIGIN']} fork-of-two-" in done.err


def test_another_parameter_computes_what_reads_it(project: Project) -> None:
    done = project.run("fork", project.env["ORIGIN"], "--set", "tone=kind", "--limit", "2", "--ordered")
    assert ([record["index"] for record in done.records], computed(done)) == ([0, 1], 2)


def test_another_model_computes_everything(project: Project) -> None:
    done = project.run("fork", project.env["ORIGIN"], "--model", "m=./other.gguf", "-q")
    assert len(done.records) == 3 and not any(record["cached"] for record in done.records)


def test_from_a_step_on_everything_is_computed_anew(project: Project) -> None:
    assert computed(project.run("fork", project.env["ORIGIN"], "--from", "second")) == 3
    assert computed(project.run("fork", project.env["ORIGIN"], "--from", "first")) == 6


def test_a_retry_runs_what_failed_and_nothing_else(project: Project) -> None:
    done = project.run("retry", project.env["ORIGIN"])
    assert (done.status, computed(done)) == (3, 0)
    assert "1 failed" in done.err and len(done.records) == 3
    out, _ = project.start("retry", project.env["ORIGIN"], "--detach", "-q").process.communicate(timeout=180)
    assert out.startswith(b"retry-of-two-")


def test_what_cannot_be_forked_says_what_to_do(project: Project) -> None:
    run = project.env["ORIGIN"]
    for words, told in (
        (("--set", "tune=x"), "the recipe has no parameter `tune`"),
        (("--model", "n=./x.gguf"), "the recipe has no model `n`"),
        (("--from", "secnd"), "the recipe has no step `secnd`"),
        (("--deadline", "soon"), "--deadline: expected a duration"),
    ):
        done = project.run("fork", run, *words)
        assert (done.status, done.records) == (2, []) and told in done.err, done.err


def test_a_stream_must_be_given_again(project: Project) -> None:
    rows = b'{"text": "a"}\n'
    run = run_of(project.run("run", "recipe.yaml", "-i", "-", stdin=rows))
    refused = project.run("fork", run)
    assert refused.status == 2 and "was a stream, and is gone" in refused.err and "-i FILE" in refused.err
    again = project.run("retry", run, "-i", "-", stdin=rows)
    assert again.status == 0 and [record["cached"] for record in again.records] == [True]


def test_a_run_of_an_older_gx_says_what_to_do(project: Project) -> None:
    assert project.run("node", "stop").status == 0
    with Workspace(project.workspace).exclusive(wait_s=5) as log:
        w = Writing()
        w.bodies.clear()
        w.begin("old-222222", file="triage.yaml", inputs="rows.csv")
        w.bodies.append(e.RunFinished(run="old-222222", succeeded=0, failed=0))
        log.append_sync(w.bodies, list(w.blobs.values()), source="node:1")
    done = project.run("fork", "old")
    assert done.status == 1 and "it is of an older gx, or was erased" in done.err
    assert "gx run triage.yaml -i rows.csv" in done.err


# ── the parts ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "models",
    [
        "models: {m: ./a.gguf, n: smollm2}",
        'models: {m: "./a.gguf", n: smollm2}',
        "models:\n  # the small one\n  m: ./a.gguf  # here\n  n: smollm2",
        "models:\n  m:\n    context: 99\n    source: >-\n      ./a.gguf\n  n: smollm2",
        "models: {m: {source: ./a.gguf, adapters: [./b.gguf]}, n: smollm2}",
    ],
)
def test_another_source_is_put_where_the_old_one_stood(models: str) -> None:
    text = OLD.replace("models: {m: ./model.gguf}", models).replace("{model: m}", "{model: n}")
    before, after = parse_recipe(text), parse_recipe(with_models(text, {"m": 'ö "x".gguf'}, file="r.yaml"))
    assert after.models["m"].source == 'ö "x".gguf'
    assert (after.models["m"].adapters, after.models["n"]) == (before.models["m"].adapters, before.models["n"])
    assert after.steps == before.steps


def test_a_source_that_is_an_alias_of_something_else_is_refused() -> None:
    text = OLD.replace("name: triage", "name: &x triage").replace("./model.gguf", "*x")
    with pytest.raises(UsageError, match="alias"):
        with_models(text, {"m": "y"}, file="r.yaml")


def test_sources_are_read_from_the_command_line() -> None:
    assert _sources(["m=smollm2", "n=./x.gguf"]) == {"m": "smollm2", "n": str(Path.cwd() / "x.gguf")}
    with pytest.raises(UsageError, match="NAME=SOURCE"):
        _sources(["m"])


def test_a_step_brings_all_that_follow_from_it() -> None:
    plan = plan_recipe(RECIPE, {})
    assert steps_from(plan, "second") == {"second"}
    assert steps_from(plan, "first") == {"first", "second"}
    assert steps_from(plan, "none") == steps_from(plan, None) == set()
