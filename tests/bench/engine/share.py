"""`python -m tests.bench.engine.share [--rounds N]`: what of W1's and W2's time is ours, and how late the loop is.

What isn't spent in `llama_decode` is ours: Python, with the numpy that samples, the llguidance that constrains, and the
waits for requests, so that Python alone takes less. Of the event loop that the requests are asked from
it is told how late a task was woken that sleeps for a millisecond: the worst, and the 99th percentile. Each round is a
process of its own, cold and then warm; medians over the rounds, and the worst of all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import anyio

from tests.bench.engine.drive import play
from tests.bench.engine.workloads import WORKLOADS
from tests.tiny_model import packaged_model

PLAYED = ("W1", "W2")
SLEEP_S = 0.001


class Clocked:
    """A function that adds up the seconds spent in it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.seconds = 0.0
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        began_s = time.perf_counter()
        try:
            return self._function(*arguments)
        finally:
            self.seconds += time.perf_counter() - began_s


async def watch(late_s: list[float]) -> None:
    """Note how late the loop wakes whoever sleeps."""
    while True:
        began_s = time.perf_counter()
        await anyio.sleep(SLEEP_S)
        late_s.append(time.perf_counter() - began_s - SLEEP_S)


async def measure(workload: str, model: str, seed: int) -> list[dict[str, float]]:
    """Cold, then warm: the share that is ours, and how late the loop was."""
    from edge.engine.llama.library import llama_cpp
    from tests.bench.engine.players import gx

    decode = Clocked(llama_cpp.llama_decode)
    llama_cpp.llama_decode = decode
    found: list[dict[str, float]] = []
    async with gx(model) as ask:
        for part in (seed, seed + 1000):
            late_s: list[float] = []
            decode.seconds = 0.0
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch, late_s)
                took = await play(WORKLOADS[workload](part), ask)
                tasks.cancel_scope.cancel()
            late_s.sort()
            found.append(
                {
                    "seconds": took.seconds,
                    "ours": 1 - decode.seconds / took.seconds,
                    "late_p99_ms": 1000 * late_s[int(0.99 * (len(late_s) - 1))],
                    "late_most_ms": 1000 * late_s[-1],
                }
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default=str(packaged_model()))
    parser.add_argument("--play", nargs=2, metavar=("WORKLOAD", "SEED"), help="one round, here: what each one starts")
    options = parser.parse_args()
    if options.play:
        sys.stdout.write(json.dumps(anyio.run(measure, options.play[0], options.model, int(options.play[1]))))
        return
    for workload in PLAYED:
        played = [_one(workload, options.model, number) for number in range(options.rounds)]
        for index, name in enumerate(("cold", "warm")):
            rounds = [one[index] for one in played]
            ours, p99_ms = (statistics.median(one[key] for one in rounds) for key in ("ours", "late_p99_ms"))
            most_ms = max(one["late_most_ms"] for one in rounds)
            sys.stdout.write(
                f"{workload} {name}, {options.rounds} rounds: ours {ours:6.2%} of "
                f"{statistics.median(one['seconds'] for one in rounds):.1f} s; the loop is late by "
                f"{p99_ms:.1f} ms (p99), {most_ms:.1f} ms at worst\n"
            )
        sys.stdout.flush()


def _one(workload: str, model: str, seed: int) -> list[dict[str, float]]:
    words = [sys.executable, "-m", "tests.bench.engine.share", "--model", model, "--play", workload, str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=1800)
    found: list[dict[str, float]] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
