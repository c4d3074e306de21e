"""One container's process: the real entry point, in a folder of its own that stands for `/`.

Started by exec in a session of its own, with no variable of the plane's beyond those named here. Its stdin is a
lifeline (see `lifeline`): it ends when the plane does. It leads a process group, so what it started ends with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from pathlib import Path

from cloud.loopback import lifeline
from cloud.loopback.rpc import TASK_HEADER

# What an interpreter may need to run at all.
_INHERITED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "TZ")
# The SDK waits this long between heartbeats, and 0.1 s longer for the answer to one.
HEARTBEAT_S = 5.0
# Whoever inherited its stdout could keep that open for ever.
_LAST_WORDS_S = 0.5


def environment(
    *, url: str, task_id: str, root: Path, arguments: Path, config: Path, python: Path, extra: Mapping[str, str]
) -> dict[str, str]:
    """The variables of a container. `extra` is the image's and the secrets'; they can't displace the protocol's."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    home = str(root / "root")
    return {
        **inherited,
        **extra,
        "PATH": f"{python.parent}{os.pathsep}{inherited.get('PATH', os.defpath)}",
        "HOME": home,
        "PYTHONPATH": home,
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        lifeline.VARIABLE: "1",
        "MODAL_CONTAINER_ARGUMENTS_PATH": str(arguments),
        "MODAL_SERVER_URL": url,
        "MODAL_TASK_ID": task_id,
        "MODAL_IS_REMOTE": "1",
        "MODAL_CONFIG_PATH": str(config),
        "MODAL_HEARTBEAT_INTERVAL": str(HEARTBEAT_S),
        "MODAL_OVERRIDE_HEADERS": f"{TASK_HEADER}:{task_id}",
    }


class ContainerProcess:
    """A container that was started."""

    def __init__(self, process: Process, on_line: Callable[[int, str], None]) -> None:
        self._process = process
        self._on_line = on_line
        self._last_words = ""
        self._is_over = False

    @classmethod
    async def start(
        cls, python: Path, root: Path, env: Mapping[str, str], on_line: Callable[[int, str], None]
    ) -> ContainerProcess:
        """Start the entry point. `on_line` gets each line, with 1 for stdout or 2 for stderr.

        :raises OSError: if it can't be started.
        """
        process = await asyncio.create_subprocess_exec(
            python,
            *("-m", "modal._container_entrypoint"),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd=root / "root",
            env=dict(env),
            start_new_session=True,
        )
        return cls(process, on_line)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ended(self) -> str:
        """Read what it prints until it is gone, and say how it ended. Cancelled, it kills it."""
        readers = [
            asyncio.create_task(self._read(stream, fd))
            for stream, fd in ((self._process.stdout, 1), (self._process.stderr, 2))
            if stream is not None
        ]
        try:
            status = await self._process.wait()
            await asyncio.wait(readers, timeout=_LAST_WORDS_S)
        finally:
            self.signal(signal.SIGKILL)
            self._is_over = True
            for reader in readers:
                reader.cancel()
        if status < 0:
            return f"signal {signal.Signals(-status).name}"
        return f"exit status {status}: {self._last_words}" if status and self._last_words else f"exit status {status}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal: SIGKILL to all that it started, any other to itself. Once it is over, nobody gets one."""
        if self._is_over:
            return
        try:
            if number == signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
        except (ProcessLookupError, PermissionError):
            return

    async def _read(self, stream: asyncio.StreamReader, fd: int) -> None:
        rest = b""
        while chunk := await stream.read(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._say(fd, line.decode("utf-8", "replace") + "\n")
        if rest:
            self._say(fd, rest.decode("utf-8", "replace"))

    def _say(self, fd: int, text: str) -> None:
        self._on_line(fd, text)
        if fd == 2 and text.strip():
            self._last_words = text.strip()
