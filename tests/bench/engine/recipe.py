"""`python -m tests.bench.engine.recipe [--rounds N]`: the triage recipe beside the scripts that people write today.

`gx run recipes/triage.yaml` on its 100 tickets, in a workspace that is new each time, against a script that asks
llama-cpp-python for one ticket after the other and one that starts llama-server and asks it for 16 at a time, each with
the same messages and the same schema. What is measured is the whole command, from its start to its last row, with the
model's load and, of gx, the node's start and every commit. `gx, one slot` is the same run with `GX_SLOTS=1`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import yaml

from tests.bench.engine.build import binary
from tests.bench.engine.drive import Ask, Messages, Reply
from tests.bench.engine.players import llama, server
from tests.tiny_model import packaged_model

RECIPE = Path(__file__).parents[3] / "recipes" / "triage.yaml"
SLOTS = 16
PEERS = ("gx", "gx, one slot", "llama-cpp-python", "llama-server")


def chats() -> tuple[list[Messages], int, dict[str, Any]]:
    """The recipe's messages, its most tokens an answer, and its schema."""
    recipe = yaml.safe_load(RECIPE.read_text())
    agent = recipe["agents"]["triager"]
    persona = agent["persona"].replace("{{ params.product }}", recipe["params"]["product"]["default"])
    prompt = recipe["steps"][0]["prompt"]
    rows = [json.loads(line) for line in RECIPE.parent.joinpath(recipe["inputs"]).read_text().splitlines()]
    said = [[("system", persona), ("user", prompt.replace("{{ item.text }}", row["text"]))] for row in rows]
    return said, agent["sampling"]["max_tokens"], agent["output"]


async def script(player: AbstractAsyncContextManager[Ask]) -> None:
    """Ask for every row, as many at a time as the player takes, and say how many tokens that was."""
    import anyio

    said, max_tokens, schema = chats()
    replies: list[Reply] = []
    room = anyio.Semaphore(SLOTS)

    async with player as ask, anyio.create_task_group() as rows:

        async def answer(messages: Messages) -> None:
            async with room:
                replies.append(await ask(messages, max_tokens, schema))

        for messages in said:
            rows.start_soon(answer, messages)
    sys.stdout.write(json.dumps([sum(r.tokens_in for r in replies), sum(r.tokens_out for r in replies)]))


def played(peer: str) -> tuple[float, int, int]:
    """The seconds of the whole command, and the tokens in and out."""
    began_s = time.perf_counter()
    if not peer.startswith("gx"):
        words = [sys.executable, "-m", "tests.bench.engine.recipe", "--play", peer]
        tokens = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
        return time.perf_counter() - began_s, *tokens
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"GX_WORKSPACE": f"{folder}/.gx"} | ({"GX_SLOTS": "1"} if peer != "gx" else {})
        gx = Path(sys.executable).with_name("gx")
        done = subprocess.run([gx, "run", RECIPE, "-q"], env=env, check=True, capture_output=True)
        seconds = time.perf_counter() - began_s
        subprocess.run([gx, "node", "stop"], env=env, check=True, capture_output=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(chats()[0]) and all(row["status"] == "succeeded" for row in rows), done.stdout
    return seconds, *(sum(row["usage"][way] for row in rows) for way in ("tokens_in", "tokens_out"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--play", choices=PEERS[2:], help="one script, here: what each round starts")
    options = parser.parse_args()
    if options.play:
        import anyio

        model = str(packaged_model())
        anyio.run(script, llama(model) if options.play == "llama-cpp-python" else server(model, SLOTS))
        return
    binary("llama-server")  # built before anything is timed
    took = defaultdict[str, list[float]](list)
    tokens: dict[str, tuple[int, int]] = {}
    for number in range(options.rounds):
        for peer in PEERS:
            seconds, *counts = played(peer)
            took[peer].append(seconds)
            tokens[peer] = (counts[0], counts[1])
            sys.stderr.write(f"{number}: {peer} {seconds:.1f} s\n")
    sys.stdout.write(f"recipes/triage.yaml, medians of {options.rounds}\n")
    medians = {peer: statistics.median(seconds) for peer, seconds in took.items()}
    for peer, median in medians.items():
        sys.stdout.write(f"  {peer:16} {median:6.1f} s {median / medians['gx']:5.2f} x   tokens {tokens[peer]}\n")


if __name__ == "__main__":
    main()
