"""The node of a workspace as a test sees it from outside: its process, its benches, its end.

A test names no process but by the workspace that it made: `gx.lock` says which process is its node, and what that
process was started with is looked at before anything is sent to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

LINGER_S = 0.3
"""How long a node stays where a test waits for it to leave."""
LINGERS_S = 10.0
"""How long where one command follows another: they share it, and the model that it has loaded."""
GONE_S = 60.0
PROC = Path("/proc")

T = TypeVar("T")


class Seen(NamedTuple):
    """A process in the list of the system. One that has ended, and that nobody has waited for, is none."""

    pid: int
    parent: int
    command: str


def processes() -> list[Seen]:
    """All processes that live. Read from the kernel where it tells: they are looked at many times a second."""
    if (PROC / "self" / "stat").exists():
        found = map(_seen, (int(one.name) for one in os.scandir(PROC) if one.name.isdigit()))
        return [one for one in found if one is not None]
    words = ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,command="]
    listed = subprocess.run(words, capture_output=True, text=True, check=True)
    rows = [line.split(None, 3) for line in listed.stdout.splitlines()]
    return [Seen(int(r[0]), int(r[1]), r[3]) for r in rows if len(r) == 4 and "Z" not in r[2]]


def _seen(pid: int) -> Seen | None:
    """A process of Linux, if it lives: one that has ended has no command any more."""
    try:
        command = (PROC / str(pid) / "cmdline").read_bytes()
        stat = (PROC / str(pid) / "stat").read_bytes()
    except OSError:  # it is gone
        return None
    words = " ".join(os.fsdecode(word) for word in command.split(b"\0"))
    return Seen(pid, int(stat.rpartition(b")")[2].split()[1]), words) if command else None


def node_of(workspace: Path) -> int | None:
    """The process id of the workspace's node; `None` if none is up."""
    try:
        pid = json.loads((workspace / "gx.lock").read_text() or "{}").get("pid")
    except (OSError, ValueError):
        return None
    is_its_node = any(
        p.pid == pid and "gx.node.serve" in p.command and str(workspace) in p.command for p in processes()
    )
    return pid if is_its_node else None


def nodes_of(workspace: Path) -> list[int]:
    """All processes that are the workspace's node, or are about to be."""
    return [p.pid for p in processes() if "gx.node.serve" in p.command and str(workspace) in p.command.split()]


def benches_of(node: int) -> list[Seen]:
    """The benches that the node has now."""
    return [p for p in processes() if p.parent == node and "edge.bench" in p.command]


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process, which may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def end_nodes(workspace: Path) -> None:
    """End what is up of the workspace's nodes, and wait until they and their benches are gone."""
    theirs = set[int]()
    while pids := nodes_of(workspace):  # a client that is going may start one more
        theirs |= {*pids, *(bench.pid for pid in pids for bench in benches_of(pid))}
        for pid in pids:
            kill(pid)
    assert are_gone(theirs), f"{theirs} outlived the test"


def are_gone(pids: set[int], within_s: float = GONE_S) -> bool:
    """Whether these nodes and benches have ended, or do within so long."""
    return until(lambda: not any(p.pid in pids and "python" in p.command for p in processes()), within_s) is True


def until(look: Callable[[], T], within_s: float = GONE_S) -> T:
    """What `look` gives, as soon as that is true; what it gave last, if it never is."""
    ends = time.monotonic() + within_s
    while not (found := look()) and time.monotonic() < ends:
        time.sleep(0.02)
    return found
