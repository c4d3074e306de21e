"""A trial's folder: recipes, rows, and what a command over them must print."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

from tests.soak.promises import POISON
from tests.soak.story import Other, Trial, texts

RUN = ("run", "recipe.yaml", "-i", "rows.jsonl")
_RECIPE = """\
version: 1
name: {name}
models: {{tiny: ./tiny.gguf}}
agents:
  writer: {{model: tiny, persona: You answer in a word., sampling: {{temperature: 1, max_tokens: 6}}}}
steps:
  - {{id: write, for_each: inputs, agent: writer, prompt: "{{{{ item.text }}}}"}}
"""
_REPORT = """\
  - {id: report, reduce: write, agent: writer, prompt: "{% for one in items %}{{ one }}, {% endfor %}"}
"""


def prepare(folder: Path, trial: Trial, tasks: int) -> dict[str, str]:
    """Make the folder; the model lies beside it. The text of each row by its id."""
    folder.mkdir(parents=True)
    main = _REPORT + "output: write\n" if trial.has_report else ""
    (folder / "recipe.yaml").write_text(_RECIPE.format(name="soak") + main)
    (folder / "renamed.yaml").write_text(_RECIPE.format(name="other") + main)
    (folder / "report.yaml").write_text(_RECIPE.format(name="report") + _REPORT)
    (folder / "tiny.gguf").symlink_to(folder.parent / "tiny.gguf")
    rows = _poisoned(texts(trial, tasks), trial)
    _write(folder / "rows.jsonl", rows)
    half = random.Random(trial.seed).sample(sorted(rows), tasks // 2)
    _write(folder / "part.jsonl", {name: rows[name] for name in half})
    return rows


def command_of(other: Other) -> tuple[str, ...]:
    """What is typed for a run beside the main one."""
    match other.kind:
        case "limit" | "sample":
            return (*RUN, f"--{other.kind}", str(other.rows))
        case "part":
            return ("run", "recipe.yaml", "-i", "part.jsonl")
        case _:
            return ("run", f"{other.kind}.yaml", "-i", "rows.jsonl")


def count_of(other: Other) -> int:
    """How many records it prints."""
    return 1 if other.kind == "report" else other.rows


def _poisoned(rows: dict[str, str], trial: Trial) -> dict[str, str]:
    """The rows, with the poisoned row's text wherever it stands replaced."""
    text = rows.get(f"row-{trial.poisoned}")
    return {name: POISON if of == text else of for name, of in rows.items()}


def _write(path: Path, rows: Mapping[str, str]) -> None:
    path.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in rows.items()))
