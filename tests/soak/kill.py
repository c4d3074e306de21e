"""Kill -9, again and again: nothing is lost, doubled, or computed again once it was acknowledged.

A trial is a workspace, a run of many tasks on a tiny model, and a list of kills: of the gx process or of its bench, at
a random moment, start-up included. The same command is given again until the run ends by itself; then the log is asked
whether what was promised is true. Everything random follows from the seed, the moments themselves from the machine.

`python -m tests.soak.kill --kills 50` prints a line a trial, and exits 1 at the first promise that was broken.
"""

from __future__ import annotations

import argparse
import contextlib
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
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from gx.run.log import EventLog
from gx.run.log.verify import verify
from tests.tiny_model import write_tiny_model

GX = (sys.executable, "-P", "-m", "gx.cli.main")
POISON = "the row that kills its bench"
START_S = 1.5
"""The time in which a process starts, loads its model and writes its first record, roughly."""
END_S = 120.0
_RECIPE = """\
version: 1
name: soak
models: {tiny: ./tiny.gguf}
agents:
  writer: {model: tiny, persona: You answer in a word., sampling: {temperature: 1, max_tokens: 6}}
steps:
  - {id: write, for_each: inputs, agent: writer, prompt: "{{ item.text }}"}
"""
_REPORT = """\
  - {id: report, reduce: write, agent: writer, prompt: "{% for one in items %}{{ one }}, {% endfor %}"}
output: write
"""


class Broken(AssertionError):
    """A promise that was not kept."""


class Kill(NamedTuple):
    """Whom to kill ("gx" or "bench"), and when: after `records` were printed, or (`None`) while it starts.

    `share` is how much of a start-up, or of the moment after the record, passes before.
    """

    whom: str
    records: int | None
    share: float


class Trial(NamedTuple):
    """A workspace's whole story. `poisoned` is the row that crashes the bench each time, if there is one.

    With a report, a second step reduces all answers of the first.
    """

    kills: tuple[Kill, ...]
    poisoned: int | None
    has_report: bool


class Told(NamedTuple):
    """What a trial saw: records printed before each kill, and how often gx was started."""

    printed: list[int]
    starts: int


def trials(kills: int, seed: int, tasks: int) -> list[Trial]:
    """Trials of 1 to 3 kills each, `kills` in all, a third of them of benches; each fourth trial has a poisoned row."""
    chance = random.Random(seed)
    made: list[Trial] = []
    left = kills
    while left:
        count = min(left, chance.choice((1, 1, 2, 3)))
        left -= count
        chosen = tuple(
            Kill(
                whom="bench" if chance.random() < 0.35 else "gx",
                records=None if chance.random() < 0.3 else chance.randrange(tasks),
                share=chance.random(),
            )
            for _ in range(count)
        )
        made.append(Trial(chosen, chance.randrange(tasks) if len(made) % 4 == 3 else None, len(made) % 2 == 1))
    return made


