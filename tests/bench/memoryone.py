"""What a search costs in one namespace of 100,000 memories, where vectors are compared one by one.

`python -m tests.bench.memoryone` prints it. Nothing is promised, so nothing is compared. Time of the processor is told
beside time, since other programs lengthen that one less.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from tests.bench.memory import Player, question_of, texts_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--memories", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=60)
    options = parser.parse_args()
    chance = np.random.default_rng(7)
    with tempfile.TemporaryDirectory(prefix="gx-bench-") as place:
        folder = Path(place)
        vectors, tokens = texts_of(folder, options.memories, chance)
        player = Player("gx", folder, namespaces=1)
        player.ask("add", start=0, stop=options.memories)
        for do, what in (("search", "both halves"), ("nearest", "vectors alone")):
            times, worked = list[float](), list[float]()
            for n in chance.integers(options.memories, size=options.questions):
                times.append(player.ask(do, **question_of(vectors, tokens, n, 1, chance))[0])
                worked.append(player.worked_ms)
            (p50, p95), (own50, own95) = (np.percentile(ms, (50, 95)) for ms in (times, worked))
            told = f"p50 {p50:.1f} ms, p95 {p95:.1f} ms; of the processor {own50:.1f} and {own95:.1f} ms"
            print(f"one namespace of {options.memories:,}, {what}: {told}", flush=True)
        player.end()


if __name__ == "__main__":
    main()
