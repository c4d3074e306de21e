"""A recipe puts a LoRA adapter on its model: other answers, none of them taken from a run without it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.test_bundled import gx, records
from tests.tiny_lora import write_tiny_lora

RECIPE = """
version: 1
name: styled
inputs: rows.jsonl
models: {small: MODEL}
agents: {a: {model: small, sampling: {max_tokens: 12}}}
steps:
  - {id: say, for_each: inputs, agent: a, prompt: "{{ item.text }}"}
"""


def outputs(folder: Path, model: str) -> tuple[list[object], list[bool]]:
    folder.joinpath("recipe.yaml").write_text(RECIPE.replace("MODEL", model))
    done = gx("run", "recipe.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    rows = sorted(records(done), key=lambda record: record["index"])
    return [row["output"] for row in rows], [row["cached"] for row in rows]


def test_with_an_adapter_it_is_another_model(tmp_path: Path, tiny: Path) -> None:
    adapter = write_tiny_lora(tmp_path / "lora.gguf")
    tmp_path.joinpath("rows.jsonl").write_text("".join(json.dumps({"text": word}) + "\n" for word in ("one", "two")))
    plain, _ = outputs(tmp_path, str(tiny))
    styled, cached = outputs(tmp_path, f"{{source: {tiny}, adapters: [{adapter.name}]}}")
    assert styled != plain and not any(cached)
    again, cached = outputs(tmp_path, f"{{source: {tiny}, adapters: [{{source: ./{adapter.name}}}]}}")
    assert again == styled and all(cached)
    _, cached = outputs(tmp_path, f"{{source: {tiny}, adapters: [{{source: ./{adapter.name}, strength: 0.5}}]}}")
    assert not any(cached)


def test_a_missing_adapter_is_named(tmp_path: Path, tiny: Path) -> None:
    tmp_path.joinpath("rows.jsonl").write_text('{"text": "one"}\n')
    tmp_path.joinpath("recipe.yaml").write_text(RECIPE.replace("MODEL", f"{{source: {tiny}, adapters: [./gone.gguf]}}"))
    done = gx("run", "recipe.yaml", cwd=tmp_path)
    assert done.returncode != 0 and "gone.gguf" in done.stderr and "Traceback" not in done.stderr
