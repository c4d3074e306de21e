"""A run that is given up before it has begun gives the shell back, whatever a thread still waits for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

_WAITS = """
import functools, sys, time
import anyio, anyio.to_thread
from gx import settings
from gx.cli import running

async def begin():
    def ask():
        print("asking", flush=True)
        time.sleep(600)
    await anyio.to_thread.run_sync(ask, abandon_on_cancel=True)

anyio.run(functools.partial(running._execute, begin, settings.load(), lambda *_: None, False, None))
"""


def test_a_ctrl_c_while_a_node_is_waited_for_ends_the_command() -> None:
    with subprocess.Popen([sys.executable, "-c", _WAITS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "asking\n"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
