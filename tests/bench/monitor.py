"""What the monitor costs beside a run of 100,000 no-op tasks, and how soon it shows a finished one.

The node is that of `tests.bench.beside`: a process whose worker answers at once. The monitor is `gx monitor` in a
pseudo-terminal of 120 × 40; what it writes is read and counted: bursts of output with a pause between them are redraws.
Its time is the process', its memory the most that was resident. Then the run is over and the node gone, and the monitor
is opened again: the first paint is when its screen says how many tasks were done.

    python -m tests.bench.monitor --tasks 100000
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
from pathlib import Path

from tests.bench.peers import verdict

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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.monitor", description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        command = [sys.executable, "-m", "tests.bench.beside", "node", name, str(asked.tasks)]
        node = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert node.stdin is not None and node.stdout is not None
        node.stdout.readline()
        seen = Watched(place / ".gx")
        seen.look(2.0)
        node.stdin.write("\n")
        node.stdin.flush()
        cpu_s, began_s, redraws = seen.cpu_s(), time.monotonic(), seen.redraws
        while not select.select([node.stdout], [], [], 0)[0]:
            seen.look(0.5)
        took_s, rate = time.monotonic() - began_s, float(node.stdout.readline())
        cpu_s, drawn = seen.cpu_s() - cpu_s, seen.redraws - redraws
        behind_s = time.monotonic()
        is_level = b"finished" in seen.screen or seen.look(60.0, until=b"finished")
        behind_s = time.monotonic() - behind_s
        peak_mib = seen.peak_mib
        seen.end()
        node.stdin.write("\n")
        node.stdin.flush()
        node.wait()
        opened = Watched(place / ".gx")
        is_painted = opened.look(60.0, until=f"{asked.tasks:,}/{asked.tasks:,}".encode())
        paint_s = time.monotonic() - opened.began_s
        opened.end()
    sys.stdout.write(f"{rate:,.0f} tasks/s for {took_s:.1f} s; level with it {behind_s:.1f} s after its end\n")
    if not (is_level and is_painted):
        sys.stdout.write("the screen never said what it should\n")
        return 1
    return verdict(
        ("share of a core", cpu_s / took_s, 0.25, False),
        ("redraws a second", drawn / took_s, 5.0, True),
        ("MiB resident at most", peak_mib, 200.0, False),
        ("seconds to the first paint of a finished run", paint_s, 1.5, False),
    )


if __name__ == "__main__":
    sys.exit(main())
