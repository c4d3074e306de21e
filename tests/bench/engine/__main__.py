"""`python -m tests.bench.engine [W1 …] [--rounds N] [--model FILE] [--as FORMAT]`: the engine beside its peers.

Every round plays each workload once with each peer, one after the other, each in a process of its own; the figures are
medians over the rounds. A ratio above 1 means that the engine is faster. Behind the ratio of a peer's median is the
interval that holds the median of the rounds' own ratios in at least 95 of 100 cases, where there are 6 rounds or more.
The peer `gx-prepared` is the engine on the BF16 copy that `gx models prepare` makes.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
from collections import defaultdict

from tests.bench.engine.build import binary, prepared, quantised
from tests.tiny_model import packaged_model

SERVERS = ("server-8", "server-16", "server-32")
PEERS = {
    "W1": ("gx-prepared", "llama", *SERVERS),
    "W2": ("llama", *SERVERS),
    "W3": SERVERS[1:],
    "W4": SERVERS,
    "W5": ("server-16",),
    "W6": SERVERS[1:],
}
BUSY = "while True: pass"


def measure(peer: str, workload: str, model: str, seed: int) -> list[dict[str, float]]:
    """What one peer took for one workload: cold, then warm."""
    if peer == "gx-prepared":
        peer, model = "gx", prepared(model)
    words = ("-m", "tests.bench.engine.players", peer, workload, model, str(seed))
    neighbour = subprocess.Popen([sys.executable, "-c", BUSY]) if workload == "W6" else None
    try:
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True, timeout=1800)
    except subprocess.CalledProcessError as error:
        sys.stderr.write(error.stderr)
        raise
    finally:
        if neighbour is not None:
            neighbour.kill()
            neighbour.wait()
    measured: list[dict[str, float]] = json.loads(done.stdout)
    return measured


def interval(ratios: list[float]) -> str:
    """The narrowest pair of order statistics that holds the median in at least 95 of 100 cases (the sign test's)."""
    n, out = len(ratios), 0
    while sum(math.comb(n, k) for k in range(out + 1)) / 2 ** (n - 1) <= 0.05:
        out += 1
    ordered = sorted(ratios)
    return f" ({ordered[out - 1]:.2f} to {ordered[-out]:.2f})" if out else ""


def ceiling(model: str) -> float:
    """W1 composed from llama-batched-bench: the shared prefix once, 64 distinct parts, 64 tokens out at that depth."""
    seconds = 0.0
    for prompt, out, parallel, columns, times in ((393, 1, 1, (4,), 1), (72, 1, 32, (4,), 2), (465, 64, 32, (6,), 2)):
        words = [
            "-m",
            model,
            "-npp",
            str(prompt),
            "-ntg",
            str(out),
            "-npl",
            str(parallel),
            "-c",
            str(32 * 768),
            "-t",
            "2",
        ]
        done = subprocess.run([str(binary("llama-batched-bench")), *words], capture_output=True, text=True, check=True)
        (row,) = re.findall(rf"^\|\s+{prompt} \|\s+{out} \|.*$", done.stdout, re.MULTILINE)
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        seconds += times * sum(float(cells[column]) for column in columns)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("workloads", nargs="*", default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default=str(packaged_model()))
    parser.add_argument("--as", dest="format", metavar="FORMAT", help="the model in another format, such as Q4_0")
    parser.add_argument("--peers", help="comma-separated, instead of each workload's own")
    options = parser.parse_args()
    model = quantised(options.model, options.format) if options.format else options.model
    for workload in options.workloads:
        peers = ("gx", *(options.peers.split(",") if options.peers else PEERS[workload]))
        cold, warm, first = (defaultdict[str, list[float]](list) for _ in range(3))
        tokens: dict[str, tuple[float, float]] = {}
        for number in range(options.rounds):
            for peer in peers:
                one, two = measure(peer, workload, model, number)
                cold[peer].append(one["seconds"])
                warm[peer].append(two["seconds"])
                first[peer].append(two["first_p95_s"])
                tokens[peer] = (two["tokens_in"], two["tokens_out"])
            if workload == "W1":
                cold["ceiling"].append(ceiling(model))
                warm["ceiling"].append(cold["ceiling"][-1])
        sys.stdout.write(f"{workload}, medians of {options.rounds}\n")
        for peer in cold:
            c, w = statistics.median(cold[peer]), statistics.median(warm[peer])
            took = "   ".join(
                f"{name} {median:7.2f} s {median / statistics.median(times['gx']):5.2f} x"
                + interval([peers_s / gx_s for peers_s, gx_s in zip(times[peer], times["gx"], strict=True)])
                for name, median, times in (("cold", c, cold), ("warm", w, warm))
            )
            late = f"   first p95 {statistics.median(first[peer]):6.2f} s" if first[peer] else ""
            sys.stdout.write(f"  {peer:10} {took}{late}   tokens {tokens.get(peer, '')}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
