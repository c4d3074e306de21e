"""`python -m tests.bench.engine.embed [--rounds N]`: E1, 1,000 texts of 5 to 300 tokens into vectors, as ratios.

Peers: `Llama.embed` of llama-cpp-python one by one, its call with a list, and llama-server's `/v1/embeddings`, asked
for all texts in one request; `gx-prepared` is the engine on the BF16 copy that `gx models prepare` makes, and
`llama-list-default` the list call of a `Llama` that is given threads and nothing else. Each round plays every peer
once, each in a process of its own, the model loaded before.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from typing import Any

import httpx
import numpy as np

from tests.bench.engine.build import binary, prepared
from tests.bench.engine.minilm import minilm
from tests.bench.engine.workloads import WORDS

THREADS = 2
CONTEXT = 512
PEERS = ("gx", "gx-prepared", "llama", "llama-list", "llama-list-default", "server")


def texts(seed: int) -> list[str]:
    """A thousand texts; nearly each word is a token."""
    dice = random.Random(seed)
    return [" ".join(dice.choice(WORDS) for _ in range(dice.randint(3, 298))) for _ in range(1000)]


def gx(model: str, wanted: list[str]) -> tuple[float, list[float]]:
    from edge.engine.engine import Engine

    engine = Engine(threads=THREADS)
    engine.register("m", model)
    engine.embed("m", ["warm"]).result()
    began_s = time.perf_counter()
    vectors = engine.embed("m", wanted).result()
    seconds = time.perf_counter() - began_s
    engine.close()
    return seconds, vectors[-1].tolist()


def llama(model: str, wanted: list[str], *, as_list: bool, has_defaults: bool = False) -> tuple[float, list[float]]:
    import llama_cpp

    chosen: dict[str, Any] = {"n_ctx": CONTEXT, "n_batch": CONTEXT, "n_ubatch": CONTEXT, "flash_attn": True}
    threads = {"n_threads": THREADS, "n_threads_batch": THREADS}
    one = llama_cpp.Llama(model, embedding=True, verbose=False, **threads, **({} if has_defaults else chosen))
    one.embed("warm", normalize=True)
    began_s = time.perf_counter()
    vectors = one.embed(wanted, normalize=True) if as_list else [one.embed(text, normalize=True) for text in wanted]
    seconds = time.perf_counter() - began_s
    return seconds, list(vectors[-1])


def server(model: str, wanted: list[str]) -> tuple[float, list[float]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["-m", model, "--port", str(port), "--embedding", "-np", "8", "-c", str(8 * CONTEXT), "-t", str(THREADS),
             "-tb", str(THREADS), "--no-webui"]  # fmt: skip
    process = subprocess.Popen(
        [str(binary("llama-server")), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=900) as client:
            while True:
                try:
                    if client.get("/health").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
            client.post("/v1/embeddings", json={"input": ["warm"]}).raise_for_status()
            began_s = time.perf_counter()
            answer = client.post("/v1/embeddings", json={"input": wanted}).raise_for_status()
            seconds = time.perf_counter() - began_s
            vector: list[float] = answer.json()["data"][-1]["embedding"]
            return seconds, vector
    finally:
        process.kill()
        process.wait()


def play(peer: str, seed: int) -> tuple[float, list[float]]:
    model, wanted = str(minilm()), texts(seed)
    if peer == "gx":
        return gx(model, wanted)
    if peer == "gx-prepared":
        return gx(prepared(model), wanted)
    if peer == "server":
        return server(model, wanted)
    return llama(model, wanted, as_list=peer != "llama", has_defaults=peer == "llama-list-default")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--play", nargs=2, metavar=("PEER", "SEED"), help="one peer, here: what each round starts")
    options = parser.parse_args()
    if options.play:
        sys.stdout.write(json.dumps(play(options.play[0], int(options.play[1]))))
        return
    prepared(str(minilm()))
    took: defaultdict[str, list[float]] = defaultdict(list)
    peers = options.peers.split(",")
    for number in range(options.rounds):
        last: dict[str, list[float]] = {}
        for peer in peers:
            words = [sys.executable, "-m", "tests.bench.engine.embed", "--play", peer, str(number)]
            seconds, last[peer] = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
            took[peer].append(seconds)
        for peer in peers:
            if np.dot(last["gx"], last[peer]) < 0.999:
                sys.exit(f"{peer} made another vector of the same text")
    sys.stdout.write(f"E1, medians of {options.rounds}\n")
    for peer in peers:
        median = statistics.median(took[peer])
        ratio = median / statistics.median(took["gx"])
        sys.stdout.write(f"  {peer:12} {median:7.2f} s {ratio:5.2f} x\n")


if __name__ == "__main__":
    main()
