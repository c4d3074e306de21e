"""The plane as a process: what it says, when it ends, and what it leaves behind, which is nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.world import SHIPPED, WAIT_S


class Loopback:
    """`python -m cloud.loopback` and what it said first."""

    def __init__(self, folder: Path, settings: str = "{}") -> None:
        words = [sys.executable, "-m", "cloud.loopback", str(folder), settings]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hello = self.line()

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def report(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("report\n")
        self.process.stdin.flush()
        return self.line()

    def napping(self) -> int:
        """Deploy the tests' app, let a container nap for long, and say its process id."""
        code = "import loopback_app as it; it.app.deploy(); it.Worker().pid_then_nap.spawn(60); print(it.news.get())"
        env = {**os.environ, **self.hello["environ"], "PYTHONPATH": str(SHIPPED)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=180, check=True
        )
        return int(done.stdout)


@pytest.fixture
def loopback(tmp_path: Path) -> Iterator[Loopback]:
    made = Loopback(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()


def is_running(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped doesn't."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in ("", "Z")


def assert_ends(pid: int) -> None:
    until = time.monotonic() + WAIT_S
    while is_running(pid):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_it_ends_with_its_stdin_and_takes_its_containers_along(loopback: Loopback) -> None:
    pid = loopback.napping()
    assert is_running(pid)
    assert loopback.report()["calls"] == {"running": 1}
    assert loopback.process.stdin is not None
    loopback.process.stdin.close()
    assert loopback.line()["bills"][0]["gpu"] == "L4"
    assert loopback.process.wait(WAIT_S) == 0
    assert_ends(pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_its_containers_end_even_when_it_is_killed(loopback: Loopback, number: signal.Signals) -> None:
    pid = loopback.napping()
    loopback.process.send_signal(number)
    loopback.process.wait(WAIT_S)
    assert_ends(pid)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('{"cold_start_s": "long"}', "Expected `float`, got `str` - at `$.cold_start_s`"),
        ('{"faults": {"killl": [1]}}', "contains unknown field `killl` - at `$.faults`"),
        ('{"faults": {"lose": [{"rpc": "FunctionGetInputs"}]}}', "FunctionGetInputs"),
        ('{"max_containers": 0}', "Expected `int` >= 1 - at `$.max_containers`"),
        ("{", "truncated"),
    ],
)
def test_settings_that_cannot_be_used_are_explained(tmp_path: Path, settings: str, said: str) -> None:
    words = [sys.executable, "-m", "cloud.loopback", str(tmp_path), settings]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = [sys.executable, "-m", "cloud.loopback", str(tmp_path / "file" / "below")]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("the loopback can't serve from")
    assert "Traceback" not in done.stderr
