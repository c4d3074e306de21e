"""One line on a terminal's stderr that says how a run stands; nothing where stderr is no terminal.

The line is wiped before anything else is written, so that results and notes stand on lines of their own.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections import deque
from typing import TYPE_CHECKING

from gx import output
from gx.core.words import duration

if TYPE_CHECKING:
    from gx.node.client import Progress
    from gx.node.remote import RemoteRun

EVERY_S = 0.25
WINDOW_S = 15.0
"""Rates are measured over this much of the past."""


class StatusLine:
    """Follows a run until it is cancelled."""

    def __init__(self, name: str, *, is_shown: bool = True) -> None:
        self._name = name
        self._is_shown = False
        is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._is_wanted = is_shown and is_terminal and not output.is_quiet()
        self._samples: deque[tuple[float, int, int]] = deque()
        self._told, self._asked = set[str](), set[str]()

    async def follow(self, run: RemoteRun) -> None:
        """Draw the line again and again, and above it what there is to note."""
        import anyio

        while True:
            while run.notes:
                self.clear()
                output.note(run.notes.pop(0))
            self.tell(run)
            if self._is_wanted and (progress := run.progress()) is not None:
                self._draw(progress)
            await anyio.sleep(EVERY_S)

    def tell(self, run: RemoteRun) -> None:
        """Note what the run's rules did, each thing once, and what a person is asked, also if it is asked again."""
        if (now := run.progress()) is None:
            return
        notes, asked = [f"note: {note}" for note in now.notes], asking(run.started.run, now)
        for text in (*notes, *asked):
            if text not in self._told | self._asked:
                self.clear()
                output.note(text)
        self._told.update(notes)
        self._asked = set(asked)

    def clear(self) -> None:
        """Wipe the line, so that something else can be written."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._is_shown = False

    def _draw(self, now: Progress) -> None:
        width = os.get_terminal_size(sys.stderr.fileno()).columns
        sys.stderr.write("\r\x1b[K" + self.text(now)[: width - 1])
        sys.stderr.flush()
        self._is_shown = True

    def text(self, now: Progress) -> str:
        """The line for this moment: tasks done, failures, tokens a second, time to go."""
        self._samples.append((now.elapsed_s, now.done - now.reused, now.tokens_out))
        while self._samples[0][0] < now.elapsed_s - WINDOW_S and len(self._samples) > 2:
            self._samples.popleft()
        began_s, done_then, tokens_then = self._samples[0]
        past_s = now.elapsed_s - began_s
        total = f"{now.total:,}" if now.is_total_final else f"{now.total:,}+"
        parts = [f"{self._name}  {now.done:,}/{total} done"]
        if now.failed:
            parts.append(f"{now.failed:,} failed")
        if past_s > 1:
            parts.append(f"{(now.tokens_out - tokens_then) / past_s:,.1f} tokens/s")
            rate = (now.done - now.reused - done_then) / past_s
            if rate > 0 and now.is_total_final:
                parts.append(f"{duration((now.total - now.done) / rate)} to go")
        return " · ".join(parts)


def asking(run: str, now: Progress) -> list[str]:
    """What only a person can do for a run to go on, each with the command that does it."""
    told = []
    for question in now.questions:
        name = f" --question {question.question}" if len(now.questions) > 1 else ""
        choices = " | ".join(shlex.quote(choice) for choice in question.choices)
        told.append(f"{question.by or 'the run'} asks: {question.text}\nanswer with: gx answer {run}{name} {choices}")
    if now.paused_steps and not now.questions:
        steps = ", ".join(now.paused_steps)
        told.append(f"paused: step {steps}; let it go on with: gx resume {run}")
    return told
