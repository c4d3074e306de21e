"""Kill -9 while documents are added and searched: the memory is what the log says, and as if nobody had been killed.

A trial is a folder of documents that is added while the node or the client is killed at random moments, while somebody
searches, and while documents change and go away between two rounds. A client that was killed is started again. At the
end the memory is compared with the log, with the same folder added to a fresh workspace without a kill, and with what
`gx memory rebuild` makes of it. Everything random follows from the seed, the moments from the machine.

`python -m tests.soak.memory --kills 12` prints what it saw, and exits 1 at the first promise that was broken.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests import nodes
from tests.integration.project import Done, Project, Running
from tests.tiny_bert import write_tiny_bert

WORDS = (
    "tide", "gate", "keeper", "milk", "rope", "lamp", "storm", "ferry", "wool", "anchor", "bread", "path", "stone",
    "gull", "tower", "net", "salt", "bell",
)  # fmt: skip
MOST_WAIT_S = 1.5
KILLED = -signal.SIGKILL
QUESTION = ("memory", "search", "who keeps the lamp in a storm?", "-k", "20", "--json")


def folder_of(folder: Path, count: int, chance: random.Random, *, most_lines: int = 40, first: int = 0) -> Path:
    """A folder of so many documents of several formats, the same for the same chance."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        write_document(folder, number, chance, most_lines=most_lines)
    return folder


def write_document(folder: Path, number: int, chance: random.Random, *, most_lines: int = 40) -> None:
    """Write, or write anew, the document of that number."""
    lines = [" ".join(chance.choices(WORDS, k=12)).capitalize() + "." for _ in range(chance.randint(2, most_lines))]
    kind = ("md", "txt", "html", "csv", "jsonl")[number % 5]
    text = {
        "md": f"# Note {number}\n\n" + "\n\n".join(lines),
        "txt": "\n".join(lines),
        "html": f"<h1>Page {number}</h1>" + "".join(f"<p>{line}</p>" for line in lines),
        "csv": "number,says\n" + "".join(f"{n},{line}\n" for n, line in enumerate(lines)),
        "jsonl": "".join(json.dumps({"n": n, "says": line}) + "\n" for n, line in enumerate(lines)),
    }[kind]
    (folder / f"document-{number:04}.{kind}").write_text(text)


def soak(folder: Path, model: str, *, kills: int, documents: int, chance: random.Random) -> dict[str, int]:
    """Run one trial in an empty folder; what it saw. :raises AssertionError: naming the promise that was broken."""
    env = {"GX_MEMORY_MODEL": model}
    notes = folder_of(folder / "notes", documents, chance)
    project = Project(folder)
    seen = {"kills": 0, "nodes": 0, "clients": 0, "searches": 0, "rounds": 0, "documents": 0}
    try:
        while seen["kills"] < kills or seen["rounds"] == 0:
            _round(project, env, chance, seen, kills)
            _change(notes, documents, chance)
        done = project.run("memory", "add", "notes", "--json", **env)
        assert done.status == 0, done.err
        seen["documents"] = _check(project, folder, env)
    finally:
        project.close()
    return seen


def _round(project: Project, env: dict[str, str], chance: random.Random, seen: dict[str, int], kills: int) -> None:
    """Add the folder, whoever is killed meanwhile."""
    seen["rounds"] += 1
    adding = project.start("memory", "add", "notes", "--json", **env)
    while adding.process.poll() is None and seen["kills"] < kills:
        time.sleep(chance.random() * MOST_WAIT_S)  # a random moment of what goes on
        if adding.process.poll() is not None:
            break
        pid = _node_of(project, adding) if seen["nodes"] <= seen["clients"] else None
        if adding.process.poll() is not None:
            break
        if pid is None:
            adding.process.kill()
            adding.process.wait()
            seen["clients"] += 1
        else:
            nodes.kill(pid)
            seen["nodes"] += 1
        seen["kills"] += 1
        if chance.random() < 0.5:
            _search(project, env, seen)
        if adding.process.poll() is not None:
            adding = project.start("memory", "add", "notes", "--json", **env)
    done = adding.end(120)
    while done.status == KILLED:
        done = project.run("memory", "add", "notes", "--json", **env)
    assert done.status == 0, done.err
    _search(project, env, seen)


