"""Whether reading slows writing: the rate of no-op tasks on a node, alone and while others ask it all the time.

The node is a process with a worker that answers at once; 4 clients in another process ask it 4 times a second each for
its status and for tasks by status in SQL, on connections that stay, and a fifth follows the log. Rounds with and
without readers alternate, each on a workspace of its own; a rate is tasks by the time from the run's first event to
its last.

    python -m tests.bench.beside --rounds 5 --tasks 30000
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

from gx.node.address import socket_path
from tests.bench.peers import median, verdict
from tests.fakes import ScriptedWorker
from tests.node.served import Served, recipe, serve
from tests.tiny_model import write_tiny_model

CLIENTS = 4
EVERY_S = 0.25
ASKED = "SELECT status, count(*) AS n FROM tasks GROUP BY status"


def node(folder: Path, tasks: int) -> None:
    """Serve a workspace, run the tasks once told to, and print how many a second there were."""
    write_tiny_model(folder / "tiny.gguf", context=512)
    with serve(folder / ".gx") as served:
        epoch = served.node.view.epoch

        def worker() -> ScriptedWorker:
            made = ScriptedWorker(leases=256, keeps_turns=False)
            made.epoch = epoch
            return made

        served.node.bench._make_worker = worker
        _say("up")
        sys.stdin.readline()
        run = served.submit(recipe("noop"), tasks, is_detached=True).run
        while run in served.inside(served.node.runs.live):
            time.sleep(0.05)
        _say(str(_rate(served, run, tasks)))
        sys.stdin.readline()


def _rate(served: Served, run: str, tasks: int) -> float:
    first, *_, last = served.node.log.read(run=run)
    return tasks / ((last.ts - first.ts) / 1e6)


def readers(folder: Path) -> None:
    """Ask until stdin ends; then print how many answers there were, and how many events came."""
    stop, answers, events = threading.Event(), [0] * CLIENTS, [0]

    def connect() -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(socket_path(folder / ".gx")))
        return httpx.Client(transport=transport, base_url="http://gx", timeout=60)

    def ask(number: int) -> None:
        with connect() as http:
            while not stop.wait(EVERY_S):
                http.get("/v1/node").raise_for_status()
                http.post("/v1/query", json={"sql": ASKED}).raise_for_status()
                answers[number] += 2

    def follow() -> None:
        with connect() as http, http.stream("GET", "/v1/events?follow=true") as answer:
            for chunk in answer.iter_raw():
                events[0] += chunk.count(b"\n")

    threads = [threading.Thread(target=ask, args=[number]) for number in range(CLIENTS)]
    for thread in (*threads, threading.Thread(target=follow, daemon=True)):
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    _say(f"{sum(answers)} {events[0]}")


def measure(tasks: int, *, is_read: bool) -> float:
    """Tasks a second of one run on a workspace of its own."""
    with tempfile.TemporaryDirectory() as name:
        place = [name, str(tasks)]
        served = _start("node", *place)
        assert served.stdout is not None and served.stdin is not None
        served.stdout.readline()
        asking = _start("readers", *place) if is_read else None
        _tell(served)
        rate = float(served.stdout.readline())
        if asking is not None:
            told, _ = asking.communicate()
            answers, events = told.split()
            sys.stdout.write(f"    {answers} answers, {events} events followed, {rate:,.0f} tasks/s\n")
        _tell(served)
        served.wait()
        return rate


def _start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.bench.beside", *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _tell(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.write("\n")
        process.stdin.flush()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.beside", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=30_000)
    asked = parser.parse_args()
    alone, beside = list[float](), list[float]()
    for _ in range(asked.rounds):
        alone.append(measure(asked.tasks, is_read=False))
        beside.append(measure(asked.tasks, is_read=True))
    for name, found in (("alone", alone), ("beside readers", beside)):
        rates = ", ".join(f"{rate:,.0f}" for rate in found)
        sys.stdout.write(f"{name:16}median of {len(found)}: {median(found):7,.0f} tasks/s  ({rates})\n")
    return verdict(("rate beside 4 clients and a follower / alone", median(beside) / median(alone), 0.9, True))


if __name__ == "__main__":
    if sys.argv[1:2] == ["node"]:
        node(Path(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:2] == ["readers"]:
        readers(Path(sys.argv[2]))
    else:
        sys.exit(main())
