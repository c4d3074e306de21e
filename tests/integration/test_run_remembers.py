"""A run that searches and remembers, from a shell: what was found is cited, and the next run knows of this one."""

from __future__ import annotations

from pathlib import Path

from tests.integration.project import Project

ENV = {"GX_MEMORY_MODEL": "none"}
RECIPE = """\
version: 1
name: keeper
models: {m: ./model.gguf}
agents:
  a:
    model: m
    sampling: {max_tokens: 60}
    memory: {namespace: docs, k: 3, query: "{{ item.text }}"}
    output:
      type: object
      required: [sources]
      properties: {sources: {type: array, minItems: 1, maxItems: 2, items: {x-from: memories.file}}}
steps:
  - id: s
    for_each: inputs
    agent: a
    prompt: "{{ item.text }}"
    remember: {namespace: docs, text: "{{ item.text }}: see {{ output.sources[0] }}"}
"""


def test_what_was_found_is_cited_shown_and_told_and_what_was_remembered_is_found_by_the_next_run(
    folder: Project, tiny: Path
) -> None:
    folder.write(RECIPE, tiny)
    (folder.folder / "keys.md").write_text("The keys are under the mat.\n")
    (folder.folder / "tea.md").write_text("Tea is at five.\n")
    added = folder.run("memory", "add", "keys.md", "tea.md", "-n", "docs", **ENV)
    assert added.status == 0, added.err

    done = folder.run("run", "recipe.yaml", "-i", "-", stdin=b'{"text": "keys mat"}\n', **ENV)
    assert done.status == 0 and done.err.count("by words only") == 1, done.err
    (record,) = done.records
    assert set(record["output"]["sources"]) == {"keys.md"}  # an enum of what was found for this very row

    rows = folder.run("sql", "select task, rank, path, label from recalled", **ENV).records
    keys = str(folder.folder / "keys.md")
    assert [(row["rank"], row["path"], row["label"]) for row in rows] == [(1, keys, "private")]
    (shown,) = folder.run("show", rows[0]["task"], "--json", **ENV).records
    assert [(one["id"], one["text"], one["source"]) for one in shown["memories"]] == [
        ("m1", "The keys are under the mat.", "keys.md")
    ]
    assert shown["label"] == "private" and "by words only" in shown["searched_without"][0]
    why = folder.run("why", rows[0]["task"], "--json", **ENV).records
    assert any("1 memory found" in line["text"] for line in why[0]["lines"])

    again = folder.run("run", "recipe.yaml", "-i", "-", stdin=b'{"text": "keys and tea"}\n', **ENV)
    assert again.status == 0, again.err
    newest = "select path, author from recalled where run = (select run from runs order by started desc limit 1)"
    found = folder.run("sql", newest + " order by rank", **ENV).records
    assert len(found) == 3 and "keeper/s" in {one["author"] for one in found}
    kept = folder.run("memory", "ls", "-n", "docs", "--kind", "fact", "--json", **ENV).records
    assert {one["body"]: one["label"] for one in kept}["keys mat: see keys.md"] == "private"

    said = "SELECT count(*) FROM contents WHERE contains(decode(bytes), 'under the mat')"
    forgot = folder.run("memory", "rm", "--source", "keys.md", "--yes", **ENV)
    told = [line.partition("gx erase ")[2] for line in forgot.err.splitlines() if "gx erase " in line]
    assert "runs were given some of it" in forgot.err and len(told) == 2, forgot.err
    folder.rest()
    assert folder.ask(said) != [(0,)]  # the prompts of both runs, as was told
    for name in told:
        assert folder.run("erase", name, "--yes", **ENV).status == 0
    assert folder.ask(said) == [(0,)]


KEEPER = """\
version: 1
name: keeper
models: {m: ./model.gguf}
agents:
  a: {model: m, persona: You answer., sampling: {temperature: 1, max_tokens: 60}}
steps:
  - id: s
    for_each: inputs
    agent: a
    prompt: "{{ item.text }}"
    memory: {namespace: made, live: true, k: 1}
    remember: {namespace: made, kind: episode, text: "{{ id }}: {{ output }}"}
"""


def test_a_node_that_is_killed_twice_leaves_one_memory_of_each_result(folder: Project, tiny: Path) -> None:
    folder.write(KEEPER, tiny)
    running = folder.start("run", "recipe.yaml", "-i", "rows.jsonl", **ENV)
    for _ in range(2):
        running.record()
        running.record()
        folder.kill_node()
    done = running.end()
    assert done.status == 0, done.err
    folder.rest()
    kept = folder.run("memory", "export", "-n", "made", **ENV).records
    ended = folder.ask("SELECT task FROM events WHERE type = 'task.succeeded'")
    assert sorted(one["source"]["task"] for one in kept) == sorted(task for (task,) in ended)
    assert len(kept) == 20 and {one["label"] for one in kept} == {"shared"}
    folder.assert_nothing_was_computed_twice()
