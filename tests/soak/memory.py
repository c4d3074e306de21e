"""Kill -9 while documents are added, runs remember and somebody searches: memory and log agree, as if there was none.

A trial is a folder of documents that is added, beside a run that searches what runs before it remembered and remembers
its own results, while the node or one of the clients is killed at random moments, while somebody searches, and while
documents change and go away between two rounds. A client that was killed is started again. At the end the memory is
compared with the log, with the results of the runs, with the same folder added to a fresh workspace without a kill, and
with what `gx memory rebuild` makes of it. Everything random follows from the seed, the moments from the machine.

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
from tests.tiny_model import write_tiny_model

WORDS = (
    "tide", "gate", "keeper", "milk", "rope", "lamp", "storm", "ferry", "wool", "anchor", "bread", "path", "stone",
    "gull", "tower", "net", "salt", "bell",
)  # fmt: skip
MOST_WAIT_S = 1.5
KILLED = -signal.SIGKILL
QUESTION = ("memory", "search", "who keeps the lamp in a storm?", "-k", "20", "-n", "default", "--json")
ADD = ("memory", "add", "notes", "--json")
RUN = ("run", "recipe.yaml", "-i", "rows.jsonl", "--json")
ROWS = 6
KEEPER = """\
version: 1
name: keeper
models: {m: ./model.gguf}
agents:
  a: {model: m, persona: You answer., sampling: {temperature: 1, max_tokens: 40}}
steps:
  - id: s
    for_each: inputs
    agent: a
    prompt: "{{ item.text }}"
    memory: {namespace: made, live: true, k: 1}
    remember: {namespace: made, kind: episode, text: "{{ id }}: {{ output }}"}
