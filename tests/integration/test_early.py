"""Ctrl-C while the command is still loading: it ends at once and quietly, whatever it was about to do."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from gx.output import ExitCode
from tests.integration.project import Project

SECONDS = 0.3


def interpreter_s() -> float:
    """How long Python itself takes to start: until then the answer is its own."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", ""], check=True)
    return time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_gx_loads_ends_it_quietly(project: Project, number: int) -> None:
    instants = random.Random(7)
    least_s = max(interpreter_s() for _ in range(3))
    for _ in range(12):
        running = project.start("run", "recipe.yaml", "-i", "-")  # its stdin stays open, so it can't be done before
        time.sleep(least_s + instants.uniform(0, SECONDS))
        running.process.send_signal(number)
        status = running.process.wait(180)
        assert running.process.stderr is not None
        err = running.process.stderr.read().decode()
        if f"{os.sep}gx{os.sep}" not in err and (status == -number or "Traceback" in err):
            continue  # a slow start: the interpreter had not come to gx yet
        assert "Traceback" not in err and "Exception ignored" not in err, err
        assert status == ExitCode.interrupted, err
