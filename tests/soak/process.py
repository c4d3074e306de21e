"""One `gx` process in a trial's folder: what it prints, who its benches are, its end or the kill.

It knows nothing of what was promised, but for one thing: that it ends in time. If it does not, it is asked what it
waits for before it is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.soak import traced
from tests.soak.promises import POISON, Broken
from tests.soak.story import Kill

START_S = 1.5
"""The time in which a process starts, loads its model and writes its first record, roughly."""
END_S = 90.0
"""A process that takes longer hangs; one with two poisoned rows takes 20 s on a busy machine."""
GX = (sys.executable, "-P", str(Path(traced.__file__)))


class Process:
    """A `gx` command: its lines as they are printed, its notes, and its end."""

    def __init__(self, folder: Path, *args: str) -> None:
        homes = {name: str(folder / "home") for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
        own = {"GX_WORKSPACE": str(folder / "ws"), "GX_THREADS": "1", "GX_BENCH_CRASH_ON": POISON, **homes}
        self.command = " ".join(("gx", *args))
        self._process = subprocess.Popen(
            [*GX, *args],
            cwd=folder,
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.lines: list[bytes] = []
        self._notes: list[bytes] = []
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
        for line in self._process.stderr or ():
            self._notes.append(line)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def stderr(self) -> str:
        return b"".join(self._notes).decode("utf-8", "replace")

    def benches(self) -> list[int]:
        """The process ids of the benches that are its children now."""
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,command="], capture_output=True, text=True, check=True)
        rows = (line.split(None, 2) for line in listed.stdout.splitlines())
        return [
            int(row[0]) for row in rows if len(row) == 3 and int(row[1]) == self._process.pid and "edge.bench" in row[2]
        ]

    def strike(self, kill: Kill) -> tuple[bool, set[int]]:
        """Wait for the moment and kill: whether there was still somebody to kill, and the benches that were seen.

        :raises Broken: if the moment doesn't come.
        """
        if (records := kill.records) is not None:
            with self._changed:
                has_come = self._changed.wait_for(lambda: len(self.lines) >= records or self._is_read, timeout=END_S)
            if not has_come:
                raise self._hangs(f"has printed {len(self.lines)} lines, expected {records}")
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

    def end(self) -> int:
        """Its exit status, once all that it wrote was read. :raises Broken: if it hangs."""
        try:
            status = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            raise self._hangs("did not end") from None
        for reader in self._readers:
            reader.join(10)
        return status

    def _hangs(self, what: str) -> Broken:
        """The claim that it hangs, with its stacks."""
        os.kill(self._process.pid, signal.SIGUSR1)
        time.sleep(2)
        self._process.kill()
        for reader in self._readers:
            reader.join(10)
        return Broken(f"{self.command} {what} within {END_S:g} s\n{self.stderr}")


def all_gone(pids: set[int]) -> bool:
    """Whether those benches end within a few seconds; a zombie has ended."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        listed = subprocess.run(["ps", "-A", "-o", "pid=,stat=,command="], capture_output=True, text=True, check=True)
        rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
        if not any(int(r[0]) in pids and "Z" not in r[1] and "edge.bench" in r[-1] for r in rows):
            return True
        time.sleep(0.05)
    return False