"""


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


def soak(
    folder: Path,
    model: str,
    answering: Path,
    *,
    kills: int,
    documents: int,
    chance: random.Random,
    most_lines: int = 40,
) -> dict[str, int]:
    """Run one trial in an empty folder; what it saw. :raises AssertionError: naming the promise that was broken."""
    env = {"GX_MEMORY_MODEL": model}
    notes = folder_of(folder / "notes", documents, chance, most_lines=most_lines)
    project = Project(folder).write(KEEPER, answering, rows=ROWS)
    names = ("kills", "nodes", "clients", "while a run remembered", "searches", "rounds", "documents", "remembered")
    seen = dict.fromkeys(names, 0)
    try:
        while seen["kills"] < kills or seen["rounds"] == 0:
            _round(project, env, chance, seen, kills)
            _change(notes, documents, chance, most_lines)
        done = project.run(*ADD, **env)
        assert done.status == 0, done.err
        seen["documents"], seen["remembered"] = _check(project, folder, env)
    finally:
        project.close()
    return seen


def _round(project: Project, env: dict[str, str], chance: random.Random, seen: dict[str, int], kills: int) -> None:
    """Add the folder while a run remembers, whoever is killed meanwhile."""
    seen["rounds"] += 1
    going = {command: project.start(*command, **env) for command in (ADD, RUN)}
    while seen["kills"] < kills and (left := [one for one in going.values() if one.process.poll() is None]):
        time.sleep(chance.random() * MOST_WAIT_S)  # a random moment of what goes on
        is_remembering = going[RUN].process.poll() is None
        if not _kill(project, chance.choice(left), seen):
            continue
        seen["while a run remembered"] += is_remembering
        if chance.random() < 0.5:
            _search(project, env, seen)
        for command, one in going.items():
            if one.process.poll() == KILLED:
                going[command] = project.start(*command, **env)
    for command, one in going.items():
        done = one.end(120)
        while done.status == KILLED:
            done = project.run(*command, **env)
        assert done.status == 0, done.err
    _search(project, env, seen)


def _kill(project: Project, client: Running, seen: dict[str, int]) -> bool:
    """Kill the node or that client, by turns. Whether it was still there."""
    pid = _node_of(project, client) if seen["nodes"] <= seen["clients"] else None
    if client.process.poll() is not None:
        return False
    if pid is None:
        client.process.kill()
        client.process.wait()
        seen["clients"] += 1
    else:
        nodes.kill(pid)
        seen["nodes"] += 1
    seen["kills"] += 1
    return True


def _node_of(project: Project, client: Running) -> int | None:
    """The node, once it is up; `None` if the command ends before."""
    nodes.until(lambda: client.process.poll() is not None or project.node is not None)
    return project.node


def _search(project: Project, env: dict[str, str], seen: dict[str, int]) -> None:
    done = project.run(*QUESTION, **env)
    assert done.status == 0 or "nothing is remembered" in done.err, done.err
    uids = [one["uid"] for one in done.records]
    assert len(uids) == len(set(uids)), "a memory was found twice"
    seen["searches"] += 1


def _change(notes: Path, documents: int, chance: random.Random, most_lines: int) -> None:
    """Some documents are written anew, some go, and some that were gone are back."""
    for number in chance.sample(range(documents), max(1, documents // 10)):
        write_document(notes, number, chance, most_lines=most_lines)
    there = sorted(notes.iterdir())
    for path in chance.sample(there, len(there) // 20):
        path.unlink()


def _check(project: Project, folder: Path, env: dict[str, str]) -> tuple[int, int]:
    """The numbers of documents, and of results that are remembered.

    :raises AssertionError: if memory, log, folder, runs and a rebuild don't agree.
    """
    exported = project.run("memory", "export", **env).records
    answer = _answer(project.run(*QUESTION, **env))
    assert len(answer) == 20, "the search found too little"
    assert project.run("memory", "rebuild", **env).status == 0
    assert project.run("memory", "export", **env).records == exported, "a rebuild has other rows"
    assert _answer(project.run(*QUESTION, **env)) == answer, "a rebuild answers otherwise"
    stats = project.run("memory", "stats", "--json", **env).records
    assert {one["namespace"] for one in stats} == {"default", "made"}
    assert sum(one["vectors"] for one in stats) == sum(one["memories"] for one in stats) == len(exported), stats
    other = str(folder / "other")
    assert project.run("memory", "add", "notes", "--workspace", other, **env).status == 0
    fresh = project.run("memory", "export", "--workspace", other, **env).records
    nodes.end_nodes(folder / "other")
    added = [one for one in exported if one["namespace"] == "default"]
    assert _parts(fresh) == _parts(added), "without a kill there would be other parts"
    project.rest()
    told = project.ask("SELECT uid, body FROM memories")
    assert sorted(told) == sorted((one["uid"], one["body"]) for one in exported), "memory and log don't agree"
    assert len({uid for uid, _ in told}) == len(told), "something is there twice"
    again = """SELECT uid FROM (SELECT unnest(data->'$.memories[*]')->>'$.uid' AS uid, 1 AS n FROM events
        WHERE type = 'memory.written' UNION ALL SELECT unnest(data->>'$.uids[*]'), -1 FROM events
        WHERE type = 'memory.forgotten') GROUP BY uid HAVING sum(n) NOT IN (0, 1)"""
    assert not [uid for (uid,) in project.ask(again) if uid not in {one["uid"] for one in exported}]
    made = sorted(one["source"]["task"] for one in exported if one["namespace"] == "made")
    ended = sorted(task for (task,) in project.ask("SELECT task FROM events WHERE type = 'task.succeeded'"))
    assert made == ended, "results and what is remembered of them don't agree"
    assert len(set(made)) == len(made) >= ROWS, "a result is remembered twice, or not at all"
    project.assert_nothing_was_computed_twice()
    return len({one["source"]["path"] for one in added}), len(made)


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
        bert, tiny = write_tiny_bert(folder / "bert.gguf"), write_tiny_model(folder / "tiny.gguf")
        chance = random.Random(options.seed)
        try:
            seen = soak(folder, str(bert), tiny, kills=options.kills, documents=options.documents, chance=chance)
        except AssertionError as error:
            print(f"BROKEN: {error}")
            return 1
    print(", ".join(f"{count} {name}" for name, count in seen.items()) + ": all promises held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
