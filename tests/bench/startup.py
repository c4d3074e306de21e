"""How long `gx --version` and `gx --help` take beside `llm --version`, in turn, seven times each.

The peer is the package `llm` in an environment without plugins. Both are started as a shell does: by their scripts.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from tests.bench.peers import environment, median, verdict

ROUNDS = 7


def seconds(*words: str) -> float:
    """Wall time of one process, from start to exit."""
    began = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> int:
    """Print the medians and their ratios; 1 if a claim is missed."""
    gx = str(Path(sysconfig.get_path("scripts")) / "gx")
    llm = str(environment("llm==0.36").parent / "llm")
    commands = {"gx --version": (gx, "--version"), "gx --help": (gx, "--help"), "llm --version": (llm, "--version")}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for words in commands.values():
        seconds(*words)  # once, so that byte code is there for all
    for _ in range(ROUNDS):
        for name, words in commands.items():
            taken[name].append(seconds(*words))
    for name, times in taken.items():
        sys.stdout.write(f"{name:16} median of {ROUNDS}: {median(times) * 1000:6.0f} ms\n")
    peer = median(taken["llm --version"])
    return verdict(
        *((f"{name} / llm --version", median(taken[name]) / peer, 0.5, False) for name in list(commands)[:2])
    )


if __name__ == "__main__":
    sys.exit(main())
