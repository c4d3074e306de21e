"""`gx monitor` in a terminal of its own: q gives the shell back, whoever is waited for."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gx import __version__
from gx.node import problem
from gx.node.address import listen
from gx.node.client import Started
from gx.node.status import NodeStatus
from tests.integration.project import GX
from tests.tui.screens import PATIENCE_S
from tests.tui.written import RECIPE, a_run

_LOOKS = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]")
LEAVES_S = 30.0
"""How long a process that leaves may take on a busy machine; one that waits for the answer never does."""


class Terminal:
    """A command in a terminal."""

    def __init__(self, *words: str, workspace: Path) -> None:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        env = os.environ | {"TERM": "xterm-256color", "GX_WORKSPACE": str(workspace), "HOME": str(workspace)}
        command = [*GX, *words]
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=workspace)
        os.close(theirs)
        self.screen = b""

    def press(self, keys: str) -> None:
        with contextlib.suppress(OSError):  # it has ended
            os.write(self._ours, keys.encode())

    def look(self, seconds: float, until: bytes | None = None) -> bool:
        """Read for so long, or until the screen says that, or the command has ended; whether it came to either."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if self.process.poll() is not None or (until is not None and until in self.screen):
                return True
            if select.select([self._ours], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):  # it is about to end
                    self.screen += os.read(self._ours, 1 << 16)
        return False

    @property
    def text(self) -> bytes:
        """What was written, without how it looks: whatever is asked for, be it the key that was taken for a letter."""
        return _LOOKS.sub(b"", self.screen)

    def drain(self) -> None:
        """Read what is left of a command that has ended."""
        with contextlib.suppress(OSError):
            while select.select([self._ours], [], [], 0.05)[0]:
                self.screen += os.read(self._ours, 1 << 16)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@contextlib.contextmanager
def node_that_never_answers(workspace: Path, but: dict[bytes, Any] | None = None) -> Iterator[list[bytes]]:
    """Takes whatever is asked of it, as long as the block lasts: the beginnings of it. It answers what is in `but`."""
    asked: list[bytes] = []
    kept: list[socket.socket] = []

    def take() -> None:
        with contextlib.suppress(OSError):  # the block has ended
            while True:
                kept.append(sock.accept()[0])
                asked.append(kept[-1].recv(1 << 12))
                for start, answer in (but or {}).items():
                    if asked[-1].startswith(start):
                        body = problem.encode(answer)
                        kept[-1].sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    sock = listen(workspace)
    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield asked
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        for one in (sock, *kept):
            one.close()


def press_until(terminal: Terminal, key: str, look: Callable[[], object]) -> None:
    """Press it again and again until that is so: on a busy machine a key may come before anything takes it."""
    ends = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < ends and terminal.process.poll() is None, terminal.screen
        terminal.press(key)
        terminal.look(2.0)


def test_q_gives_the_shell_back_while_the_answer_to_a_question_is_waited_for(tmp_path: Path) -> None:
    place = a_run().write(tmp_path / ".gx")
    with node_that_never_answers(place) as asked, contextlib.closing(Terminal("monitor", workspace=place)) as terminal:
        assert terminal.look(PATIENCE_S, until=b"reading the log"), terminal.screen
        press_until(terminal, "8", lambda: b"select step" in terminal.text or b"88" in terminal.text)
        press_until(terminal, "\r", lambda: any(request.startswith(b"POST /v1/query") for request in asked))
        ends = time.monotonic() + LEAVES_S
        while terminal.process.poll() is None and time.monotonic() < ends:
            terminal.press("\x1b")  # out of the box where it is written
            terminal.look(0.5)
            terminal.press("q")
            terminal.look(2.0)
        assert terminal.process.poll() == 0


def test_a_monitor_that_is_told_to_go_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    place = a_run().write(tmp_path / ".gx")
    with contextlib.closing(Terminal("monitor", workspace=place)) as terminal:
        assert terminal.look(PATIENCE_S, until=b"Tasks"), terminal.screen
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.look(LEAVES_S) and terminal.process.wait(LEAVES_S) == 130
        terminal.drain()
    assert b"\x1b[?1049l" in terminal.screen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_monitor_that_was_left_can_be_ended_while_it_asks_how_its_run_ended(tmp_path: Path, number: int) -> None:
    place, recipe = a_run().write(tmp_path / ".gx"), tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    begun = Started(run="triage-222222", name="triage", model="m", is_resumed=False, done_before=0, total=3)
    status = NodeStatus(pid=1, gx=__version__, workspace=str(place), epoch=1, seq=0, stays=True)
    answers = {b"GET /v1/node ": status, b"POST /v1/runs ": begun}
    with (
        node_that_never_answers(place, answers) as asked,
        contextlib.closing(Terminal("run", str(recipe), "--monitor", workspace=place)) as terminal,
    ):
        assert terminal.look(PATIENCE_S, until=b"reading the log"), terminal.screen
        press_until(terminal, "q", lambda: any(one.startswith(b"GET /v1/runs/triage-222222/end") for one in asked))
        terminal.process.send_signal(number)
        assert terminal.process.wait(LEAVES_S) == 130
