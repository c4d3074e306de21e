"""A plane in a thread, a client of the real SDK beside it, and apps deployed by a client process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import modal
from anyio.from_thread import start_blocking_portal
from modal_proto import api_pb2

from cloud.loopback.logs import Line
from cloud.loopback.plane import Plane, Report

SHIPPED = Path(__file__).parent / "shipped"
WAIT_S = 60


class World:
    """A plane that runs in a thread, a client of it, and the variables for other clients.

    `definitions` are what containers of its functions run, the last that was asked for last.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        environ: dict[str, str],
        report: Callable[[], Report],
        lines: Callable[[], list[Line]],
        definitions: Callable[[], list[api_pb2.Function]],
    ) -> None:
        self.folder, self.url, self.environ, self.report, self.lines = folder, url, environ, report, lines
        self.definitions = definitions
        self.client = modal.Client.from_credentials(environ["MODAL_TOKEN_ID"], environ["MODAL_TOKEN_SECRET"])

    def python(self, code: str) -> str:
        """What a client process of its own prints. It imports the shipped apps by name."""
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **self.environ, "PYTHONPATH": str(SHIPPED)},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def deploy(self, name: str = "loopback_app") -> None:
        self.python(f"import {name}; {name}.app.deploy()")

    def worker(self, app: str = "loopback-tests", cls: str = "Worker") -> modal.Cls:
        return modal.Cls.from_name(app, cls, client=self.client)

    def printed(self, text: str) -> bool:
        """Wait until a container prints this."""
        self.until(lambda _: any(text in line.text for line in self.lines()))
        return True

    def until(self, holds: Callable[[Report], bool]) -> Report:
        """Wait until the report is so."""
        until = time.monotonic() + WAIT_S
        while not holds(report := self.report()):
            assert time.monotonic() < until, report
            time.sleep(0.02)
        return report


@contextmanager
def world(folder: Path, **options: object) -> Iterator[World]:
    with ExitStack() as exits:
        portal = exits.enter_context(start_blocking_portal())
        plane = exits.enter_context(portal.wrap_async_context_manager(Plane(folder, **options)))
        exits.enter_context(mock.patch.dict(os.environ, plane.environ()))
        made = World(
            folder,
            plane.url,
            plane.environ(),
            lambda: portal.call(_report, plane),
            lambda: list(plane.logs),
            lambda: portal.call(_definitions, plane),
        )
        exits.callback(made.client.close)
        yield made
        assert made.report().broken == ()
        assert made.report().unspoken == ()


async def _report(plane: Plane) -> Report:
    return plane.report()


async def _definitions(plane: Plane) -> list[api_pb2.Function]:
    return [plane._functions.definition(name) for name in plane._functions._functions]
