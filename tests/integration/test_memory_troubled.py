"""`gx memory` when two do it at once, when it is interrupted, and when what it is given, or the disk, is broken."""

from __future__ import annotations

import json
import resource
import signal
from functools import partial
from pathlib import Path

import pytest

from tests import nodes
from tests.integration.project import Project
from tests.tiny_bert import write_tiny_bert

BY_WORDS = {"GX_MEMORY_MODEL": "none"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {"GX_MEMORY_MODEL": str(write_tiny_bert(tmp_path_factory.mktemp("bert") / "bert.gguf"))}


def notes_of(folder: Path, count: int) -> Path:
    place = folder / "notes"
    place.mkdir()
    for number in range(count):
        (place / f"{number}.md").write_text(f"# Note {number}\n\nThe keeper of gate {number} likes tea.\n")
    return place


def export(project: Project) -> list[dict[str, object]]:
    done = project.run("memory", "export", **BY_WORDS)
    assert done.status == 0, done.err
    return done.records


def test_two_who_add_one_folder_at_once_have_it_there_once(folder: Project) -> None:
    notes_of(folder.folder, 40)
    both = [folder.start("memory", "add", "notes", "--json", **BY_WORDS) for _ in range(2)]
    for done in [one.end() for one in both]:
        assert done.status == 0, done.err
    bodies = [str(one["body"]) for one in export(folder)]
    assert len(bodies) == len(set(bodies)) == 40
    assert "40 as they were" in folder.run("memory", "add", "notes", **BY_WORDS).err


@pytest.mark.parametrize(
    "end", [b'{"body": "cut o', b'{"body": "b", "at": "noon"}\n', b'{"body": "b", "namespace": "a b"}\n']
)
def test_an_export_that_was_cut_or_edited_is_told_by_its_line_and_nothing_of_it_is_imported(
    folder: Project, end: bytes
) -> None:
    whole = "".join(json.dumps({"body": f"memory {n}"}) + "\n" for n in range(1200)).encode()
    done = folder.run("memory", "import", "-", stdin=whole + end, **BY_WORDS)
    assert done.status == 2 and "stdin:1201: " in done.err, done.err
    done = folder.run("memory", "stats", **BY_WORDS)
    assert done.status == 1 and "nothing is remembered" in done.err


def test_reembedding_is_gone_on_with_whoever_was_killed(folder: Project, bert: dict[str, str]) -> None:
    lines = "".join(json.dumps({"body": f"memory {n} of the keeper"}) + "\n" for n in range(600)).encode()
    assert folder.run("memory", "add", "-", "--lines", stdin=lines, **bert).status == 0
    going = folder.start("memory", "reembed", **bert)
    chosen = "SELECT count(*) AS times FROM events WHERE type = 'memory.modelled'"
    assert nodes.until(lambda: folder.ask_live(chosen)[0]["times"] == 2)
    going.process.send_signal(signal.SIGINT)
    assert going.end().status in (0, 130)
    assert nodes.until(lambda: folder.node is None), "the node of the first one stays"
    going = folder.start("memory", "reembed", **bert)
    node = nodes.until(lambda: folder.node)
    assert node is not None and nodes.until(lambda: nodes.benches_of(node)), "nothing is embedded on it"
    assert going.process.poll() is None
    nodes.kill(node)
    assert going.end().status == 0
    (stats,) = folder.run("memory", "reembed", "--json", **bert).records
    assert stats["memories"] == stats["vectors"] == 600


def test_a_file_that_can_not_grow_is_told_and_what_was_written_stays(folder: Project) -> None:
    notes_of(folder.folder, 150)
    for number in range(150):
        (folder.folder / "notes" / f"{number}.md").write_text(f"note {number} " + " ".join(map(str, range(4000))))
    limit = 4 << 20
    smaller = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))  # of the node, too
    done = folder.start("memory", "add", "notes", "--json", preexec=smaller, **BY_WORDS).end()
    assert done.status == 1 and "error: " in done.err and "Traceback" not in done.err, done.err
    assert "the same command goes on with the rest" in done.err
    assert nodes.until(lambda: folder.node is None), "the node whose files can't grow stays"
    again = folder.run("memory", "add", "notes", "--json", **BY_WORDS)
    assert again.status == 0, again.err
    assert not {one["path"] for one in done.records} & {one["path"] for one in again.records}
    assert len({str(dict(one["source"])["path"]) for one in export(folder)}) == 150  # type: ignore[call-overload]


def test_a_run_that_was_given_what_is_forgotten_is_named_also_while_another_one_is_live(
    folder: Project, long: Path
) -> None:
    recipe = """\
version: 1
name: asks
models: {m: ./model.gguf}
agents: {a: {model: m, sampling: {temperature: 0, max_tokens: TOKENS}}}
steps: [{id: s, for_each: inputs, agent: a, memory: {k: 1, query: lamp}, prompt: "{{ item.text }}"}]
"""
    (uid,) = [one["uid"] for one in folder.run("memory", "add", "the lamp is green", "--json", **BY_WORDS).records]
    folder.write(recipe.replace("TOKENS", "4"), long, rows=1)
    assert folder.run("run", "recipe.yaml", "-i", "rows.jsonl", **BY_WORDS).status == 0
    (folder.folder / "recipe.yaml").write_text(recipe.replace("TOKENS", "30000"))
    going = folder.start("run", "recipe.yaml", "-i", "rows.jsonl", "--detach", **BY_WORDS).process
    assert going.communicate(timeout=180) and going.returncode == 0
    done = folder.run("memory", "rm", str(uid), "--yes", **BY_WORDS)
    assert done.status == 0 and "until its node ends" in done.err and "  gx erase asks-" in done.err, done.err
