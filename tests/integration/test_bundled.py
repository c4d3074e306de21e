"""What a user types, with a real model run by llama.cpp in the bench's own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nodes import LINGERS_S
from tests.tiny_model import write_tiny_model

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random-weight model with a real vocabulary."""
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(path)
    return path


def gx(*words: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`gx` with these words, in a workspace under `cwd`."""
    env = os.environ | {"GX_WORKSPACE": str(cwd / ".gx"), "GX_THREADS": "1", "GX_OFFLINE": "1"}
    env["GX_NODE_LINGER_S"] = str(LINGERS_S)
    return subprocess.run(
        [sys.executable, "-m", "gx", *words], cwd=cwd, env=env, input=stdin, capture_output=True, text=True, timeout=180
    )


def records(done: subprocess.CompletedProcess[str]) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("name", "fields"), [("triage", {"category", "urgency"}), ("extract", {"kind", "total"})])
def test_a_bundled_recipe_gives_a_record_a_row_that_fits_its_schema(
    tmp_path: Path, name: str, fields: set[str]
) -> None:
    done = gx("run", str(RECIPES / f"{name}.yaml"), "--limit", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(records(done)) == 3
    for record in records(done):
        assert record["status"] == "succeeded"
        assert fields <= set(record["output"])
        assert record["usage"]["tokens_out"] > 0
    again = gx("run", str(RECIPES / f"{name}.yaml"), "--limit", "3", cwd=tmp_path)
    assert [r["output"] for r in records(again)] == [
        r["output"] for r in sorted(records(done), key=lambda r: r["index"])
    ]
    assert all(r["cached"] for r in records(again))


def test_the_digest_maps_over_files_and_reduces_to_one_report(tmp_path: Path) -> None:
    done = gx("run", str(RECIPES / "digest.yaml"), "--limit", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (report,) = records(done)
    assert report["step"] == "digest" and isinstance(report["output"], str) and report["output"]


TREE = """
version: 1
name: tree
models: {m: {source: TINY, context: 256}}
agents:
  short: {model: m, sampling: {max_tokens: 12}}
steps:
  - {id: each, for_each: inputs, agent: short, prompt: "{{ item.text }}"}
  - {id: all, reduce: each, agent: short, prompt: "{% for t in items %}- {{ t }}\\n{% endfor %}"}
"""


def test_a_reduce_over_more_than_fits_the_context_is_a_tree_of_calls_that_each_fit(tmp_path: Path, tiny: Path) -> None:
    recipe = tmp_path / "tree.yaml"
    recipe.write_text(TREE.replace("TINY", str(tiny)))
    rows = "\n".join(f"line {n} of many" for n in range(60))
    done = gx("run", "tree.yaml", "-i", "-", cwd=tmp_path, stdin=rows)
    assert done.returncode == 0, done.stderr
    assert [r["step"] for r in records(done)] == ["all"]
    asked = gx("sql", "select count(*) as n, max(tok_in) as longest from tasks where step = 'all'", cwd=tmp_path)
    (row,) = records(asked)
    assert row["n"] > 3
    assert row["longest"] <= 256 - 12


def test_batch_input_gives_batch_output(tmp_path: Path, tiny: Path) -> None:
    recipe = tmp_path / "batch.yaml"
    recipe.write_text(
        f"version: 1\nname: batch\nmodels: {{m: {tiny}}}\nagents: {{a: {{model: m}}}}\n"
        "steps: [{id: answer, for_each: inputs, agent: a}]\n"
    )
    line = {"custom_id": "c1", "method": "POST", "url": "/v1/chat/completions"}
    body = {"model": "any", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}
    refused = body | {"tools": [{"type": "function"}]}
    rows = "\n".join(json.dumps(row) for row in (line | {"body": body}, {"custom_id": "c2", "body": refused}))
    done = gx("run", "batch.yaml", "-i", "-", cwd=tmp_path, stdin=rows)
    assert done.returncode == 3, done.stderr
    by_id = {r["custom_id"]: r for r in records(done)}
    assert by_id["c1"]["response"]["body"]["usage"]["completion_tokens"] <= 5
    assert by_id["c1"]["error"] is None
    assert by_id["c2"]["error"]["message"] == "body.tools is not supported"


def test_a_time_out_fails_the_row_and_says_so(tmp_path: Path, tiny: Path) -> None:
    recipe = tmp_path / "slow.yaml"
    recipe.write_text(
        f"version: 1\nname: slow\nmodels: {{m: {tiny}}}\nagents: {{a: {{model: m, sampling: {{max_tokens: 1900}}}}}}\n"
        "steps: [{id: s, for_each: inputs, agent: a, prompt: '{{ item.text }}', timeout: 50ms}]\n"
    )
    done = gx("run", "slow.yaml", "-i", "-", cwd=tmp_path, stdin="one\n")
    assert done.returncode == 3, done.stderr
    assert records(done)[0]["error"]["code"] == "timeout"
