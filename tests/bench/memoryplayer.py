"""One store of memories in a process of its own, for `tests.bench.memory`: gx, chromadb or lancedb, told what to do.

`python memoryplayer.py NAME FOLDER`; FOLDER holds `vectors.npy` [n, dim] float32 and `bodies.jsonl`. Memories take
turns in so many namespaces as GX_BENCH_NAMESPACES says. Requests are lines of JSON on stdin, answers on stdout. It
needs numpy and the store that it plays, and nothing of gx for the others.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

K = 10
NAMESPACES = int(os.environ.get("GX_BENCH_NAMESPACES", "20"))
TABLE = "memories"


class Gx:
    """`edge.memory` as the node uses it: what the log says is applied, then vectors are put."""

    def __init__(self, folder: Path) -> None:
        from edge.memory.store import MemoryStore
        from gx.core.memory import Chosen, Mark

        self.store, self.seq = MemoryStore(folder / "memory.db"), 1
        self.store.apply([Chosen("bench", "ab" * 32, 384)], Mark(1, b""))

    def add(self, start: int, bodies: list[str], vectors: Any) -> None:
        from gx.core.ids import digest
        from gx.core.memory import Kind, Mark, Memory, Put

        for at in range(0, len(bodies), 2000):
            self.seq += 1
            puts = []
            for n, body in enumerate(bodies[at : at + 2000], start + at):
                space = f"n{n % NAMESPACES}"
                one = Memory(uid=f"{n:016x}", namespace=space, kind=Kind.fact, body=body, at=1e9, seq=self.seq)
                puts.append(Put(one, digest(body.encode())))
            self.store.apply(puts, Mark(self.seq, b""))
        lacking = self.store.lacking(len(bodies))
        raw = [vector.tobytes() for vector in vectors]
        for at in range(0, len(lacking), 512):
            self.store.put_vectors("ab" * 32, list(zip(lacking[at : at + 512], raw[at : at + 512], strict=True)))

    def index(self) -> None:
        """Nothing is left to be done."""

    def search(self, text: str, vector: Any, space: str) -> list[int]:
        from gx.core.memory import Query

        hits = self.store.search(Query(text=text, k=K, namespace=space), ("ab" * 32, vector.tobytes()))
        return [int(hit.memory.uid, 16) for hit in hits]

    def nearest(self, vector: Any, space: str) -> list[int]:
        from gx.core.memory import Query

        hits = self.store.search(Query(text="?", k=K, namespace=space), ("ab" * 32, vector.tobytes()))
        return [int(hit.memory.uid, 16) for hit in hits]


class Chroma:
    """chromadb in its own process; it ranks by vectors alone, since it has no full-text ranking here."""

    def __init__(self, folder: Path) -> None:
        import chromadb
        from chromadb.config import Settings

        self.client = chromadb.PersistentClient(str(folder / "chroma"), settings=Settings(anonymized_telemetry=False))
        self.table = self.client.create_collection(
            TABLE, configuration={"hnsw": {"space": "cosine", "ef_search": 200}}, embedding_function=None
        )

    def add(self, start: int, bodies: list[str], vectors: Any) -> None:
        for at in range(0, len(bodies), 5000):
            numbers = range(start + at, start + min(at + 5000, len(bodies)))
            self.table.add(
                ids=[str(n) for n in numbers],
                embeddings=vectors[at : at + 5000],
                documents=bodies[at : at + 5000],
                metadatas=[{"namespace": f"n{n % NAMESPACES}"} for n in numbers],
            )

    def index(self) -> None:
        """It does so by itself."""

    def search(self, text: str, vector: Any, space: str) -> list[int]:
        found = self.table.query(
            query_embeddings=[vector], n_results=K, where={"namespace": space}, include=["documents", "distances"]
        )
        return [int(one) for one in found["ids"][0]]

    def nearest(self, vector: Any, space: str) -> list[int]:
        return self.search("", vector, space)


class Lance:
    """lancedb: a flat search of the vectors, exact, and its own full-text index, put together by its own ranker."""

    def __init__(self, folder: Path) -> None:
        import lancedb
        from lancedb.rerankers import RRFReranker

        self.db, self.ranker = lancedb.connect(str(folder / "lance")), RRFReranker()
        self.table: Any = None

    def add(self, start: int, bodies: list[str], vectors: Any) -> None:
        import pyarrow as pa

        rows = pa.table(
            {
                "id": list(range(start, start + len(bodies))),
                "namespace": [f"n{n % NAMESPACES}" for n in range(start, start + len(bodies))],
                "body": bodies,
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1]),
            }
        )
        if self.table is None:
            self.table = self.db.create_table(TABLE, rows)
        else:
            self.table.add(rows)
            self.table.optimize()  # what was added is in the index of words, too

    def index(self) -> None:
        self.table.create_fts_index("body")
        self.table.create_scalar_index("namespace", index_type="BITMAP")

    def search(self, text: str, vector: Any, space: str) -> list[int]:
        query = self.table.search(query_type="hybrid").vector(vector).text(text).distance_type("cosine")
        query = query.where(f"namespace = '{space}'", prefilter=True).rerank(self.ranker).limit(K)
        return [int(row) for row in query.to_arrow()["id"].to_pylist()]

    def nearest(self, vector: Any, space: str) -> list[int]:
        query = self.table.search(vector).distance_type("cosine").where(f"namespace = '{space}'", prefilter=True)
        return [int(row) for row in query.limit(K).select(["id"]).to_arrow()["id"].to_pylist()]


PLAYERS = {"gx": Gx, "chromadb": Chroma, "lancedb": Lance}


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    bodies = [json.loads(line) for line in (folder / "bodies.jsonl").open()]
    player: Any = PLAYERS[name](folder)
    for line in sys.stdin:
        asked = json.loads(line)
        answer: Any = None
        begun_s, worked_s = time.perf_counter(), time.process_time()
        match asked["do"]:
            case "add":
                start, stop = asked["start"], asked["stop"]
                player.add(start, bodies[start:stop], np.ascontiguousarray(vectors[start:stop]))
            case "index":
                player.index()
            case "search" | "nearest" as what:
                vector, space = np.asarray(asked["vector"], np.float32), asked["space"]
                begun_s, worked_s = time.perf_counter(), time.process_time()
                answer = (
                    player.search(asked["text"], vector, space) if what == "search" else player.nearest(vector, space)
                )
        ms, worked_ms = (time.perf_counter() - begun_s) * 1000, (time.process_time() - worked_s) * 1000
        print(json.dumps({"ms": ms, "worked_ms": worked_ms, "answer": answer}), flush=True)


if __name__ == "__main__":
    main()
