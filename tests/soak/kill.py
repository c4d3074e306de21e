"""Kill -9, again and again: nothing is lost, doubled, or computed again once it was acknowledged.

A trial is a workspace, a run of many tasks on a tiny model, one to three clients that share it, and a list of kills:
of a client, of the node or of its bench, at a random moment, start-up included. Clients go on by themselves when the
node or a bench dies; once all of them were killed, the same command is given again, until the run ends by itself.
Between two of its lives other runs compute some of the same rows, tasks are erased, the log is verified, or nobody
comes back. At each end the records and the log are asked whether what was promised is true (`tests.soak.promises`).
Everything random follows from the seed, the moments themselves from the machine.

`python -m tests.soak.kill --kills 50` prints a line a trial, and at last how long it took from the kill of a node with
clients attached until the next one answered them. It exits 1 at the first promise that was broken.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from gx.core.errors import GxError
from tests import nodes
from tests.soak import folder as folders
from tests.soak.process import START_S, Process
from tests.soak.promises import (
    POISON,
    Acknowledged,
    Broken,
    answered,
    check_log,
    claim,
    has_log,
    records_of,
    tasks_of,
)
from tests.soak.story import Away, Erase, Kill, Other, Step, Trial, trials
from tests.tiny_model import write_tiny_model

ENDS = (0, 3)
KILLED = -signal.SIGKILL
AWAY_S = 60.0
"""By then a run that nobody attends to is interrupted, and the node gone: after 10 s and what is running."""


class Told(NamedTuple):
    """What a trial saw: a few words on each step, how often the main run was started, takeovers in seconds.

    `late` counts kills that found nobody to kill any more; for each of them the run is started once more.
    """

    seen: list[str]
    starts: int
    takeovers_s: list[float]
    late: int


def run_trial(folder: Path, trial: Trial, tasks: int) -> Told:
    """Run one trial in `folder`, which must not be there yet. :raises Broken: naming the promise that was."""
    return _Story(folder, trial, tasks).tell()


class _Story:
    """A trial as it goes: what is still to happen, what was printed, and what is to be told."""

    def __init__(self, folder: Path, trial: Trial, tasks: int) -> None:
        self._processes: list[Process] = []
        self._folder, self._workspace, self._trial, self._tasks = folder, folder / "ws", trial, tasks
        self._texts = folders.prepare(folder, trial, tasks)
        self._acknowledged = Acknowledged(self._texts)
        self._steps = list(trial.steps)
        self._seen: list[str] = []
        self._takeovers_s: list[float] = []
        self._late = 0
        self._killed: list[Other] = []

    def tell(self) -> Told:
        """Go through all steps, then to the end of every run. :raises Broken: as `run_trial`."""
        starts, status = 0, KILLED
        try:
            while self._steps or status not in ENDS:
                if self._steps and not isinstance(self._steps[0], Kill):
                    self._do(self._steps.pop(0))
                    status = KILLED  # what was done may have left work: the run is given again
                    continue
                starts += 1
                claim(starts < 10 * (len(self._trial.steps) + 1), "the run does not come to its end")
                status = self._live(folders.RUN, self._steps, self._trial.clients, count=self._tasks)
            wanted = 0 if self._trial.poisoned is None else 3
            claim(status == wanted, f"the run ended with {status}, expected {wanted}")
            for other in dict.fromkeys(killed._replace(kill=None) for killed in self._killed):
                self._run(other)
            check_log(self._workspace, self._texts)
            claim(bool(nodes.until(lambda: not nodes.nodes_of(self._workspace))), "a node stays with nobody there")
            return Told(self._seen, starts, self._takeovers_s, self._late)
        finally:
            for process in self._processes:
                process.kill()
            nodes.end_nodes(self._workspace)

    # ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _live(self, command: Sequence[str], steps: list[Step], clients: int, *, count: int) -> int:
        """A life of a run: its clients start, what kills are next come upon them, and those that are left end.

        How the last one ended; KILLED if none is left.
        """
        attached = [self._start(command) for _ in range(clients)]
        while steps and isinstance(kill := steps[0], Kill):
            steps.pop(0)
            has_struck, benches, takeover_s = attached[0].strike(kill)
            if not has_struck:  # too late: the next process, which has less to do, is killed earlier
                self._late += 1
                steps.insert(0, Kill("gx", None, kill.share / 2))
                break
            claim(kill.whom == "gx" or nodes.are_gone(benches), "a bench outlived its node")
            self._seen.append(f"{kill.whom} after {len(attached[0].lines)}")
            if takeover_s is not None:
                self._takeovers_s.append(takeover_s)
            if kill.whom == "gx":
                self._end(attached.pop(0), count=count)
                if not attached:
                    return KILLED
                attached.append(self._start(command))  # and joins
        return [self._end(process, count=count) for process in attached][-1]

    def _start(self, command: Sequence[str]) -> Process:
        process = Process(self._folder, *command)
        self._processes.append(process)
        return process

    def _run(self, other: Other) -> None:
        steps: list[Step] = [] if other.kill is None else [other.kill]
        command = folders.command_of(other)
        status = self._live(command, steps, 1, count=folders.count_of(other))
        self._seen.append(f"{other.kind} ended with {status} after {len(self._processes[-1].lines)}")
        if status not in ENDS:
            claim(other.kill is not None, f"{other} ended with {status}")
            self._killed.append(other)

    def _end(self, process: Process, *, count: int) -> int:
        """How a run ended. :raises Broken: if nothing explains that, or what it printed or wrote is wrong.

        A run that was not killed prints `count` records.
        """
        status = process.end()
        told = f"{process.command} ended with {status}:\n{process.stderr}"
        is_cut_short = status == 1 and "the bench did not start: killed by signal 9" in process.stderr
        claim(status in (*ENDS, KILLED) or is_cut_short, told)
        claim("Traceback" not in process.stderr, told)
        records = records_of(process.lines)
        reports = [records.pop(name) for name in ("report",) if name in records]
        self._acknowledged.add(records)
        self._acknowledged.check(self._workspace)
        if status in ENDS:
            claim(len(records) + len(reports) == count, f"{len(records)} records, expected {count}; {told}")
            claim(all(report["status"] == "succeeded" for report in reports), f"no report: {reports}")
            rows = self._texts if reports else records
            claim(status == (3 if any(self._texts[name] == POISON for name in rows) else 0), told)
        return status

    # ── what else is done ────────────────────────────────────────────────────────────────────────────────────────

    def _do(self, step: Step) -> None:
        if isinstance(step, Other):
            self._run(step)
        elif isinstance(step, Erase):
            self._erase(step)
        elif isinstance(step, Away):
            self._stay_away()
        elif has_log(self._workspace):
            process = Process(self._folder, "log", "--verify", "--json")
            self._ended(process, 0)
            claim(json.loads(b"".join(process.lines))["is_whole"], f"the log is not whole: {process.lines}")
            self._seen.append("verified")

    def _stay_away(self) -> None:
        """Nobody attends to what is live: it is interrupted, what it runs comes to its end, and the node leaves."""
        was_up = bool(nodes.nodes_of(self._workspace))
        claim(bool(nodes.until(lambda: not nodes.nodes_of(self._workspace), AWAY_S)), "a node stays with nobody there")
        if was_up and has_log(self._workspace):
            live = answered(self._workspace, lambda log: log.ask("SELECT run FROM runs WHERE status = 'running'"))
            claim(not live, f"still live with nobody there: {live}")
        self._seen.append("nobody came back")

    def _erase(self, step: Erase) -> None:
        tasks = tasks_of(self._workspace)
        if not tasks:
            return
        nodes.end_nodes(self._workspace)  # a run that waits for its client would refuse it
        process = Process(self._folder, "erase", "--yes", tasks[int(step.share * len(tasks))])
        self._processes.append(process)
        if step.dies_after_s is not None:
            process.strike(Kill("gx", None, step.dies_after_s / START_S))
        status = self._ended(process, 0, *([KILLED] if step.dies_after_s is not None else []))
        forgotten = self._acknowledged.forget_erased(self._workspace)
        self._acknowledged.check(self._workspace)
        self._seen.append(f"erase of {forgotten} results ended with {status}")

    def _ended(self, process: Process, *expected: int) -> int:
        """How a verb ended. :raises Broken: unless `expected`."""
        status = process.end()
        is_clean = "Traceback" not in process.stderr
        claim(status in expected and is_clean, f"{process.command} ended with {status}:\n{process.stderr}")
        return status


def soak(
    folder: Path,
    *,
    kills: int,
    seed: int,
    tasks: int = 200,
    node_share: float = 0.5,
    tell: Callable[[str], None] = print,
) -> list[float]:
    """Run all trials of the seed; the takeovers in seconds. :raises Broken: at the first promise that was not kept."""
    takeovers_s: list[float] = []
    if not (folder / "tiny.gguf").exists():
        write_tiny_model(folder / "tiny.gguf", context=512)
    for number, trial in enumerate(trials(kills, seed, tasks, node_share)):
        began = time.monotonic()
        try:
            told = run_trial(folder / f"trial-{number}", trial, tasks)
        except (Broken, GxError) as broken:
            raise Broken(f"trial {number}, {trial}: {broken}") from broken
        poison = "" if trial.poisoned is None else f", row {trial.poisoned} poisoned"
        seconds = time.monotonic() - began
        many = f", {trial.clients} clients" if trial.clients > 1 else ""
        tell(f"trial {number}: {', '.join(told.seen)}{poison}{many}: {told.starts} starts, {seconds:.1f} s: kept")
        takeovers_s += told.takeovers_s
    return takeovers_s


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--node-share", type=float, default=0.5, help="how many of the kills are of nodes")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    print(f"seed {asked.seed}: {asked.kills} kills of runs of {asked.tasks} tasks", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="gx-soak-"))
    try:
        takeovers_s = sorted(
            soak(
                folder,
                kills=asked.kills,
                seed=asked.seed,
                tasks=asked.tasks,
                node_share=asked.node_share,
                tell=lambda line: print(line, flush=True),
            )
        )
    except Broken as broken:
        sys.exit(f"BROKEN: {broken}\nsee {folder}; again with --seed {asked.seed}")
    if takeovers_s:
        p50_s, max_s = takeovers_s[len(takeovers_s) // 2], takeovers_s[-1]
        print(f"{len(takeovers_s)} takeovers: p50 {p50_s:.2f} s, max {max_s:.2f} s")
    shutil.rmtree(folder)
    print("all promises were kept")


if __name__ == "__main__":
    main()
