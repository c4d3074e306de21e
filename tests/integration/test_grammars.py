"""Answers that are texts of a grammar, from a recipe and from a command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.integration.test_bundled import gx, records

LARK = """\
start: "on " date " at " /[0-2][0-9]:[0-5][0-9]/
date: /20[0-9][0-9]/ "-" /[01][0-9]/ "-" /[0-3][0-9]/
"""
DATE = r"on 20\d\d-[01]\d-[0-3]\d at [0-2]\d:[0-5]\d"
RECIPE = """
version: 1
name: dated
inputs: rows.jsonl
models: {m: MODEL}
agents: {a: {model: m, sampling: {max_tokens: LIMIT}, grammar: GRAMMAR}}
steps:
  - {id: say, for_each: inputs, agent: a, prompt: "{{ item.text }}"}
"""


def run(folder: Path, model: Path, *, limit: int = 64, grammar: str = LARK) -> tuple[list[dict[str, object]], int]:
    text = RECIPE.replace("MODEL", str(model)).replace("LIMIT", str(limit)).replace("GRAMMAR", json.dumps(grammar))
    folder.joinpath("recipe.yaml").write_text(text)
    done = gx("run", "recipe.yaml", cwd=folder)
    assert "Traceback" not in done.stderr
    return sorted(records(done), key=lambda record: record["index"]), done.returncode


def test_each_answer_of_a_recipe_is_a_text_of_its_grammar(tmp_path: Path, tiny: Path) -> None:
    rows = ({"text": f"When is lecture {number}?"} for number in range(6))
    tmp_path.joinpath("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, code = run(tmp_path, tiny)
    assert code == 0 and len(found) == 6
    assert all(re.fullmatch(DATE, str(row["output"])) for row in found), found
    again, _ = run(tmp_path, tiny)
    assert all(row["cached"] for row in again)
    other, _ = run(tmp_path, tiny, grammar='root ::= "  never\\n"')
    assert [row["output"] for row in other] == ["  never\n"] * 6, "space belongs to it"
    assert not any(row["cached"] for row in other)


def test_half_a_text_is_no_answer(tmp_path: Path, tiny: Path) -> None:
    tmp_path.joinpath("rows.jsonl").write_text('{"text": "When?"}\n')
    (row,), code = run(tmp_path, tiny, limit=4)
    assert code == 3 and row["status"] == "failed"
    assert "before it had come to an end by the Lark grammar" in str(row["error"]), row


def test_a_command_line_takes_a_grammar_from_a_file(tmp_path: Path, tiny: Path) -> None:
    tmp_path.joinpath("date.gbnf").write_text('root ::= "on " [0-9]{4} "-" [0-9]{2}\n')
    words = ("map", "When is {{ text }}?", "-m", str(tiny), "--raw", "--grammar")
    done = gx(*words, "date.gbnf", cwd=tmp_path, stdin="easter\n")
    assert done.returncode == 0 and re.fullmatch(r"on \d{4}-\d{2}\n", done.stdout), done
    missing = gx(*words, "gone.gbnf", cwd=tmp_path, stdin="easter\n")
    assert missing.returncode == 2 and "expected a file, got gone.gbnf" in missing.stderr
    both = gx(*words, "date.gbnf", "--choice", "a,b", cwd=tmp_path, stdin="easter\n")
    assert both.returncode == 2 and "one of --schema, --choice and --grammar" in both.stderr
    tmp_path.joinpath("bad.gbnf").write_text("root ::= month\n")
    bad = gx(*words, "bad.gbnf", cwd=tmp_path, stdin="easter\n")
    assert bad.returncode == 2 and "GBNF can't be read" in bad.stderr and "Traceback" not in bad.stderr
