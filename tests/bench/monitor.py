"""What the monitor costs beside a run of 100,000 no-op tasks, and how soon it shows a finished one.

The node is that of `tests.bench.beside`: a process whose worker answers at once. The monitor is `gx monitor` in a
pseudo-terminal of 120 × 40; what it writes is read and counted: bursts of output with a pause between them are redraws.
Its time is the process', its memory the most that was resident. Then the run is over and the node gone, and the monitor
is opened again: the first paint is when its screen says how many tasks were done.

What it takes off the run's rate is told by rounds with and without it, which alternate, each on a workspace of its own:
a round's rate is tasks by the time from the run's first event to its last, and of the rounds the medians count.

    python -m tests.bench.monitor --tasks 100000 --rounds 5
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench.peers import median, verdict

SIZE = (40, 120)
PAUSE_S = 0.03
"""Silence that ends a redraw."""


class Watched:
    """`gx monitor` in a terminal of its own. `redraws` are those that were seen so far."""

    def __init__(self, workspace: Path) -> None:
        self.began_s = time.monotonic()
        self.redraws, self.peak_mib, self.screen = 0, 0.0, b""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ |= {"GX_WORKSPACE": str(workspace), "TERM": "xterm-256color", "GX_NODE_LINGER_S": "1"}
            os.execv(sys.executable, [sys.executable, "-P", "-m", "gx.cli.main", "monitor"])
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))

    def look(self, seconds: float, until: bytes | None = None) -> bool:
        """Read for so long, or until the screen says something; whether it did."""
        ends = time.monotonic() + seconds
        is_drawing = False
        while time.monotonic() < ends:
            ready, _, _ = select.select([self._fd], [], [], PAUSE_S)
            if not ready:
                self.redraws += is_drawing
                is_drawing = False
                continue
            is_drawing = True
            try:
                self.screen = (self.screen + os.read(self._fd, 1 << 16))[-200_000:]
            except OSError:  # it has left
                return False
            self.peak_mib = max(self.peak_mib, self._resident_mib())
            if until is not None and until in self.screen:
                return True
        return False

    def cpu_s(self) -> float:
        """Processor time of the process, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _resident_mib(self) -> float:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def end(self) -> None:
        """Press q, and wait until it is gone."""
        os.write(self._fd, b"q")
        self.look(1.0)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)


class Round(NamedTuple):
    """A run beside a monitor. `cpu_share` is of one core; `behind_s` is how long after the run's end it was level."""

    tasks_per_s: float
    cpu_share: float
    redraws_per_s: float
    behind_s: float
    peak_mib: float
    paint_s: float


def alone(tasks: int) -> float:
    """Tasks a second of a run that nobody watches."""
    with tempfile.TemporaryDirectory() as name, _node(name, tasks) as node:
        _tell(node)
        return float(_told(node))


def watched(tasks: int) -> Round | None:
    """A run beside a monitor, which then opens it finished; None if its screen never said what it should."""
    with tempfile.TemporaryDirectory() as name:
        with _node(name, tasks) as node:
            seen = Watched(Path(name) / ".gx")
            seen.look(2.0)
            _tell(node)
            cpu_s, began_s, redraws = seen.cpu_s(), time.monotonic(), seen.redraws
            assert node.stdout is not None
            while not select.select([node.stdout], [], [], 0)[0]:
                seen.look(0.5)
            took_s, rate = time.monotonic() - began_s, float(_told(node))
            cpu_s, drawn, ended_s = seen.cpu_s() - cpu_s, seen.redraws - redraws, time.monotonic()
            is_level = b"finished" in seen.screen or seen.look(60.0, until=b"finished")
            behind_s, peak_mib = time.monotonic() - ended_s, seen.peak_mib
            seen.end()
        opened = Watched(Path(name) / ".gx")
        is_painted = opened.look(60.0, until=f"{tasks:,}/{tasks:,}".encode())
        paint_s = time.monotonic() - opened.began_s
        opened.end()
    if not (is_level and is_painted):
        return None
    return Round(rate, cpu_s / took_s, drawn / took_s, behind_s, peak_mib, paint_s)


@contextlib.contextmanager
def _node(folder: str, tasks: int) -> Iterator[subprocess.Popen[str]]:
    """A node that is up, and runs so many tasks once it is told to."""
    command = [sys.executable, "-m", "tests.bench.beside", "node", folder, str(tasks)]
    node = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    _told(node)
    yield node
    _tell(node)
    node.wait()


def _tell(node: subprocess.Popen[str]) -> None:
    assert node.stdin is not None
    node.stdin.write("\n")
    node.stdin.flush()


def _told(node: subprocess.Popen[str]) -> str:
    assert node.stdout is not None
    return node.stdout.readline()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.monitor", description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    unwatched, rounds = list[float](), list[Round]()
    for number in range(asked.rounds):
        for is_watched in (False, True) if number % 2 == 0 else (True, False):  # neither is always the first
            if not is_watched:
                unwatched.append(alone(asked.tasks))
                continue
            if (found := watched(asked.tasks)) is None:
                sys.stdout.write("the screen never said what it should\n")
                return 1
            rounds.append(found)
        sys.stdout.write(f"round {number + 1}: {unwatched[-1]:,.0f} tasks/s alone, {_row(rounds[-1])}\n")
        sys.stdout.flush()
    middle = Round(*(median(list(figures)) for figures in zip(*rounds, strict=True)))
    sys.stdout.write(f"medians: {median(unwatched):,.0f} tasks/s alone, {_row(middle)}\n")
    return verdict(
        ("rate beside the monitor / alone", middle.tasks_per_s / median(unwatched), 0.9, True),
        ("share of a core", middle.cpu_share, 0.25, False),
        ("redraws a second", middle.redraws_per_s, 5.0, True),
        ("MiB resident at most", max(one.peak_mib for one in rounds), 200.0, False),
        ("seconds to the first paint of a finished run", middle.paint_s, 1.5, False),
    )


def _row(one: Round) -> str:
    return f"{one.tasks_per_s:,.0f} beside the monitor, which was level with it {one.behind_s:.1f} s after its end"


if __name__ == "__main__":
    sys.exit(main())