def prepare(folder: Path, trial: Trial, tasks: int) -> None:
    """A folder with recipe and rows; the model lies beside it."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(_RECIPE + _REPORT * trial.has_report)
    (folder / "tiny.gguf").symlink_to(folder.parent / "tiny.gguf")
    rows = [{"id": f"row-{n}", "text": f"Say {n}." if n != trial.poisoned else POISON} for n in range(tasks)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


class Process:
    """One `gx run` of the folder's recipe: its records as they are printed, and its end."""

    def __init__(self, folder: Path) -> None:
        homes = {name: str(folder / "home") for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
        own = {"GX_WORKSPACE": str(folder / "ws"), "GX_THREADS": "1", "GX_BENCH_CRASH_ON": POISON, **homes}
        self._process = subprocess.Popen(
            [*GX, "run", "recipe.yaml", "-i", "rows.jsonl"],
            cwd=folder,
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.lines: list[bytes] = []
        self.stderr = b""
        self._is_read = False
        self._changed = threading.Condition()
        self._readers = [threading.Thread(target=reads, daemon=True) for reads in (self._read, self._read_notes)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._is_read = True
            self._changed.notify_all()

    def _read_notes(self) -> None:
        stream = self._process.stderr
        self.stderr = stream.read() if stream is not None else b""

    def benches(self) -> list[int]:
        """The process ids of the benches that are its children now."""
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,command="], capture_output=True, text=True, check=True)
        rows = (line.split(None, 2) for line in listed.stdout.splitlines())
        return [
            int(row[0]) for row in rows if len(row) == 3 and int(row[1]) == self._process.pid and "edge.bench" in row[2]
        ]

    def strike(self, kill: Kill) -> tuple[bool, set[int]]:
        """Wait for the moment and kill: whether there was still somebody to kill, and the benches that were seen."""
        if kill.records is not None:
            with self._changed:
                self._changed.wait_for(lambda: len(self.lines) >= kill.records or self._is_read, timeout=END_S)
        time.sleep(kill.share * (START_S if kill.records is None else 0.05))
        seen = self.benches()
        until = time.monotonic() + 3 * START_S
        while kill.whom == "bench" and not seen and self.is_alive and time.monotonic() < until:
            time.sleep(0.01)
            seen = self.benches()
        victims = seen if kill.whom == "bench" else [self._process.pid] * self.is_alive
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(victims), set(seen)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> int:
        """Its exit status, once all that it wrote was read. :raises Broken: if it hangs."""
        try:
            status = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise Broken(f"gx run did not end within {END_S:g} s") from None
        for reader in self._readers:
            reader.join(10)
        return status

    def records(self) -> dict[str, dict[str, Any]]:
        """The whole lines that it printed, by row id. :raises Broken: if a row was printed twice."""
        found = [json.loads(line) for line in self.lines if line.endswith(b"\n")]
        by_id = {record["id"]: record for record in found}
        _claim(len(by_id) == len(found), "a row was printed twice")
        return by_id


def run_trial(folder: Path, trial: Trial, tasks: int) -> Told:
    """Run one trial in `folder`, which must not be there yet. :raises Broken: naming the promise that was."""
    prepare(folder, trial, tasks)
    acknowledged: dict[str, dict[str, Any]] = {}
    printed: list[int] = []
    kills = list(trial.kills)
    starts, status = 0, -signal.SIGKILL
    while kills or status not in (0, 3):
        process = Process(folder)
        starts += 1
        benches = _strike(process, kills, printed)
        status = process.end()
        told = f"gx run ended with {status}:\n{process.stderr.decode()}"
        is_cut_short = status == 1 and b"the bench did not start: killed by signal 9" in process.stderr
        _claim(status in (0, 3, -signal.SIGKILL) or is_cut_short, told)
        _claim(b"Traceback" not in process.stderr, told)
        _claim(_all_gone(benches), "a bench outlived its gx process")
        _claim(starts < 10 * (len(trial.kills) + 1), "the run does not come to its end")
        records = process.records()
        for name, record in records.items():
            before = acknowledged.setdefault(name, record)
            _claim(_result(before) == _result(record), f"{name} was {before} and now is {record}")
    _claim(status == (0 if trial.poisoned is None else 3), told)
    _claim(records.keys() == {f"row-{n}" for n in range(tasks)}, f"the last run printed {len(records)} rows")
    _check_records(records, trial.poisoned)
    _check_log(folder / "ws", acknowledged, trial.poisoned, tasks)
    return Told(printed, starts)


def _strike(process: Process, kills: list[Kill], printed: list[int]) -> set[int]:
    """Take kills off the list and do them, as far as this process lives to see; the benches that it had."""
    benches: set[int] = set()
    while kills:
        kill = kills.pop(0)
        has_struck, seen = process.strike(kill)
        benches |= seen
        if not has_struck:  # too late: the next process, which has less to do, is killed earlier
            kills.insert(0, Kill("gx", None, kill.share / 2))
            break
        printed.append(len(process.lines))
        if kill.whom == "gx":
            break
    return benches


def _result(record: dict[str, Any]) -> tuple[Any, ...]:
    return record["status"], record.get("output"), record.get("error", {}).get("code")


def _check_records(records: dict[str, dict[str, Any]], poisoned: int | None) -> None:
    for name, record in records.items():
        if name != f"row-{poisoned}":
            _claim(record["status"] == "succeeded", f"a neighbour was taken along: {record}")
        else:
            _claim(record["status"] == "failed" and record["error"]["code"] == "crashed", f"not crashed: {record}")


def _check_log(workspace: Path, acknowledged: dict[str, dict[str, Any]], poisoned: int | None, tasks: int) -> None:
    """The promises that only the log can tell of."""
    with EventLog.open(workspace, read_only=True) as log:
        report = verify(log)
        _claim(report.is_whole, f"the log is not whole: {report.problems}, {report.lost} lost")

        def ask(sql: str) -> list[tuple[Any, ...]]:
            return log.file.ask(sql)

        succeeded = "SELECT * FROM events WHERE type = 'task.succeeded'"
        ended = "SELECT * FROM events WHERE type IN ('task.succeeded', 'task.failed')"
        twice = ask(f"SELECT task, count(*) FROM ({ended}) GROUP BY task HAVING count(*) <> 1")
        _claim(not twice, f"tasks that ended more than once: {twice[:5]}")
        again = ask(
            f"SELECT key, count(*) FROM ({succeeded}) WHERE data->>'$.cached' IS NULL GROUP BY key HAVING count(*) > 1"
        )
        _claim(not again, f"results that were computed twice: {again[:5]}")
        late = ask(
            f"SELECT l.task FROM events l JOIN ({ended}) s USING (task) WHERE l.type = 'task.leased' AND l.seq > s.seq"
        )
        _claim(not late, f"tasks that were leased after their end: {late[:5]}")
        computed = ask(
            f"""SELECT q.data->>'$.id', count(*) FROM ({succeeded}) s JOIN events q USING (task)
            WHERE q.type = 'task.queued' AND q.data->>'$.step' = 'write' AND s.data->>'$.cached' IS NULL GROUP BY ALL"""
        )
        _claim(all(count == 1 for _, count in computed), "a row was computed twice")
        rows = {name for name, _ in computed}
        missing = {n for n, r in acknowledged.items() if r["status"] == "succeeded"} - rows
        _claim(not missing, f"acknowledged, and not in the log: {missing}")
        _claim(len(rows) == tasks - (poisoned is not None), f"{len(rows)} results are in the log")
        crashed = ask("SELECT task FROM events WHERE type = 'task.failed' AND data->>'$.code' = 'crashed'")
        _claim(bool(crashed) == (poisoned is not None), f"tasks that crashed: {crashed}")


def _all_gone(pids: set[int]) -> bool:
    """Whether those processes end within a few seconds; a zombie has ended."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        listed = subprocess.run(["ps", "-A", "-o", "pid=,stat=,command="], capture_output=True, text=True, check=True)
        rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
        if not any(int(r[0]) in pids and "Z" not in r[1] and "edge.bench" in r[-1] for r in rows):
            return True
        time.sleep(0.05)
    return False


def _claim(is_kept: bool, otherwise: str) -> None:
    if not is_kept:
        raise Broken(otherwise)


def soak(folder: Path, *, kills: int, seed: int, tasks: int = 200, tell: Callable[[str], None] = print) -> None:
    """Run all trials of the seed. :raises Broken: at the first promise that was not kept."""
    if not (folder / "tiny.gguf").exists():
        write_tiny_model(folder / "tiny.gguf", context=512)
    for number, trial in enumerate(trials(kills, seed, tasks)):
        began = time.monotonic()
        told = run_trial(folder / f"trial-{number}", trial, tasks)
        who = ", ".join(f"{k.whom} after {p}" for k, p in zip(trial.kills, told.printed, strict=True))
        poison = "" if trial.poisoned is None else f", row {trial.poisoned} poisoned"
        tell(f"trial {number}: {who} records{poison}: {told.starts} starts, {time.monotonic() - began:.1f} s: kept")


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
