"""One answer as plain text on stdout: on a terminal as it is written, from previews; elsewhere when it is done.

Previews may have gaps, the answer in the log has none: what is printed in the end is that answer, from the first
character on if the preview was another one.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gx.core.inert import inert

if TYPE_CHECKING:
    from gx.node.client import Started
    from gx.node.remote import RemoteRun
    from gx.run.record import Record

EVERY_S = 0.1


class Answer:
    """Prints the answer of a run of one task, whose node owns `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_terminal = sys.stdout.isatty()
        self._told = ""
        self._is_done = False
        self._lock = threading.Lock()
        self.note = ""
        """What is to be said of the answer, once it is there."""

    def take(self, records: list[Record], started: Started) -> None:
        """Print the answer, or what is missing of it. :raises OSError: nobody reads, or a disk is full."""
        for record in records:
            if record.output is None:
                continue
            value = msgspec.json.decode(record.output)
            text = self._safe(value if isinstance(value, str) else record.output.decode())
            with self._lock:
                self._is_done = True
                is_rest = text.startswith(self._told)
                self._put((text[len(self._told) :] if is_rest else "\n" + text) + "\n")
            if record.task.finish != "stop":
                after = f" after {record.task.tokens_out:,} tokens" if record.task.cached is None else ""
                self.note = f"note: the answer is cut{after}; --max-tokens allows more"

    def leave(self) -> None:
        """End the line of an answer that has no end; nothing where there is none, or it is whole."""
        with self._lock:
            if self._told and not self._is_done:
                with contextlib.suppress(OSError):  # the terminal is gone
                    self._put("\n")

    async def follow(self, run: RemoteRun) -> None:
        """Print what is there already, again and again, until it is cancelled; nothing where stdout is no terminal."""
        import anyio
        import anyio.to_thread

        while self._is_terminal and not self._is_done:
            text = await anyio.to_thread.run_sync(self._preview, run.started.run, abandon_on_cancel=True)
            with self._lock:
                if not self._is_done and text.startswith(self._told) and text != self._told:
                    self._put(text[len(self._told) :])
                    self._told = text
            await anyio.sleep(EVERY_S)

    def _preview(self, run: str) -> str:
        """The text so far; none where nothing runs, or nobody can say."""
        from gx.core.errors import GxError
        from gx.node.call import NodeGone, find
        from gx.node.previews import RunningNow

        try:
            if (client := find(self._folder)) is None:
                return ""
            now = client.ask("GET", f"/v1/runs/{run}/running", kind=RunningNow)
            if not now.tasks:
                return ""
            now = client.ask("GET", f"/v1/runs/{run}/running", kind=RunningNow, task=now.tasks[0].task)
        except (NodeGone, GxError):
            return ""
        seen = now.tasks[0] if now.tasks else None
        return "" if seen is None or seen.is_cut else self._safe(seen.text.lstrip())

    def _safe(self, text: str) -> str:
        return inert(text) if self._is_terminal else text

    def _put(self, text: str) -> None:
        sys.stdout.buffer.write(text.encode("utf-8", "surrogatepass"))
        sys.stdout.buffer.flush()