def _node_of(project: Project, adding: Running) -> int | None:
    """The node, once it is up; `None` if the command ends before."""
    nodes.until(lambda: adding.process.poll() is not None or project.node is not None)
    return project.node


def _search(project: Project, env: dict[str, str], seen: dict[str, int]) -> None:
    done = project.run(*QUESTION, **env)
    assert done.status == 0 or "nothing is remembered" in done.err, done.err
    uids = [one["uid"] for one in done.records]
    assert len(uids) == len(set(uids)), "a memory was found twice"
    seen["searches"] += 1


def _change(notes: Path, documents: int, chance: random.Random) -> None:
    """Some documents are written anew, some go, and some that were gone are back."""
    for number in chance.sample(range(documents), max(1, documents // 10)):
        write_document(notes, number, chance)
    there = sorted(notes.iterdir())
    for path in chance.sample(there, len(there) // 20):
        path.unlink()


def _check(project: Project, folder: Path, env: dict[str, str]) -> int:
    """The number of documents. :raises AssertionError: if memory, log, folder and a rebuild don't agree."""
    exported = project.run("memory", "export", **env).records
    answer = _answer(project.run(*QUESTION, **env))
    assert len(answer) == 20, "the search found too little"
    assert project.run("memory", "rebuild", **env).status == 0
    assert project.run("memory", "export", **env).records == exported, "a rebuild has other rows"
    assert _answer(project.run(*QUESTION, **env)) == answer, "a rebuild answers otherwise"
    (stats,) = project.run("memory", "stats", "--json", **env).records
    assert stats["vectors"] == stats["memories"] == len(exported), stats
    other = str(folder / "other")
    assert project.run("memory", "add", "notes", "--workspace", other, **env).status == 0
    fresh = project.run("memory", "export", "--workspace", other, **env).records
    nodes.end_nodes(folder / "other")
    assert _parts(fresh) == _parts(exported), "without a kill there would be other parts"
    project.rest()
    told = project.ask("SELECT uid, body FROM memories")
    assert sorted(told) == sorted((one["uid"], one["body"]) for one in exported), "memory and log don't agree"
    assert len({uid for uid, _ in told}) == len(told), "something is there twice"
    again = """SELECT uid FROM (SELECT unnest(data->'$.memories[*]')->>'$.uid' AS uid, 1 AS n FROM events
        WHERE type = 'memory.written' UNION ALL SELECT unnest(data->>'$.uids[*]'), -1 FROM events
        WHERE type = 'memory.forgotten') GROUP BY uid HAVING sum(n) NOT IN (0, 1)"""
    assert not [uid for (uid,) in project.ask(again) if uid not in {one["uid"] for one in exported}]
    project.assert_nothing_was_computed_twice()
    return len({one["source"]["path"] for one in exported})


def _answer(done: Done) -> list[tuple[str, float]]:
    assert done.status == 0, done.err
    return [(one["uid"], one["score"]) for one in done.records]


def _parts(records: list[dict[str, Any]]) -> list[tuple[str, int, str, str]]:
    found = [(one["source"]["path"], one["source"]["ordinal"], one["source"]["sha256"], one["body"]) for one in records]
    return sorted(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--documents", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gx-soak-") as place:
        folder = Path(place)
        bert = write_tiny_bert(folder / "bert.gguf")
        try:
            seen = soak(
                folder, str(bert), kills=options.kills, documents=options.documents, chance=random.Random(options.seed)
            )
        except AssertionError as error:
            print(f"BROKEN: {error}")
            return 1
    print(", ".join(f"{count} {name}" for name, count in seen.items()) + ": all promises held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
