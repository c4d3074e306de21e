"""`python -m tests.bench.engine.through [--rounds N]`: W1 through `gx run` (recipe, log, pipe) beside the engine alone.

Both write the same prompts' answers, at most 64 tokens each, and stop where the model does. The engine's time is from
the first request to the last answer; the run's from its first task's dispatch to its last one's success, as its log
has them. What the whole command takes, with its start and the model's load, is printed beside.
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
from pathlib import Path

from tests.bench.engine.workloads import SHARED, w1
from tests.tiny_model import packaged_model

RECIPE = {
    "version": 1,
    "name": "w1",
    "inputs": "rows.jsonl",
    "models": {"small": "smollm2"},
    "agents": {"helper": {"model": "small", "persona": SHARED, "sampling": {"max_tokens": 64}}},
    "steps": [{"id": "answer", "for_each": "inputs", "agent": "helper", "prompt": "{{ item.text }}"}],
}
SPAN = (
    "SELECT (max(ts) FILTER (type = 'task.succeeded') - min(ts) FILTER (type = 'task.leased')) / 1e6 AS seconds, "
    "sum(tok_out) FILTER (type = 'task.succeeded') AS tokens FROM events"
)


def alone(seed: int) -> tuple[float, int]:
    """Seconds, and tokens written, of the engine behind its front, in this process."""
    import anyio

    from edge.engine.engine import Completion, Engine, Request
    from edge.engine.front import Front
    from gx.core.message import Message, Sampling

    engine = Engine()
    engine.register("m", str(packaged_model()))
    engine.describe("m")
    front = Front(engine)
    tokens = 0

    async def ask(text: str) -> None:
        nonlocal tokens
        said = (Message(role="system", content=SHARED), Message(role="user", content=text))
        result = await front.generate(Request(model="m", messages=said, sampling=Sampling(max_tokens=64)))
        assert isinstance(result, Completion), result
        tokens += result.usage.tokens_out

    async def all_at_once() -> None:
        async with anyio.create_task_group() as users:
            for chat in w1(seed):
                users.start_soon(ask, chat.turns[0])

    began_s = time.perf_counter()
    anyio.run(all_at_once)
    seconds = time.perf_counter() - began_s
    engine.close()
    return seconds, tokens


def through(seed: int) -> tuple[float, int, float]:
    """Seconds and tokens by the run's own log, and the seconds of the whole command."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.joinpath("recipe.yaml").write_text(json.dumps(RECIPE))
        folder.joinpath("rows.jsonl").write_text("".join(json.dumps({"text": c.turns[0]}) + "\n" for c in w1(seed)))
        gx = Path(sys.executable).with_name("gx")
        env = os.environ | {"GX_WORKSPACE": str(folder / ".gx")}
        began_s = time.perf_counter()
        subprocess.run([gx, "run", "recipe.yaml", "-q"], cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
        whole_s = time.perf_counter() - began_s
        asked = subprocess.run([gx, "sql", SPAN], cwd=folder, check=True, env=env, capture_output=True)
        row = json.loads(asked.stdout)
        return float(row["seconds"]), int(row["tokens"]), whole_s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--alone", type=int, metavar="SEED", help="the engine alone, here: what each round starts")
    options = parser.parse_args()
    if options.alone is not None:
        sys.stdout.write(json.dumps(alone(options.alone)))
        return
    engine, run, whole = list[float](), list[float](), list[float]()
    for number in range(options.rounds):
        words = [sys.executable, "-m", "tests.bench.engine.through", "--alone", str(number)]
        seconds, tokens = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
        engine.append(seconds)
        seconds, ours, whole_s = through(number)
        run.append(seconds)
        whole.append(whole_s)
        sys.stderr.write(f"{number}: {engine[-1]:.1f} s for {tokens} tokens, {seconds:.1f} s for {ours}\n")
    a, b, c = map(statistics.median, (engine, run, whole))
    sys.stdout.write(f"W1 through gx run, medians of {options.rounds}\n  engine alone {a:7.2f} s\n")
    sys.stdout.write(f"  gx run       {b:7.2f} s {a / b:5.2f} x of the engine   (the whole command {c:.2f} s)\n")


if __name__ == "__main__":
    main()
