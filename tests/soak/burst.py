"""A burst whose driver and containers are killed, and whose replies are lost: nothing is lost, nor paid for twice.

A run rents from a loopback in a process of its own, which outlives every node and lends to each of them, as Modal
would. Meanwhile nodes are killed with -9 at random moments, containers after random deliveries, and random replies of
spawns and polls get lost. Its client stays: whenever the node dies, it starts the next. At the end the records, the log
and the loopback's own books are held against each other. What is random follows from the seed, the moments themselves
from the machine.

`python -m tests.soak.burst --tasks 500 --driver-kills 5 --container-kills 10 --lost 10` exits 1 at a broken promise.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import anyio
import msgspec

from cloud import deploy
from cloud.cost import RATES
from cloud.loopback.faults import Faults, Lost
from cloud.rented import Account
from gx.core import event as e
from gx.core.ledger import Ledger
from gx.core.projection import fold
from gx.core.view import View
from gx.node.workspace import Workspace
from tests import nodes
from tests.soak.process import Process
from tests.soak.promises import Broken, check_log, claim, records_of
from tests.soak.story import Kill
from tests.tiny_model import write_tiny_model

GPU = "L4"
CONTAINERS = 2
SLOTS = 2
CAP_USD = 2.0
LOST_RPCS = ("FunctionMap", "FunctionGetOutputs")
RECIPE = """\
version: 1
name: burst
models: {tiny: ./tiny.gguf}
agents:
  a: {model: tiny, persona: You answer., sampling: {temperature: 1, max_tokens: 300}}
steps:
  - {id: write, for_each: inputs, agent: a, prompt: "{{ item.text }}"}
budget: {usd: BUDGET}
burst: {mode: force, gpu: [L4], max_containers: CONTAINERS}
"""


class Trial(NamedTuple):
    """How much goes wrong. `lost` is how many replies get lost, `containers` how many there may be at once."""

    tasks: int
    driver_kills: int
    container_kills: int
    lost: int
    seed: int
    containers: int = CONTAINERS

    @property
    def held(self) -> int:
        """How many attempts a driver has with its containers at most, and so how many a kill may have run twice."""
        return self.containers * (SLOTS + (SLOTS + 1) // 2)

    def faults(self) -> Faults:
        """What the loopback does, spread over what is surely rented: a quarter of the tasks."""
        chance, most = random.Random(self.seed), max(4, self.tasks // 4)
        drawn = [chance.choice(LOST_RPCS) for _ in range(self.lost)]
        return Faults(
            kill=tuple(sorted(chance.sample(range(2, most + self.container_kills), self.container_kills))),
            lose=tuple(Lost(rpc=rpc, nth=chance.randint(2, most)) for rpc in drawn),
        )

    def strikes(self) -> list[Kill]:
        """When the node is killed: after so many records."""
        chance = random.Random(self.seed + 1)
        counts = sorted(chance.sample(range(1, self.tasks * 3 // 4), self.driver_kills))
        return [Kill("node", records, chance.random()) for records in counts]


class Books(msgspec.Struct, frozen=True):
    """What the loopback reports, as far as it is asked."""

    class Bill(msgspec.Struct, frozen=True):
        gpu: str
        containers: int
        inputs: int
        billed_s: float

    calls: dict[str, int]
    bills: tuple[Bill, ...]
    faults: tuple[str, ...]
    broken: tuple[str, ...]


class Told(NamedTuple):
    """What a trial came to: results of containers, inputs that they were given, and dollars: billed, and as booked."""

    rented: int
    inputs: int
    calls: dict[str, int]
    billed_usd: float
    booked_usd: float
    struck: int


class Loopback:
    """The control plane in its process, and what it reports."""

    def __init__(self, process: subprocess.Popen[bytes], environ: dict[str, str], url: str) -> None:
        self._process, self.environ = process, environ
        self.account = Account(token_id=environ["MODAL_TOKEN_ID"], token_secret=environ["MODAL_TOKEN_SECRET"], url=url)

    def report(self) -> Books:
        """What happened so far."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(b"report\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._process.stdout.readline(), type=Books)


@contextlib.contextmanager
def loopback(folder: Path, faults: Faults, *, cold_start_s: float = 0.0) -> Iterator[Loopback]:
    """A plane of its own, as long as the block lasts."""
    told = {"faults": msgspec.to_builtins(faults), "max_containers": CONTAINERS, "cold_start_s": cold_start_s}
    command = [sys.executable, "-P", "-m", "cloud.loopback", str(folder), msgspec.json.encode(told).decode()]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        hello = json.loads(process.stdout.readline())
        yield Loopback(process, hello["environ"], hello["url"])
    finally:
        process.communicate(timeout=30)


