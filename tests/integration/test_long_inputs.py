"""Inputs that are longer than the context, from a shell: told, recorded, and the same after a kill."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.project import Project

RECIPE = """\
version: 1
name: long
models: {{m: {{source: ./model.gguf, context: 400}}}}
agents:
  a: {{model: m, sampling: {{temperature: 1, max_tokens: {most}}}}}
steps:
  - id: s
    for_each: inputs
    agent: a
    prompt: "{{{{ item.text }}}} {{{{ item.q }}}}"
    {more}
"""
FILLER = "Nothing of note happens in this sentence. "
ROW = {
    "text": "\n\n".join("The password is heliotrope." if n == 20 else FILLER * 4 for n in range(40)),
    "q": "What is the password?",
}
ENV = {"GX_MEMORY_MODEL": "none"}


def recipe(more: str = "", most: int = 40) -> str:
    return RECIPE.format(more=more, most=most)


def test_a_long_input_is_answered_from_what_is_nearest_and_everybody_is_told(folder: Project, tiny: Path) -> None:
    folder.write(recipe(), tiny)
    stdin = (json.dumps(ROW) + "\n" + json.dumps({"text": "short", "q": "?"}) + "\n").encode()
    done = folder.run("run", "recipe.yaml", "-i", "-", stdin=stdin, **ENV)
    assert done.status == 0 and [record["status"] for record in done.records] == ["succeeded"] * 2, done.err
    assert done.err.count("step s: prompts longer than the context of 400 tokens") == 1, done.err
    assert done.err.count("step s: 1 prompt was longer than the context: ") == 1, done.err
    assert "by words only" in done.err

    (row,) = folder.ask_live(
        "select task, data->'$.shortened' as how from events where (data->'$.shortened') is not null"
    )
    how = row["how"]
    assert how["tokens_kept"] <= 360 < how["tokens"]
    (shown,) = folder.run("show", row["task"], "--json", **ENV).records
    assert "parts of item.text went in" in shown["shortened"]
    assert "heliotrope" in shown["prompt"][-1]["content"] and "left out …]" in shown["prompt"][-1]["content"]
    assert shown["tok_in"] == how["tokens_kept"]  # the bench had what was counted
    why = folder.run("why", row["task"], "--json", **ENV).records
    assert any("longer than the context" in line["text"] for line in why[0]["lines"])


def test_a_long_input_is_refused_with_the_figures_where_the_recipe_says_so(folder: Project, tiny: Path) -> None:
    folder.write(recipe("long: refuse"), tiny)
    done = folder.run("run", "recipe.yaml", "-i", "-", stdin=(json.dumps(ROW) + "\n").encode(), **ENV)
    (record,) = done.records
    assert done.status == 3 and record["error"]["code"] == "context", done.err
    assert "more than the context of 400 tokens" in record["error"]["message"]


def test_a_dialogue_loses_its_oldest_turns_and_the_answer_comes(folder: Project, tiny: Path) -> None:
    text = recipe().replace('    prompt: "{{ item.text }} {{ item.q }}"\n', "")
    folder.write(text, tiny)
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": f"{n}: {FILLER * 4}"} for n in range(15)]
    line = {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": messages}}
    done = folder.run("run", "recipe.yaml", "-i", "-", stdin=(json.dumps(line) + "\n").encode(), **ENV)
    assert done.status == 0, done.err
    assert "lose the oldest turns of the dialogue" in done.err and "of their 15 messages were left out" in done.err


def test_a_node_that_is_killed_meanwhile_leaves_the_same_prompt_to_the_next(folder: Project, tiny: Path) -> None:
    folder.write(recipe(most=199), tiny)
    (folder.folder / "rows.jsonl").write_text("".join(json.dumps(ROW | {"id": str(n)}) + "\n" for n in range(4)))
    running = folder.start(**ENV)
    first = running.record()
    folder.kill_node()
    done = running.end()
    assert done.status == 0 and len(done.records) == 4 and first["status"] == "succeeded", done.err
    folder.rest()
    found = folder.ask("select task, key, data->>'$.shortened' from events where type = 'task.prepared'")
    assert all(how for *_, how in found)
    for task in {task for task, *_ in found}:
        assert len({(key, how) for name, key, how in found if name == task}) == 1
