"""Rehearsals of the cap: real runs on a loopback with random faults, whose money is just more than one container's.

The cap is what one container must have reserved and some seconds more, so that it is the cap that ends the renting;
one in five has work for less than that. Each has a rate, a cold start and a time-out of its own, and every third one a
node that is killed with -9 on its way.
What a loopback billed, by the second and from the request for a container to the end of its process, is the truth here;
what the run's own ledger booked is not looked at. What is random follows from the seed.

`python -m tests.soak.cap --rehearsals 10` exits 1 where more was billed than the cap allows, or where the work needed
more and more was left than one container's reservation or 15 % of the cap, whichever is more.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import anyio

from cloud import deploy
from cloud.app import START_UP_S
from cloud.cost import ENDING_S, RATES, SCALEDOWN_S, input_s
from cloud.loopback.faults import Faults, Lost
from cloud.rented import Account
from gx.core import event as e
from gx.core.ledger import LEASE_S
from gx.core.projection import fold
from gx.core.view import View
from gx.node.workspace import Workspace
from tests import nodes
from tests.soak.burst import LOST_RPCS, Loopback, loopback
from tests.soak.process import GX
from tests.soak.promises import Broken, claim
from tests.tiny_model import write_tiny_model

GPUS = ("T4", "L4", "A10", "A100-40GB", "H100")
END_S = 600.0
"""A rehearsal that takes longer hangs: a container may be alive for its start, its lease and its last input, and what a
node that was killed had rented is kept as long as that.
"""
LEFT = 0.15
FEW, MANY = 40, 20_000
"""Rows that some seconds are enough for, and rows that they never are."""
RECIPE = """\
version: 1
name: cap
models: {tiny: ./tiny.gguf}
agents:
  a: {model: tiny, persona: You answer., sampling: {temperature: 1, max_tokens: 300}}
steps:
  - {id: write, for_each: inputs, agent: a, prompt: "{{ item.text }}", timeout: TIMEOUT}
