"""Telling somebody who isn't looking: a command that is run, or an address that is posted to, by the node.

So a notice comes even where the run was detached. Invariants: what leaves the machine is an event before it does; how
each notice ended is an event too; and none of it holds the run up or fails it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup

from gx import __version__
from gx.core import event as e
from gx.core.errors import LogError
from gx.core.ids import digest
from gx.core.inert import inert
from gx.node import notices
from gx.node.attached import LocalRun
from gx.node.client import Submission
from gx.node.names import as_meant
from gx.node.notices import About, Notice

EVERY_S = 0.25
COMMAND_S = 60.0
"""How long a command may take."""
POST_S = 10.0
TRIES = 3
"""Times that a notice is posted, where nobody answers or the other side failed; the waits between double."""
FIRST_WAIT_S = 1.0
_PASSED_ON = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "DISPLAY",
    "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS",
)  # fmt: skip
"""What of the environment a command gets: what it takes to find programs and to show something, and no secrets."""

Commit = Callable[[list[e.Body]], Awaitable[None]]
Environment = dict[str, str]


class Notifiers:
    """Those of all runs, each until its run is over and everybody was told so."""

    def __init__(self, *, commit: Commit, now: Callable[[], float]) -> None:
        self._commit, self._now = commit, now
        self._watching: dict[LocalRun, Notifier] = {}
        """By the run as it is live now: one that ends and is resumed is told of by another."""

    @property
    def n_runs(self) -> int:
        """Runs whose notices are not all told: the node stays for them."""
        return len(self._watching)

    def follow(self, run: LocalRun, wanted: Submission, group: TaskGroup) -> None:
        """See to it that those whom the submission names are told of the run, beside those that are already."""
        if (notifier := self._watching.get(run)) is not None:
            notifier.add(wanted.notify)
        elif wanted.notify:
            folder = Path(as_meant(wanted).folder)
            made = Notifier(run, wanted.notify, commit=self._commit, now=self._now, folder=folder)
            self._watching[run] = made
            group.start_soon(self._watch, run, made)

    async def _watch(self, run: LocalRun, notifier: Notifier) -> None:
        try:
            await notifier.watch()
        finally:
            del self._watching[run]


class Notifier:
    """Tells `targets` of one run. `commit` writes events, `now` is the wall clock, `folder` where commands run."""

    def __init__(
        self, run: LocalRun, targets: tuple[str, ...], *, commit: Commit, now: Callable[[], float], folder: Path
    ) -> None:
        self._run, self._commit, self._now, self._folder = run, commit, now, folder
        self._targets = list(targets)
        self._told = set[str]()

    def add(self, targets: tuple[str, ...]) -> None:
        """Tell these too: who joins a run may want to know of its end."""
        self._targets += [target for target in targets if target not in self._targets]

    async def watch(self) -> None:
        """Until the run is over and everybody was told so."""
        async with anyio.create_task_group() as group:
            while not self._run.active.is_over:
                for one in notices.due(self._run.state, self._told):
                    self._told.add(one.key)
                    group.start_soon(self._tell_all, one.about, one.question)
                await anyio.sleep(EVERY_S)
        await self._tell_all("ended", "")

    async def _tell_all(self, about: About, question: str) -> None:
        made = notices.notice(self._run.state, self._run.end(), about, at=self._now(), question=question)
        async with anyio.create_task_group() as group:
            for target in self._targets:
                group.start_soon(self._tell, target, made)

    async def _tell(self, target: str, made: Notice) -> None:
        body, to = msgspec.json.encode(made), notices.destination(target)
        try:
            if notices.is_address(target):
                error = await self._post(target, to, made, body)
            else:
                error = await anyio.to_thread.run_sync(
                    run_command, target, body, environment(made), self._folder, abandon_on_cancel=True
                )
            await self._commit([e.NoticeEnded(run=made.run, about=made.event, to=to, error=error)])
        except LogError:  # nothing can be written any more, which the run is told; and nothing leaves unwritten
            pass
        except Exception:  # the node goes on, whatever a command or an address comes up with
            logging.getLogger("gx").exception("a notice could not be told")

    async def _post(self, address: str, to: str, made: Notice, body: bytes) -> str:
        """Post it, again where that may help. Why it didn't arrive; "" if it did."""
        fields = made.__struct_fields__
        leaves = e.NoticeLeaves(
            run=made.run, about=made.event, to=to, fields=fields, bytes=len(body), digest=digest(body)
        )
        error = ""
        for attempt in range(TRIES):
            if attempt:
                await anyio.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
            await self._commit([leaves])
            error, may_help = await post(address, body)
            if not error or not may_help:
                break
        return error


async def post(address: str, body: bytes) -> tuple[str, bool]:
    """Post JSON once: why it didn't arrive ("" if it did), and whether to try again. No redirect is followed."""
    import httpx

    headers = {"content-type": "application/json", "user-agent": f"gx/{__version__}"}
    try:
        async with httpx.AsyncClient(timeout=POST_S, follow_redirects=False) as client:
            answer = await client.post(address, content=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return f"nobody answered: {type(error).__name__}", True
    if answer.is_success:
        return "", False
    return f"answered with status {answer.status_code}", answer.is_server_error or answer.status_code == 429


def run_command(command: str, body: bytes, env: Environment, folder: Path) -> str:
    """Run a line of the shell with the notice on its stdin. Why it failed; "" if it didn't.

    What it is given and what it says are in files: it need not read the one, and may leave a process behind that has
    the other open.
    """
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as said:
        told.write(body)
        told.seek(0)
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command], stdin=told, stdout=subprocess.DEVNULL, stderr=said, env=env, cwd=folder,
                start_new_session=True,
            )  # fmt: skip
            status = process.wait(COMMAND_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"it took more than {COMMAND_S:.0f} s"
        except OSError as error:
            return f"it can't be run: {error.strerror or error}"
        if status == 0:
            return ""
        said.seek(0)
        logging.getLogger("gx").warning("a --notify command ended with status %s: %s", status, _text(said.read(2000)))
        return f"it ended with status {status}; node.log has what it said"


def _text(content: bytes) -> str:
    return inert(content.decode("utf-8", "replace")).strip()


def environment(made: Notice, around: dict[str, str] | None = None) -> Environment:
    """What a command finds in its environment: the notice as GX_*, and what it takes to run at all."""
    around = dict(os.environ) if around is None else around
    told: dict[str, Any] = {
        "EVENT": made.event, "RUN": made.run, "STATUS": made.status, "QUESTION": made.question,
        "EXIT_CODE": "" if made.exit_code is None else made.exit_code,
        "SUCCEEDED": made.tasks.succeeded, "FAILED": made.tasks.failed, "LEFT": made.tasks.left, "USD": made.usd,
    }  # fmt: skip
    passed = {name: around[name] for name in _PASSED_ON if name in around}
    return passed | {f"GX_{name}": str(value) for name, value in told.items()}
