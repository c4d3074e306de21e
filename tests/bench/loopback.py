"""How fast calls go through the loopback with the real SDK: spawn and collect of no-ops, and cancels beside open polls.

The plane is a process of its own, and so are its containers; the driver here keeps a window of 64 calls, as a burst
does: one client spawns and cancels, another one polls. Run it alone: `python -m tests.bench.loopback`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import modal

from tests.bench.peers import verdict

SHIPPED = Path(__file__).parent.parent / "cloud" / "shipped"
TASKS = 2000
WINDOW = 64
CANCELS = 150
RATE = 100.0
"""Tasks a second that a driver may ask for."""
CANCEL_S = 2.0


@contextmanager
def plane(folder: str) -> Iterator[None]:
    """A plane with the tests' app deployed; this process's clients talk to it."""
    words = [sys.executable, "-m", "cloud.loopback", folder]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    os.environ.update(json.loads(process.stdout.readline())["environ"])
    code = "import loopback_app; loopback_app.app.deploy()"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SHIPPED)}, check=True)
    try:
        yield
    finally:
        process.stdin.close()
        process.wait()


async def client() -> modal.Client:
    return await modal.Client.from_credentials.aio(os.environ["MODAL_TOKEN_ID"], os.environ["MODAL_TOKEN_SECRET"])


def worker(of: modal.Client, **options: int) -> modal.Cls:
    found = modal.Cls.from_name("loopback-tests", "Worker", client=of)
    return found.with_options(max_containers=2, **options).with_concurrency(max_inputs=96)()


async def throughput() -> float:
    """No-ops a second, from the first spawn to the last result."""
    control, polling = await client(), await client()
    method = worker(control).echo
    await method.remote.aio(b"")
    window = asyncio.Semaphore(WINDOW)

    async def one(n: int) -> None:
        async with window:
            call = await method.spawn.aio(b"%d" % n)
            got = await modal.FunctionCall.from_id(call.object_id, client=polling).get.aio(timeout=50)
            assert got == b"%d" % n

    began = time.perf_counter()
    await asyncio.gather(*(one(n) for n in range(TASKS)))
    return TASKS / (time.perf_counter() - began)


async def cancels() -> float:
    """Seconds that it takes to cancel 150 calls while 64 long polls are open."""
    control, polling = await client(), await client()
    method = worker(control).nap
    calls = [await method.spawn.aio(600.0) for _ in range(CANCELS)]
    polls = [
        asyncio.create_task(modal.FunctionCall.from_id(call.object_id, client=polling).get.aio(timeout=50))
        for call in calls[:WINDOW]
    ]
    await asyncio.sleep(1.0)  # until the polls are open; nothing tells a client so
    began = time.perf_counter()
    await asyncio.gather(*(call.cancel.aio() for call in calls))
    ended = await asyncio.gather(*polls, return_exceptions=True)
    taken_s = time.perf_counter() - began
    assert all(isinstance(error, modal.exception.RemoteError) for error in ended), ended
    return taken_s


def main() -> int:
    """Print both figures; 1 if a claim is missed."""
    with tempfile.TemporaryDirectory() as folder, plane(folder):
        rate = asyncio.run(throughput())
        taken_s = asyncio.run(cancels())
    sys.stdout.write(f"spawn and collect of {TASKS} no-ops, {WINDOW} at once: {rate:.0f} a second\n")
    sys.stdout.write(f"cancel of {CANCELS} calls beside {WINDOW} open polls, seen by all: {taken_s:.2f} s\n")
    return verdict(("spawn and collect / s", rate, RATE, True), ("150 cancels, s", taken_s, CANCEL_S, False))


if __name__ == "__main__":
    sys.exit(main())