budget: {usd: BUDGET, at_cap: stop}
burst: {mode: force, gpu: [GPU], max_containers: 2}
"""


class Trial(NamedTuple):
    """One rehearsal: so many rows, a cap for a reservation and `extra_s` seconds more, and what goes wrong.

    `kill_s` is how long after a container was reserved the node is killed; `None` lets it live.
    """

    seed: int
    rows: int
    gpu: str
    timeout_s: int
    extra_s: float
    cold_start_s: float
    kill_s: float | None
    faults: Faults

    @property
    def usd_per_s(self) -> float:
        return RATES[self.gpu].usd_per_s

    @property
    def reservation_usd(self) -> float:
        """What one container may cost before anybody can stop it."""
        return self.usd_per_s * (START_UP_S + LEASE_S + input_s(self.timeout_s) + SCALEDOWN_S + ENDING_S)

    @property
    def cap_usd(self) -> float:
        """To the hundredth of a cent, rounded up, as a budget is written."""
        return round(self.reservation_usd + self.extra_s * self.usd_per_s + 0.00005, 4)


class Told(NamedTuple):
    """What came of it: containers, their seconds and dollars, whether the run came to its cap, and how it ended."""

    containers: int
    billed_s: float
    billed_usd: float
    booked_usd: float
    is_capped: bool
    status: int
    struck: int
    took_s: float


def drawn(seed: int) -> Trial:
    """The rehearsal of a seed."""
    chance = random.Random(seed)

    def some(most: int) -> tuple[int, ...]:
        return tuple(sorted(chance.sample(range(1, 60), chance.randint(0, most))))

    faults = Faults(
        kill=some(2),
        preempt=some(1),
        refuse=some(3),
        lose=tuple(Lost(rpc=chance.choice(LOST_RPCS), nth=nth) for nth in some(3)),
        slow_starts={chance.randint(1, 3): chance.uniform(1, 8)},
    )
    return Trial(
        seed,
        rows=FEW if seed % 5 == 0 else MANY,
        gpu=chance.choice(GPUS),
        timeout_s=chance.choice((15, 30, 60)),
        extra_s=chance.uniform(5, 30),
        cold_start_s=chance.choice((0.0, 2.0, 6.0)),
        kill_s=chance.uniform(5, 40) if seed % 3 == 1 else None,
        faults=faults,
    )


def rehearse(folder: Path, trial: Trial) -> Told:
    """Live through one in `folder`, which must be empty. :raises Broken: naming the promise that was."""
    model = write_tiny_model(folder / "tiny.gguf", context=512)
    recipe = RECIPE.replace("BUDGET", f"{trial.cap_usd}").replace("TIMEOUT", f"{trial.timeout_s}s")
    recipe, began_s = recipe.replace("GPU", trial.gpu), time.monotonic()
    (folder / "recipe.yaml").write_text(recipe)
    rows = (json.dumps({"id": f"row-{n}", "text": f"Say {n} of {trial.seed}."}) + "\n" for n in range(trial.rows))
    (folder / "rows.jsonl").write_text("".join(rows))
    with loopback(folder / "plane", trial.faults, cold_start_s=trial.cold_start_s) as plane:
        anyio.run(_furnish, plane.account, hashlib.sha256(model.read_bytes()).hexdigest(), model)
        status = _run(folder, plane, trial.kill_s)
        is_over = nodes.until(lambda: not _alive(folder / "plane"), SCALEDOWN_S + LEASE_S)
        claim(bool(is_over), "a container outlives its run")
        books = plane.report()
    claim(not books.broken, f"the loopback failed: {books.broken}")
    billed_s, booked_usd, is_capped = sum(bill.billed_s for bill in books.bills), 0.0, False
    view = View()
    with Workspace(folder / "ws").shared(wait_s=nodes.GONE_S) as log:
        for event in log.read():
            fold(view, event)
            is_capped |= isinstance(event.body, e.CapReached)
    for run in view.runs.values():
        booked_usd += 0.0 if run.rent is None else run.rent.ledger.exposure_usd
    return Told(
        containers=sum(bill.containers for bill in books.bills),
        billed_s=billed_s,
        billed_usd=sum(RATES[bill.gpu].usd_per_s * bill.billed_s for bill in books.bills),
        booked_usd=booked_usd,
        is_capped=is_capped,
        status=status,
        struck=len(books.faults) + (trial.kill_s is not None),
        took_s=time.monotonic() - began_s,
    )


async def _furnish(account: Account, digest: str, model: Path) -> None:
    await deploy.deploy(account)
    await deploy.upload(account, digest, model)


def _alive(plane: Path) -> list[int]:
    """The entry points of containers that live."""
    return [p.pid for p in nodes.processes() if "container_entrypoint" in p.command and str(plane) in p.command]


@contextlib.contextmanager
def _killing(folder: Path, kill_s: float | None) -> Iterator[None]:
    """Have the node of the run killed so long after a container was there, if it is to be."""
    is_over = threading.Event()

    def kill() -> None:
        while not is_over.wait(0.5) and not _alive(folder / "plane"):
            pass
        if not is_over.wait(kill_s):
            for pid in nodes.nodes_of(folder / "ws"):
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    if kill_s is not None:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        if kill_s is not None:
            thread.join()


def _run(folder: Path, plane: Loopback, kill_s: float | None) -> int:
    """The exit status of the run. :raises Broken: if it hangs, or says what no user should see."""
    homes = {name: str(folder / "home") for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
    own = {"GX_WORKSPACE": str(folder / "ws"), "GX_THREADS": "1", "GX_SLOTS": "2", "GX_NODE_LINGER_S": "1", **homes}
    try:
        with _killing(folder, kill_s):
            done = subprocess.run(
                [*GX, "run", "recipe.yaml", "-i", "rows.jsonl"],
                env=os.environ | plane.environ | own, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, timeout=END_S, check=False,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Broken(f"it did not end within {END_S:g} s") from None
    finally:
        with contextlib.suppress(AssertionError):
            claim(bool(nodes.until(lambda: not nodes.nodes_of(folder / "ws"))), "a node stays with nobody there")
        nodes.end_nodes(folder / "ws")
    said = done.stderr.decode("utf-8", "replace")
    claim(done.returncode in (0, 4) and "Traceback" not in said, f"it ended with {done.returncode}:\n{said}")
    return done.returncode


def check(trial: Trial, told: Told) -> None:
    """:raises Broken: where a promise of the cap is."""
    claim(told.billed_usd <= trial.cap_usd, f"${told.billed_usd:.4f} billed with a cap of ${trial.cap_usd:.4f}")
    claim(told.status == (4 if told.is_capped else 0), f"it ended with {told.status}, capped: {told.is_capped}")
    claim(told.is_capped == (trial.rows == MANY), f"{trial.rows} rows, capped: {told.is_capped}")
    claim(told.booked_usd <= trial.cap_usd, f"${told.booked_usd:.4f} booked with a cap of ${trial.cap_usd:.4f}")
    claim(told.billed_usd <= told.booked_usd, f"${told.billed_usd:.4f} billed, only ${told.booked_usd:.4f} booked")
    left_usd, most_usd = trial.cap_usd - told.billed_usd, max(trial.reservation_usd, LEFT * trial.cap_usd)
    claim(not told.is_capped or left_usd <= most_usd, f"${left_usd:.4f} are left, expected at most ${most_usd:.4f}")


def _line(trial: Trial, told: Told) -> str:
    """A rehearsal in a line of the table."""
    left_usd, end = trial.cap_usd - told.billed_usd, "capped" if told.is_capped else "done"
    killed = "" if trial.kill_s is None else f", node killed after {trial.kill_s:.0f} s"
    return (
        f"seed {trial.seed}: {trial.rows} rows, {trial.gpu}, time-out {trial.timeout_s} s, cold start "
        f"{trial.cold_start_s:g} s{killed}: {told.containers} containers, {told.billed_s:.0f} s, "
        f"${told.billed_usd:.4f} billed, ${told.booked_usd:.4f} booked of ${trial.cap_usd:.4f} "
        f"(a reservation ${trial.reservation_usd:.4f}, left ${left_usd:.4f}), "
        f"{told.struck} faults, {end}, exit {told.status}, {told.took_s:.0f} s"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.cap", description=__doc__)
    parser.add_argument("--rehearsals", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    for seed in range(asked.seed, asked.seed + asked.rehearsals):
        folder, trial = Path(tempfile.mkdtemp(prefix="gx-cap-")), drawn(seed)
        try:
            told = rehearse(folder, trial)
            check(trial, told)
        except Broken as broken:
            sys.exit(f"BROKEN: {broken}\nsee {folder}; again with --rehearsals 1 --seed {seed}")
        shutil.rmtree(folder)
        print(_line(trial, told), flush=True)
    print(f"the cap held in {asked.rehearsals} rehearsals")


if __name__ == "__main__":
    main()