def run_trial(folder: Path, trial: Trial) -> Told:
    """Run one trial in `folder`, which must be empty. :raises Broken: naming the promise that was."""
    texts = {f"row-{n}": f"Say {n} of {trial.seed}." for n in range(trial.tasks)}
    model = write_tiny_model(folder / "tiny.gguf", context=512)
    recipe = RECIPE.replace("BUDGET", f"{CAP_USD}").replace("CONTAINERS", f"{trial.containers}")
    (folder / "recipe.yaml").write_text(recipe)
    rows = "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items())
    (folder / "rows.jsonl").write_text(rows)
    with loopback(folder / "plane", trial.faults()) as plane:
        anyio.run(_furnish, plane.account, hashlib.sha256(model.read_bytes()).hexdigest(), model)
        with mock.patch.dict(os.environ, plane.environ | {"GX_SLOTS": f"{SLOTS}"}):
            _live(folder, trial, texts)
        claim(bool(nodes.until(lambda: not _open(plane.report()))), f"calls are left: {plane.report().calls}")
        return _audited(folder / "ws", trial, texts, plane)


async def _furnish(account: Account, digest: str, model: Path) -> None:
    await deploy.deploy(account)
    await deploy.upload(account, digest, model)


def _live(folder: Path, trial: Trial, texts: dict[str, str]) -> None:
    """The run from its start to its end, whatever is killed meanwhile."""
    process = Process(folder, "run", "recipe.yaml", "-i", "rows.jsonl")
    try:
        for kill in trial.strikes():
            process.strike(kill)
        status = process.end()
        claim(status == 0 and "Traceback" not in process.stderr, f"it ended with {status}:\n{process.stderr}")
        records = records_of(process.lines)
        claim(set(records) == set(texts), f"{len(records)} records, expected {len(texts)}")
        bad = [record for record in records.values() if record["status"] != "succeeded"]
        claim(not bad, f"expected successes: {bad[:3]}")
        claim(bool(nodes.until(lambda: not nodes.nodes_of(folder / "ws"))), "a node stays with nobody there")
    finally:
        process.kill()
        nodes.end_nodes(folder / "ws")


def _open(books: Books) -> int:
    """Calls that are not over."""
    return sum(books.calls.get(state, 0) for state in ("queued", "running"))


def _audited(workspace: Path, trial: Trial, texts: dict[str, str], plane: Loopback) -> Told:
    """The log against the loopback's books. :raises Broken: where one contradicts the other, or a promise."""
    check_log(workspace, texts)
    view, worst_usd, rented = View(), 0.0, 0
    with Workspace(workspace).shared(wait_s=nodes.GONE_S) as log:
        for event in log.read():
            fold(view, event)
            rented += isinstance(event.body, e.TaskSucceeded) and event.body.worker == "cloud"
            worst_usd = max([worst_usd, *(book.exposure_usd for book in _ledgers(view))])
    books = plane.report()
    billed_usd = sum(RATES[GPU].usd_per_s * bill.billed_s for bill in books.bills)
    inputs = sum(bill.inputs for bill in books.bills)
    (ledger,) = _ledgers(view)
    may_repeat = trial.held * (trial.driver_kills + trial.container_kills) + trial.lost
    claim(not books.broken, f"the loopback failed: {books.broken}")
    claim(rented > 0, "no container took part")
    claim(inputs <= rented + may_repeat + trial.held, f"{inputs} inputs for {rented} results of containers")
    claim(worst_usd <= CAP_USD, f"an exposure of ${worst_usd} with a cap of ${CAP_USD}")
    claim(billed_usd <= CAP_USD, f"${billed_usd} billed with a cap of ${CAP_USD}")
    claim(not ledger.alive, f"not settled: {list(ledger.alive)}")
    claim(billed_usd <= ledger.settled_usd, f"${billed_usd} billed, and only ${ledger.settled_usd} booked")
    return Told(rented, inputs, books.calls, billed_usd, ledger.settled_usd, len(books.faults))


def _ledgers(view: View) -> list[Ledger]:
    return [run.rent.ledger for run in view.runs.values() if run.rent is not None]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.burst", description=__doc__)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--driver-kills", type=int, default=5)
    parser.add_argument("--container-kills", type=int, default=10)
    parser.add_argument("--lost", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    print(f"seed {asked.seed}: {asked.tasks} tasks, {asked.driver_kills} driver kills", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="gx-burst-"))
    try:
        trial = Trial(asked.tasks, asked.driver_kills, asked.container_kills, asked.lost, asked.seed)
        told = run_trial(folder, trial)
    except Broken as broken:
        sys.exit(f"BROKEN: {broken}\nsee {folder}; again with --seed {asked.seed}")
    print(f"{told.rented} results of containers from {told.inputs} inputs, {told.struck} faults; calls {told.calls}")
    print(f"${told.billed_usd:.4f} billed, ${told.booked_usd:.4f} booked, cap ${CAP_USD:.2f}")
    shutil.rmtree(folder)
    print("all promises were kept")


if __name__ == "__main__":
    main()
