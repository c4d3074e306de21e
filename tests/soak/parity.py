"""The same turns on this machine and in a rented container, at temperature 0: equal byte for byte.

One slot on each side, and one turn after another, since kernels that compute several sequences at once may round
otherwise: how many slots there are is part of the claim. The container is a real one on a loopback, and while it lives,
it is asked where its environment has gx from: from what the app ships, and from nowhere else.

`python -m tests.soak.parity --tasks 50` exits 1 where an answer differs. It needs Linux, which tells the variables of a
process.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from cloud import deploy
from cloud.loopback import lifeline
from cloud.loopback.plane import Plane
from cloud.message import Weights
from cloud.rented import Account, Pool, rent
from cloud.worker import CloudWorker
from edge.worker import EdgeWorker
from gx.core.message import Answer, Message, Outcome, Sampling, Turn
from gx.core.ports import AttemptEnded, WorkerEvent
from gx.core.task import Quote
from tests import nodes
from tests.soak.promises import Broken, claim
from tests.tiny_model import packaged_model

RUN = "parity"
CONTEXT_TOKENS = 1024
PATIENCE_S = 180.0
TICKETS = (
    "I was charged twice this month, and nobody answers.",
    "The export button does nothing when I press it.",
    "How can I share a note with somebody who has no account?",
    "After the update, all of my notes are in the wrong order.",
    "Please delete my account and everything in it.",
)
PROBE = """\
import importlib.metadata as m, importlib.util as u, json
found = {name: getattr(u.find_spec(name), "origin", None) for name in ("gx", "edge", "cloud")}
print(json.dumps([found, [d.name for d in m.distributions() if d.name == "gx"]]))
"""


def turns(number: int) -> list[Turn]:
    """So many tickets to be answered in a few words, no two alike."""
    return [
        Turn(
            run=RUN,
            task=f"t{index}",
            attempt=1,
            model=RUN,
            messages=(
                Message(role="system", content="You answer support tickets for Acme Notes."),
                Message(role="user", content=f"Ticket {index}: {TICKETS[index % len(TICKETS)]}"),
            ),
            sampling=Sampling(temperature=0.0, max_tokens=40),
        )
        for index in range(number)
    ]


async def compared(folder: Path, asked: list[Turn], model: Path) -> dict[str, tuple[Outcome, Outcome]]:
    """What each turn came to here and there. :raises Broken: if the container has gx from anywhere but its app."""
    sha256 = await anyio.to_thread.run_sync(lambda: hashlib.sha256(model.read_bytes()).hexdigest())
    async with EdgeWorker(epoch=0, slots=1) as edge:
        edge.register(RUN, str(model), CONTEXT_TOKENS, sha256=sha256)
        while edge.lease() is None:
            await edge.describe(RUN)
        here = await _answers(edge.submit, edge.events, asked)
    async with Plane(folder / "plane") as plane:
        token = plane.environ()
        account = Account(token_id=token["MODAL_TOKEN_ID"], token_secret=token["MODAL_TOKEN_SECRET"], url=plane.url)
        await deploy.deploy(account)
        await deploy.upload(account, sha256, model)
        pool = Pool(run=RUN, gpu="L4", slots=1, max_containers=1, scaledown_s=10)
        async with (
            rent(pool, account) as calls,
            CloudWorker(calls, run=RUN, gpu="L4", driver=RUN, inputs=1, quote=Quote()) as worker,
        ):
            worker.register(Weights(digest=RUN, sha256=sha256, context_tokens=CONTEXT_TOKENS))
            worker.scale(1)
            worker.vouch(time.time() + 3600)
            there = await _answers(worker.submit, worker.events, asked)
            await anyio.to_thread.run_sync(check_environment, folder / "plane")
    return {turn.task: (here[turn.task], there[turn.task]) for turn in asked}


async def _answers(
    submit: Callable[[Turn], None], events: Callable[[], Awaitable[list[WorkerEvent]]], asked: list[Turn]
) -> dict[str, Outcome]:
    """One after another, so that each finds its slot as the one before left it."""
    ended: dict[str, Outcome] = {}
    for turn in asked:
        submit(turn)
        with anyio.fail_after(PATIENCE_S):
            while turn.task not in ended:
                ended.update({one.task: one.outcome for one in await events() if isinstance(one, AttemptEnded)})
    return ended


def check_environment(plane: Path) -> None:
    """Ask the interpreter of a live container, with its variables and in its folder, where it has gx from.

    :raises Broken: if that isn't the container's own root.
    """
    entry = next(p for p in nodes.processes() if "container_entrypoint" in p.command and str(plane) in p.command)
    words = Path(f"/proc/{entry.pid}/environ").read_bytes().decode().split("\0")
    environ = dict(word.split("=", 1) for word in words if "=" in word)
    del environ[lifeline.VARIABLE]  # this process has no plane that it must end with
    done = subprocess.run(
        [entry.command.split()[0], "-c", PROBE],
        env=environ, cwd=environ["HOME"], stdout=subprocess.PIPE, check=True, timeout=60,
    )  # fmt: skip
    origins, installed = msgspec.json.decode(done.stdout, type=tuple[dict[str, str | None], list[str]])
    root = plane / "containers"
    claim(not installed, "the distribution gx is installed in the container")
    for name, origin in origins.items():
        claim(origin is not None and Path(origin).is_relative_to(root), f"{name} comes from {origin}, not from its app")


def check(both: dict[str, tuple[Outcome, Outcome]]) -> None:
    """:raises Broken: naming the first answer that differs, or is none."""
    for task, (here, there) in both.items():
        for outcome in (here, there):
            claim(isinstance(outcome, Answer), f"{task}: expected an answer, got {outcome}")
        assert isinstance(here, Answer) and isinstance(there, Answer)
        same = bytes(here.value) == bytes(there.value) and here.usage.tokens_out == there.usage.tokens_out
        claim(same, f"{task}: {bytes(here.value)!r} here, {bytes(there.value)!r} there")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.parity", description=__doc__)
    parser.add_argument("--tasks", type=int, default=50)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gx-parity-") as folder:
        try:
            both = anyio.run(compared, Path(folder), turns(asked.tasks), packaged_model())
            check(both)
        except Broken as broken:
            sys.exit(f"BROKEN: {broken}")
    texts = {bytes(here.value) for here, _ in both.values() if isinstance(here, Answer)}
    print(f"{len(both)} answers are equal byte for byte, {len(texts)} of them different; gx comes from the app alone")


if __name__ == "__main__":
    main()
