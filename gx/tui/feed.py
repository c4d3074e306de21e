"""What the monitor reads, and from whom: the node while one is up, else the log's file, looked at when it changes.

Threads read; the screen takes what they left, in its own time. A reader waits when `AHEAD` blocks were not taken, so
that memory is bounded however fast a run writes. The node is asked for its status only while something happens, or it
would never find the rest that it leaves for; following its events keeps nobody up.

Invariant: the blocks of a run come in the order of `seq`, from the first event; `Began` says when they start anew.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gx.core.errors import GxError
from gx.node.call import NodeGone, Stream, find
from gx.node.previews import RunningNow
from gx.node.reader import ask, reading
from gx.node.status import NodeStatus
from gx.node.workspace import Workspace
from gx.tui import overview
from gx.tui.lines import Line, decode
from gx.tui.overview import RunRow

AHEAD = 24
POLL_S = 0.5
AGAIN_S = 0.25
RUNS_EVERY_S = 5.0
RUNS_SHARE = 1 / 100
"""Of the time while a run is live, for asking which runs there are: of a long log that takes longer, and is seldom."""
RUNS_SELDOM_S = 30.0
"""How old the list of runs may get all the same: a question may have waited, and taken long for no fault of the log."""
LONG_S = 60.0
_LINES = 800
"""Events that are handed over at a time: the screen folds them between two frames."""
_ID = "SELECT id FROM events WHERE seq = 0"
_PAGES = 2
"""Of the file, in memory at a time: some 10 MB."""


class Began(NamedTuple):
    """The events of `run` start anew with the next block."""

    run: str


class Feed:
    """Reads a workspace. What is known now stands in the attributes; each is replaced as a whole, never changed.

    `state` is "node" while a node answers, "file" while there is none, "gone" between its death and either.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.blocks: queue.Queue[list[Line] | Began] = queue.Queue(AHEAD)
        self.runs: list[RunRow] | None = None
        self.status: NodeStatus | None = None
        self.running: RunningNow | None = None
        self.state = "file"
        self.problem = ""
        self.watched: str | None = None
        """The task whose text is wanted as it comes."""
        self.threads: list[threading.Thread] = []
        """Those that read; each ends soon after `close`."""
        self._run: str | None = None
        self._generation = 0
        self._stream: Stream | None = None
        self._is_begun = False
        self._is_over = threading.Event()
        self._wake = threading.Event()

    @property
    def live(self) -> list[str]:
        """The runs that a node has live."""
        return [] if self.status is None else [run.run for run in self.status.runs]

    def start(self) -> None:
        """Begin to look at the workspace, unless that was begun before."""
        if not self._is_begun:
            self._is_begun = True
            self._read("gx-monitor-poll", self._poll)

    def attend(self, run: str) -> None:
        """Follow the events of that run from now on, instead of another's."""
        if run != self._run:
            self._run, self._generation = run, self._generation + 1
            self._end_stream()
            self._read("gx-monitor-events", self._follow, run, self._generation)
            self._wake.set()

    def _read(self, name: str, look: Callable[..., None], *args: object) -> None:
        """Look in a thread of that name."""
        thread = threading.Thread(target=look, args=args, name=name, daemon=True)
        self.threads = [*(one for one in self.threads if one.is_alive()), thread]
        thread.start()

    def wake(self) -> None:
        """Look again at once: something was asked of the node."""
        self._wake.set()

    def close(self) -> None:
        """Read nothing more."""
        self._is_over.set()
        self._generation += 1
        self._wake.set()
        self._end_stream()

    def table(self, sql: str, max_rows: int) -> Any:
        """The answer to a question. :raises GxError: if it can't be answered."""
        return ask(self.workspace, lambda reader: reader.table(sql, timeout_s=LONG_S, max_rows=max_rows))

    def story(self, subject: str) -> dict[str, Any]:
        """Everything of a run or a task. :raises GxError: if the log can't say."""
        return ask(self.workspace, lambda reader: reader.story(subject))

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _follow(self, run: str, generation: int) -> None:
        """The events of a run, of whoever has them, as long as it is attended to."""
        log, after, seen = None, -1, (-1, -1)
        self._hand_over(Began(run), generation)
        while self._generation == generation:
            try:
                client, changed = find(self.workspace.folder), _changed(self.workspace.folder)
                if client is not None or changed != seen:
                    if (now := self._log()) != log and log is not None:  # another log in its place
                        self._hand_over(Began(run), generation)
                        after = -1
                    log = now
                if client is not None:
                    seen = (-1, -1)
                    self._stream = client.stream("/v1/events", run=run, after=after, follow="true")
                    self.state = "node"
                    for lines in self._stream:
                        after = self._put(lines, generation, after)
                    self.state = "gone"
                elif changed != seen:
                    self.state = "file"
                    with reading(self.workspace) as reader:  # the log is let go before anybody waits for the screen
                        pages = list(islice(reader.pages(run=run, kind=None, after=after), _PAGES))
                    for page in pages:
                        after = self._put(page.splitlines(), generation, after)
                    self.problem = ""
                    if len(pages) == _PAGES:
                        continue
                    seen = changed
            except NodeGone:
                self.state = "gone"
            except (GxError, msgspec.MsgspecError) as error:
                self.problem = str(error)
            if self._is_over.wait(AGAIN_S):
                return

    def _log(self) -> object:
        """Which log it is, whatever file it stands in: the file system gives a number again that another one had."""
        return ask(self.workspace, lambda log: log.table(_ID, timeout_s=LONG_S, max_rows=1)).rows

    def _put(self, lines: list[bytes], generation: int, after: int) -> int:
        for start in range(0, len(lines), _LINES):
            block = decode(line for line in lines[start : start + _LINES] if line)
            if block:
                self._hand_over(block, generation)
                after = block[-1].seq
        return after

    def _hand_over(self, block: list[Line] | Began, generation: int) -> None:
        while self._generation == generation:
            try:
                self.blocks.put(block, timeout=AGAIN_S)
                break
            except queue.Full:
                continue

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()

    # ── what else there is ───────────────────────────────────────────────────────────────────────────────────────

    def _poll(self) -> None:
        """Runs, the node's status and what runs, again and again while anything changes."""
        changes, before = _moves(lambda: _changed(self.workspace.folder)), list[str]()
        due_s = float("-inf")
        while not self._is_over.is_set():
            has_changed, was_woken = next(changes), self._wake.is_set()
            self._wake.clear()
            if has_changed or was_woken or self.live:
                self._look_at_node()
                is_due = time.monotonic() > due_s or self.live != before
                if self.runs is None or was_woken or is_due or not self.live:
                    began_s, before = time.monotonic(), self.live
                    self._look_at_runs()
                    now_s = time.monotonic()
                    due_s = now_s + rest_s(now_s - began_s)
            self._wake.wait(POLL_S)

    def _look_at_node(self) -> None:
        try:
            client = find(self.workspace.folder)
            self.status = None if client is None else client.ask("GET", "/v1/node", kind=NodeStatus)
            if client is not None and self._run in self.live:
                self.running = client.ask("GET", f"/v1/runs/{self._run}/running", kind=RunningNow, task=self.watched)
            else:
                self.running = None
        except (NodeGone, GxError):
            self.status = self.running = None

    def _look_at_runs(self) -> None:
        try:
            rows = self.table(overview.SQL, overview.MOST_RUNS).rows if self.workspace.has_log() else []
            self.runs = overview.runs_of(rows)
            self.problem = ""
        except GxError as error:
            self.problem = str(error)


def rest_s(took_s: float) -> float:
    """How long to wait, while a run is live, before it is asked again which runs there are."""
    return min(RUNS_SELDOM_S, max(RUNS_EVERY_S, took_s / RUNS_SHARE))


def _moves(look: Callable[[], object]) -> Iterator[bool]:
    """Whether what `look` gives has changed since it was asked the last time; at first it has."""
    before: object = None
    while True:
        now = look()
        yield now != before
        before = now


def _changed(folder: Path) -> tuple[int, int]:
    """What differs when the log was written to, or another one stands in its place; zeros if there is none."""
    try:
        found = (folder / "log.head").stat()
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_ino
