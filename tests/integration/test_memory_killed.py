"""A node that is killed while it remembers: memory and log agree, nothing is there twice, and nothing is lost."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.integration.project import Project
from tests.tiny_bert import write_tiny_bert

MANY = 1500


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_bert(tmp_path_factory.mktemp("bert") / "bert.gguf"))


def lines(folder: Path) -> Path:
    file = folder / "many.jsonl"
    rows = (
        {"body": f"memory {n} about {'abcdefghij'[n % 10] * 5}", "namespace": f"n{n % 3}", "at": n} for n in range(MANY)
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_an_import_goes_on_through_any_number_of_dead_nodes(folder: Project, bert: str) -> None:
    env = {"GX_MEMORY_MODEL": bert}
    file = lines(folder.folder)
    importing = folder.start("memory", "import", str(file), **env)
    for wait_s in (0.2, 0.5, 0.9):
        folder.kill_node()
        time.sleep(wait_s)  # somewhere within what the next one does
    done = importing.end()
    assert done.status == 0, done.err
    assert len({record["uid"] for record in done.records}) == MANY
    folder.rest()
    told = folder.ask("SELECT uid, body, namespace FROM memories ORDER BY seq, uid")
    assert len(told) == len({uid for uid, *_ in told}) == MANY
    assert not folder.ask(
        "SELECT m->>'$.uid' FROM (SELECT unnest(data->'$.memories[*]') AS m FROM events WHERE type = 'memory.written')"
        " GROUP BY ALL HAVING count(*) > 1"
    )
    before = folder.run("memory", "export", **env).records
    assert sorted((one["uid"], one["body"], one["namespace"]) for one in before) == sorted(told)
    stats = folder.run("memory", "stats", "--json", **env)
    assert sum(one["vectors"] for one in stats.records) == MANY == sum(one["memories"] for one in stats.records)
    question = ("memory", "search", "memory 77 about hhhhh", "-n", "n2", "--json")
    found = folder.run(*question, **env).records
    assert folder.run("memory", "rebuild", **env).status == 0
    again = folder.run(*question, **env).records
    assert [one["uid"] for one in again] == [one["uid"] for one in found] and len(found) == 8
    assert folder.run("memory", "export", **env).records == before
    folder.rest()
    folder.assert_nothing_was_computed_twice()


def test_a_node_that_is_killed_while_it_forgets_has_forgotten_or_not(folder: Project) -> None:
    env = {"GX_MEMORY_MODEL": "none"}
    folder.run("memory", "import", str(lines(folder.folder)), **env)
    forgetting = folder.start("memory", "rm", "-n", "n1", "--yes", "--json", **env)
    folder.kill_node()
    done = forgetting.end()
    assert done.status == 0, done.err
    folder.rest()
    assert folder.ask("SELECT DISTINCT namespace FROM memories ORDER BY 1") == [("n0",), ("n2",)]
    assert folder.ask("SELECT count(*) FROM contents WHERE starts_with(decode(bytes), 'memory ')") == [(1000,)]
    left = folder.run("memory", "export", **env).records
    assert {one["namespace"] for one in left} == {"n0", "n2"} and len(left) == 1000
