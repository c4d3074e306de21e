"""What is spoilt: the bundled recipes and inputs, and some that use what those don't. Each runs as it stands."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import NamedTuple

import yaml

from gx.flow.packed import files_of, read_tree
from gx.flow.parse import parse_recipe, read_recipe
from gx.run.inputs import open_inputs

BUNDLED = Path(__file__).parents[2] / "recipes"

GRAPH = """\
version: 1
name: graph
params:
  product: {type: string, default: Acme Notes}
  most: 3
models: {tiny: {source: ./tiny.gguf, context: 400}}
agents:
  judge:
    model: tiny
    persona: You judge {{ params.product }} as a {{ matrix.role }}.
    sampling: {temperature: 0.7, top_p: 0.9, seed: 3, max_tokens: 8, stop: ["\\n"]}
  clerk:
    model: tiny
    output: {type: object, required: [kind], properties: {kind: {enum: [a, b]}, sure: {type: boolean}}}
    sampling: {max_tokens: 16}
steps:
  - id: sort
    for_each: inputs
    agent: clerk
    prompt: |
      {{ index }} {{ id }}: {{ item.text }} {% if item.plan is defined %}({{ item.plan }}){% endif %}
    retry: {limit: 1, backoff: 10ms}
    continue_on_error: true
  - id: judge
    for_each: sort
    agent: judge
    matrix: {role: [poet, lawyer]}
    when: item.kind != "c"
    prompt: "{{ input.text | truncate(20) }} is {{ item.kind }}; {{ matrix.role }}?"
    timeout: 20s
  - {id: sum, needs: [judge], reduce: judge, agent: clerk, prompt: "{% for i in items %}{{ i }}{% endfor %}"}
  - {id: last, needs: [sum], agent: clerk, when: "always() and params.most > 2", prompt: "{{ steps.sum }}"}
output: judge
budget: {tokens: 100000}
deadline: 10m
"""  # fmt: skip

BATCH = """\
version: 1
name: batch
inputs: rows.jsonl
models: {tiny: ./tiny.gguf}
agents: {a: {persona: Be short., sampling: {max_tokens: 6}}}
steps: [{id: answer, for_each: inputs, agent: a}]
"""

_TEXTS = ["Sync eats my edits", "The invoice, again", 'He said "no"', "Ünïcode 🦆", "", "a\tb", "x" * 400]
_JSONL = "".join(json.dumps({"id": f"row-{n}", "text": t, "plan": "pro", "n": n}) + "\n" for n, t in enumerate(_TEXTS))
_CSV = "id,text,plan\n" + "".join(f'{n},"{t.replace(chr(34), chr(34) * 2)}",pro\n' for n, t in enumerate(_TEXTS))
_BATCH = "".join(
    json.dumps(
        {
            "custom_id": f"b-{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "x", "max_tokens": 5, "messages": [{"role": "user", "content": t or "hello"}]},
        }
    )
    + "\n"
    for n, t in enumerate(_TEXTS)
)
INPUTS = {
    "rows.jsonl": _JSONL.encode(),
    "rows.csv": _CSV.encode(),
    "rows.tsv": _CSV.replace(",", "\t").encode(),
    "rows.json": json.dumps([json.loads(line) for line in _JSONL.splitlines()], indent=1).encode(),
    "rows.txt": "\n".join(_TEXTS).encode(),
    "batch.jsonl": _BATCH.encode(),
    "utf16.csv": _CSV.encode("utf-16"),
}


class Sample(NamedTuple):
    """A recipe and the names of inputs that suit it."""

    recipe: bytes
    inputs: list[str]


def samples() -> tuple[list[Sample], dict[str, bytes]]:
    """Recipes that work, on the tiny model and with short answers, and all inputs by name."""
    inputs = dict(INPUTS)
    found = [Sample(GRAPH.encode(), list(INPUTS)), Sample(BATCH.encode(), ["batch.jsonl"])]
    for file in sorted(BUNDLED.glob("*.yaml")):
        text = _in_one(file).replace("smollm2", "./tiny.gguf")
        text = re.sub(r"max_tokens: \d+", "max_tokens: 12", text)
        name = f"{file.stem}.jsonl"
        inputs[name] = _bundled_rows(BUNDLED / parse_recipe(text, file=str(file)).inputs if "inputs:" in text else None)
        found.append(Sample(text.encode(), [name, "rows.jsonl"]))
    return found, inputs


def _in_one(file: Path) -> str:
    """A recipe's text, with the personas that it names in their place."""
    text = read_recipe(file)
    if not files_of(text):
        return text
    return yaml.safe_dump(read_tree(text, file=str(file)).plain(), sort_keys=False, allow_unicode=True)


def _bundled_rows(spec: Path | None) -> bytes:
    """The first rows of a bundled recipe's own input, as JSON lines."""
    if spec is None:
        return INPUTS["rows.jsonl"]
    source = open_inputs(str(spec), base_dir=BUNDLED, stdin=io.BytesIO())
    rows = [row.value for row in source.rows() if row.value is not None][:8]
    return b"".join(row + b"\n" for row in rows)
