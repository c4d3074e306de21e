"""What remembering costs: searching and adding beside chromadb and lancedb, reading documents, and many clients.

`python -m tests.bench.memory` takes some minutes and prints each claim of README.md on the memory and its figure;
`--only stores|documents|clients` one part of it. The stores have the same vectors and texts, each in a process of its
own, and are asked in turn. lancedb is asked for both halves as gx is, chromadb for vectors, having no ranking of words.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.memoryplayer import NAMESPACES, K
from tests.bench.peers import environment, verdict
from tests.integration.project import Project
from tests.soak.memory import folder_of

DIMENSIONS, VOCABULARY, WORDS_A_TEXT = 384, 20_000, 60
FREQUENT = 30
"""Words that stand in nearly every text, which no question is made of, as nobody's search is of "the"."""
PEERS = {"chromadb": "chromadb==1.5.9", "lancedb": "lancedb==0.40.0"}
ADDED, ADDED_AT_ONCE = 10_000, 2_500
LINES = 6
"""Of a document at most: short ones, where what is done around the engine counts most."""
CENTRES, SPREAD = 2_000, 0.6
"""Vectors of texts lie in clusters; without them no index of neighbours has a chance."""


class Player:
    """A store in a process of its own."""

    def __init__(self, name: str, folder: Path, *, namespaces: int = NAMESPACES) -> None:
        self.name, place = name, folder / name
        self.worked_ms = 0.0  # of the processor, by the last answer
        place.mkdir()
        for file in ("vectors.npy", "bodies.jsonl"):
            (place / file).symlink_to(folder / file)
        if name == "gx":
            command = [sys.executable, "-m", "tests.bench.memoryplayer", name, str(place)]
        else:
            python = environment(PEERS[name], "numpy==2.4.6")
            command = [str(python), "-P", str(Path(__file__).with_name("memoryplayer.py")), name, str(place)]
        self._process = subprocess.Popen(
            command,
            env=os.environ | {"GX_BENCH_NAMESPACES": str(namespaces)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, do: str, **more: Any) -> tuple[float, Any]:
        """Milliseconds, and the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        self.worked_ms = told["worked_ms"]
        return told["ms"], told["answer"]

    def end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


def stores(count: int, questions: int) -> int:
    """100,000 memories in 20 namespaces: hybrid searches in one of them, and 10,000 more with their vectors."""
    chance = np.random.default_rng(7)
    with tempfile.TemporaryDirectory(prefix="gx-bench-") as place:
        folder = Path(place)
        vectors, tokens = texts_of(folder, count + ADDED, chance)
        players = [Player(name, folder) for name in ("gx", *PEERS)]
        adding_ms: dict[str, float] = dict.fromkeys((one.name for one in players), 0.0)
        for player in players:
            ms, _ = player.ask("add", start=0, stop=count)
            ms += player.ask("index")[0]
            print(f"{player.name:9} {count:,} loaded in {ms / 1000:.1f} s", flush=True)
        asked = [question_of(vectors, tokens, n, NAMESPACES, chance) for n in chance.integers(count, size=questions)]
        times: dict[str, list[float]] = {one.name: [] for one in players}
        recall: dict[str, list[float]] = {one.name: [] for one in players}
        for number, one in enumerate(asked):
            exact = _nearest(vectors[:count], one)
            for player in players[number % 3 :] + players[: number % 3]:
                _, found = player.ask("nearest", **one)
                recall[player.name].append(len(exact & set(found)) / K)
                ms, _ = player.ask("search", **one)
                times[player.name].append(ms)
        for start in range(count, count + ADDED, ADDED_AT_ONCE):
            for player in players:
                adding_ms[player.name] += player.ask("add", start=start, stop=start + ADDED_AT_ONCE)[0]
        for player in players:
            player.end()
    p50, p95 = ({name: float(np.percentile(ms, q)) for name, ms in times.items()} for q in (50, 95))
    for name in times:
        told = f"recall@10 {np.mean(recall[name]):.3f}, {ADDED:,} added in {adding_ms[name] / 1000:.2f} s"
        print(f"{name:9} search p50 {p50[name]:7.2f} ms, p95 {p95[name]:7.2f} ms, {told}")
    claims = [
        (f"search {what}: gx's share of {peer}'s", ours["gx"] / ours[peer], 1.0, False)
        for peer in PEERS
        for what, ours in (("p50", p50), ("p95", p95))
    ]
    claims += [(f"adding: times as fast as {peer}", adding_ms[peer] / adding_ms["gx"], 2.0, True) for peer in PEERS]
    return verdict(*claims)


def documents(count: int) -> int:
    """A folder of mixed documents, beside what the engine makes of the same parts when they are given to it at once."""
    with tempfile.TemporaryDirectory(prefix="gx-bench-") as place:
        folder = Path(place)
        project = _project(folder)
        try:
            project.run("memory", "add", "warm up")  # the model is loaded in both measurements
            folder_of(folder / "notes", count, random.Random(0), most_lines=LINES)
            begun_s = time.perf_counter()
            done = project.start("memory", "add", "notes", "--json").end(300)
            adding_s = time.perf_counter() - begun_s
            assert done.status == 0, done.err
            texts = list(_embeddedtexts_of(project).values())
            engine_s = _engine_s(project, texts)
        finally:
            project.close()
    print(f"{count:,} documents, {len(texts):,} parts: {adding_s:.1f} s; the engine alone {engine_s:.1f} s")
    return verdict(("documents: share of the engine's own rate", engine_s / adding_s, 0.85, True))


def clients(searches: int) -> int:
    """Four clients that search while two others write, beside the same four when nobody does."""
    with tempfile.TemporaryDirectory(prefix="gx-bench-") as place:
        folder = Path(place)
        project = _project(folder)
        try:
            folder_of(folder / "notes", 200, random.Random(11))
            assert project.start("memory", "add", "notes").end(300).status == 0
            quiet, _ = _searched(project, searches)
            is_over = threading.Event()
            writers = [threading.Thread(target=_write, args=(project, n, is_over)) for n in range(2)]
            for writer in writers:
                writer.start()
            busy, errors = _searched(project, searches)
            is_over.set()
            for writer in writers:
                writer.join()
        finally:
            project.close()
    p95s = [float(np.percentile(times, 95)) * 1000 for times in (quiet, busy)]
    print(f"four clients: p95 {p95s[0]:.1f} ms in quiet, {p95s[1]:.1f} ms beside two writers, {len(errors)} errors")
    for error in errors[:3]:
        print(f"  {error}")
    return verdict(
        ("four clients: p95 beside two writers, times quiet", p95s[1] / p95s[0], 2.0, False),
        ("four clients: errors", float(len(errors)), 0.0, False),
    )


# ── within ───────────────────────────────────────────────────────────────────────────────────────────────────────


def texts_of(folder: Path, count: int, chance: np.random.Generator) -> tuple[Any, Any]:
    """Vectors in clusters, [count, 384] float32 of norm 1, and texts of Zipf's words; as files for the players."""
    centres = _unit(chance.standard_normal((CENTRES, DIMENSIONS)))
    near = SPREAD * _unit(chance.standard_normal((count, DIMENSIONS)))
    vectors = _unit(centres[chance.integers(CENTRES, size=count)] + near).astype(np.float32)
    np.save(folder / "vectors.npy", vectors)
    shares = 1.0 / np.arange(1, VOCABULARY + 1)
    tokens = chance.choice(VOCABULARY, (count, WORDS_A_TEXT), p=shares / shares.sum())
    with (folder / "bodies.jsonl").open("w") as file:
        for row in tokens:
            file.write(json.dumps(" ".join(f"w{token}" for token in row)) + "\n")
    return vectors, tokens


def question_of(vectors: Any, tokens: Any, n: int, namespaces: int, chance: np.random.Generator) -> dict[str, Any]:
    """A question whose answer is the memory `n`, or one near it: some of its words, and a vector close to its own."""
    vector = vectors[n] + 0.3 * _unit(chance.standard_normal(DIMENSIONS))
    text = " ".join(f"w{token}" for token in [one for one in tokens[n] if one >= FREQUENT][:6])
    return {"text": text, "vector": _unit(vector).tolist(), "space": f"n{n % namespaces}"}


def _unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _nearest(vectors: Any, asked: dict[str, Any]) -> set[int]:
    first = int(asked["space"][1:])
    scores = vectors[first::NAMESPACES] @ np.asarray(asked["vector"], np.float32)
    return {int(n) * NAMESPACES + first for n in np.argpartition(-scores, K)[:K]}


def _project(folder: Path) -> Project:
    """A folder whose node stays for as long as is measured, and embeds by minilm."""
    from gx import settings

    project = Project(folder)
    project.env |= {"GX_NODE_LINGER_S": "60", "GX_THREADS": "2", "GX_MEMORY_MODEL": "minilm"}
    project.env["GX_MODELS_DIR"] = str(settings.load().models_dir)
    return project


def _embeddedtexts_of(project: Project) -> dict[str, str]:
    """What was embedded for each part of a document, by its uid."""
    records = project.run("memory", "export").records
    chunks = [one for one in records if one["kind"] == "chunk"]
    return {one["uid"]: f"{one['source']['heading']}\n{one['body']}" for one in chunks}


def _engine_s(project: Project, texts: list[str]) -> float:
    """Seconds that a bench of its own takes for the texts, in the requests that the node would make."""
    import anyio

    from edge.worker import EdgeWorker
    from gx import settings, wiring
    from gx.node.memoryvectors import AT_ONCE, BATCH

    model = wiring.embedding_model("minilm", settings.load(), project.folder)
    assert model is not None

    async def measure() -> float:
        async with EdgeWorker(epoch=1, threads=2) as worker:
            worker.register(model.digest, str(model.model.path))
            await worker.embed(model.digest, ["warm up"])
            parts = [texts[n : n + BATCH] for n in range(0, len(texts), BATCH)]
            limiter = anyio.Semaphore(AT_ONCE)

            async def embed(part: list[str]) -> None:
                async with limiter:
                    await worker.embed(model.digest, part)

            begun_s = time.perf_counter()
            async with anyio.create_task_group() as group:
                for part in parts:
                    group.start_soon(embed, part)
            return time.perf_counter() - begun_s

    return anyio.run(measure)


def _searched(project: Project, searches: int) -> tuple[list[float], list[str]]:
    """Seconds of each search of four clients at a time, and what went wrong."""
    from gx.core.memory import Found, Query
    from gx.node.memoryroutes import Search
    from gx.node.start import ensure

    times: list[float] = []
    errors: list[str] = []

    def search(number: int) -> None:
        client = ensure(project.workspace)
        chance = random.Random(number)
        for _ in range(searches):
            words = " ".join(chance.sample(("tide", "gate", "keeper", "milk", "lamp", "storm", "wool"), 3))
            begun_s = time.perf_counter()
            try:
                client.ask("POST", "/v1/memory/search", Search(query=Query(text=words)), kind=Found, timeout_s=60)
            except Exception as error:
                errors.append(str(error))
            times.append(time.perf_counter() - begun_s)

    threads = [threading.Thread(target=search, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, errors


def _write(project: Project, number: int, is_over: threading.Event) -> None:
    """Write results as a run does that remembers: one at a time, each as soon as it is there."""
    from gx.core.memory import Draft, Written
    from gx.node.memoryroutes import Remember
    from gx.node.start import ensure

    client, n = ensure(project.workspace), 0
    while not is_over.is_set():
        n += 1
        body = Remember(memories=(Draft(body=f"the writer {number} found the gate {n} open in a storm"),))
        client.ask("POST", "/v1/memory", body, kind=Written, timeout_s=60)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=("stores", "documents", "clients"))
    parser.add_argument("--memories", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=150)
    parser.add_argument("--documents", type=int, default=1_000)
    parser.add_argument("--searches", type=int, default=40)
    options = parser.parse_args()
    parts = {
        "stores": lambda: stores(options.memories, options.questions),
        "documents": lambda: documents(options.documents),
        "clients": lambda: clients(options.searches),
    }
    return max([part() for name, part in parts.items() if options.only in (None, name)])


if __name__ == "__main__":
    sys.exit(main())
