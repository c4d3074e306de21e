"""One `gx` process in a trial's folder: what it prints, its end or the kill, of it or of those that serve it.

It knows nothing of what was promised, but for one thing: that it ends in time. If it does not, it is asked what it
waits for before it is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from math import inf
from pathlib import Path
from typing import NamedTuple

from gx.core.errors import GxError
from gx.node.call import NodeGone, find
from tests import nodes
from tests.soak import traced
from tests.soak.promises import POISON, Broken
from tests.soak.story import Kill

START_S = 1.5
"""The time in which a process starts, loads its model and writes its first record, roughly."""
END_S = 90.0
"""A process that prints nothing for longer hangs; one with two poisoned rows takes 20 s on a busy machine."""
GX = (sys.executable, "-P", str(Path(traced.__file__)))


class Struck(NamedTuple):
    """What came of a kill: whether somebody was there to kill, benches that end by it, seconds to the next node."""

    has_struck: bool
    benches: set[int]
    takeover_s: float | None


class Process:
    """A `gx` command: its lines as they are printed, its notes, and its end."""

    def __init__(self, folder: Path, *args: str) -> None:
        homes = {name: str(folder / "home") for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
        self._workspace = folder / "ws"
        own = {"GX_WORKSPACE": str(self._workspace), "GX_THREADS": "1", "GX_BENCH_CRASH_ON": POISON, **homes}
        own["GX_NODE_LINGER_S"] = str(nodes.LINGER_S)
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

    def strike(self, kill: Kill) -> Struck:
        """Wait for the moment and kill. :raises Broken: if the moment doesn't come, or no node takes over in time."""
        if (records := kill.records) is not None and not self._has_come(records):
            raise self._hangs(f"has printed {len(self.lines)} lines, expected {records}")
        time.sleep(kill.share * (START_S if kill.records is None else 0.05))
        match kill.whom:
            case "gx":
                was_there = self.is_alive
                self._process.kill()
                return Struck(was_there, set(), None)
            case "node":
                return self._strike_node()
            case _:
                return self._strike_bench()

    def _has_come(self, records: float) -> bool:
        """Wait for so many lines, or the last one; whether that came, line by line, none after too long a pause."""
        with self._changed:
            while len(self.lines) < records and not self._is_read:
                if not self._changed.wait(END_S):
                    return False
        return True

    def _strike_node(self) -> Struck:
        """Kill the node, or what is about to be it; how long it takes until the next one answers."""
        node = nodes.until(lambda: nodes.node_of(self._workspace) or not self.is_alive, 3 * START_S)
        if node is True or not self.is_alive:
            return Struck(False, set(), None)
        victim = node or next(iter(nodes.nodes_of(self._workspace)), None)
        if not victim:
            return Struck(False, set(), None)
        benches = {bench.pid for bench in nodes.benches_of(victim)}
        began = time.monotonic()
        nodes.kill(victim)
        while not self._serves_after(victim):
            if not self.is_alive:  # it had all that it wanted
                return Struck(True, benches, None)
            if time.monotonic() - began > END_S:
                raise self._hangs("has no node again")
            time.sleep(0.005)
        return Struck(True, benches, time.monotonic() - began)

    def _serves_after(self, victim: int) -> bool:
        try:
            client = find(self._workspace)
            return client is not None and bool(client.ask("GET", "/v1/node")["pid"] != victim)
        except (NodeGone, GxError):
            return False

    def _strike_bench(self) -> Struck:
        def seen() -> set[int]:
            node = nodes.node_of(self._workspace)
            return {bench.pid for bench in nodes.benches_of(node)} if node is not None else set()

        found = nodes.until(lambda: seen() or not self.is_alive, 3 * START_S)
        benches = found if isinstance(found, set) else set[int]()
        for pid in benches:
            nodes.kill(pid)
        return Struck(bool(benches), benches, None)

    def kill(self) -> None:
        """End it, if it lives."""
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """Its exit status, once all that it wrote was read. :raises Broken: if it hangs."""
        try:
            if not self._has_come(inf):
                raise self._hangs("did not end")
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
        return Broken(f"{self.command} {what}; nothing came for {END_S:g} s\n{self.stderr}")
