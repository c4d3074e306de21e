"""Kill -9, again and again: nothing is lost, doubled, or computed again once it was acknowledged.

A trial is a workspace, a run of many tasks on a tiny model, and a list of kills: of the gx process or of its bench, at
a random moment, start-up included. The same command is given again until the run ends by itself; between two of its
lives other runs compute some of the same rows, tasks are erased, the log is verified. At each end the records and the
log are asked whether what was promised is true (`tests.soak.promises`). Everything random follows from the seed, the
moments themselves from the machine.

`python -m tests.soak.kill --kills 50` prints a line a trial, and exits 1 at the first promise that was broken.
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
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gx.core.errors import GxError
from tests.soak import folder as folders
from tests.soak.process import START_S, Process, all_gone
from tests.soak.promises import POISON, Acknowledged, Broken, check_log, claim, has_log, records_of, tasks_of
from tests.soak.story import Erase, Kill, Other, Step, Trial, trials
from tests.tiny_model import write_tiny_model

ENDS = (0, 3)
KILLED = -signal.SIGKILL


class Told(NamedTuple):
    """What a trial saw: a few words on each step, and how often the main run was started."""

    seen: list[str]
    starts: int


def run_trial(folder: Path, trial: Trial, tasks: int) -> Told:
    """Run one trial in `folder`, which must not be there yet. :raises Broken: naming the promise that was."""
    return _Story(folder, trial, tasks).tell()


class _Story:
    """A trial as it goes: what is still to happen, what was printed, and what is to be told."""

    def __init__(self, folder: Path, trial: Trial, tasks: int) -> None:
        self._folder, self._workspace, self._trial, self._tasks = folder, folder / "ws", trial, tasks
        self._texts = folders.prepare(folder, trial, tasks)
        self._acknowledged = Acknowledged(self._texts)
        self._steps = list(trial.steps)
        self._seen: list[str] = []
        self._killed: list[Other] = []

    def tell(self) -> Told:
        """Go through all steps, then to the end of every run. :raises Broken: as `run_trial`."""
        starts, status = 0, KILLED
        while self._steps or status not in ENDS:
            if self._steps and not isinstance(self._steps[0], Kill):
                self._do(self._steps.pop(0))
                status = KILLED  # what was done may have left work: the run is given again
                continue
            starts += 1
            claim(starts < 10 * (len(self._trial.steps) + 1), "the run does not come to its end")
            process = Process(self._folder, *folders.RUN)
            status = self._end(process, self._strike(process), count=self._tasks)
        wanted = 0 if self._trial.poisoned is None else 3
        claim(status == wanted, f"{process.command} ended with {status}:\n{process.stderr}")
        for other in dict.fromkeys(killed._replace(kill=None) for killed in self._killed):
            self._run(other)
        check_log(self._workspace, self._texts)
        return Told(self._seen, starts)

    # ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _strike(self, process: Process) -> set[int]:
        """Take kills off the list and do them, as far as this process lives to see; the benches that it had."""
        benches: set[int] = set()
        while self._steps and isinstance(kill := self._steps[0], Kill):
            self._steps.pop(0)
            has_struck, seen = process.strike(kill)
            benches |= seen
            if not has_struck:  # too late: the next process, which has less to do, is killed earlier
                self._steps.insert(0, Kill("gx", None, kill.share / 2))
                break
            self._seen.append(f"{kill.whom} after {len(process.lines)}")
            if kill.whom == "gx":
                break
        return benches

    def _run(self, other: Other) -> None:
        process, benches = Process(self._folder, *folders.command_of(other)), set[int]()
        if other.kill is not None:
            _, benches = process.strike(other.kill)
        status = self._end(process, benches, count=folders.count_of(other))
        self._seen.append(f"{other.kind} ended with {status} after {len(process.lines)}")
        if status not in ENDS:
            claim(other.kill is not None, f"{process.command} ended with {status}:\n{process.stderr}")
            self._killed.append(other)

    def _end(self, process: Process, benches: set[int], *, count: int) -> int:
        """How a run ended. :raises Broken: if nothing explains that, or what it printed or wrote is wrong.

        A run that was not killed prints `count` records.
        """
        status = process.end()
        told = f"{process.command} ended with {status}:\n{process.stderr}"
        is_cut_short = status == 1 and "the bench did not start: killed by signal 9" in process.stderr
        claim(status in (*ENDS, KILLED) or is_cut_short, told)
        claim("Traceback" not in process.stderr, told)
        claim(all_gone(benches), "a bench outlived its gx process")
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
        elif has_log(self._workspace):
            process = Process(self._folder, "log", "--verify", "--json")
            self._ended(process, 0)
            claim(json.loads(b"".join(process.lines))["is_whole"], f"the log is not whole: {process.lines}")
            self._seen.append("verified")

    def _erase(self, step: Erase) -> None:
        tasks = tasks_of(self._workspace)
        if not tasks:
            return
        process = Process(self._folder, "erase", "--yes", tasks[int(step.share * len(tasks))])
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


def soak(folder: Path, *, kills: int, seed: int, tasks: int = 200, tell: Callable[[str], None] = print) -> None:
    """Run all trials of the seed. :raises Broken: at the first promise that was not kept."""
    if not (folder / "tiny.gguf").exists():
        write_tiny_model(folder / "tiny.gguf", context=512)
    for number, trial in enumerate(trials(kills, seed, tasks)):
        began = time.monotonic()
        try:
            told = run_trial(folder / f"trial-{number}", trial, tasks)
        except (Broken, GxError) as broken:
            raise Broken(f"trial {number}, {trial}: {broken}") from broken
        poison = "" if trial.poisoned is None else f", row {trial.poisoned} poisoned"
        seconds = time.monotonic() - began
        tell(f"trial {number}: {', '.join(told.seen)}{poison}: {told.starts} starts, {seconds:.1f} s: kept")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    print(f"seed {asked.seed}: {asked.kills} kills of runs of {asked.tasks} tasks", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="gx-soak-"))
    try:
        soak(folder, kills=asked.kills, seed=asked.seed, tasks=asked.tasks, tell=lambda line: print(line, flush=True))
    except Broken as broken:
        sys.exit(f"BROKEN: {broken}\nsee {folder}; again with --seed {asked.seed}")
    shutil.rmtree(folder)
    print("all promises were kept")


if __name__ == "__main__":
    main()
