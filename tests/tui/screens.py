"""The monitor on a screen that a test looks at: a log that was written, a clock that stands, what is shown as text.

Pictures stand in `pictures/`, as the lines of the screen; a picture of a theme has the colours of its cells below, each
run of one style by a letter. Run the tests with GX_PICTURES=write to write them anew, and look at what changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import zip_longest
from pathlib import Path
from string import ascii_letters
from typing import Any

from textual.pilot import Pilot

from gx.core.protocol import SlotNow
from gx.node.client import Progress
from gx.node.previews import Preview, RunningNow
from gx.node.status import BenchNow, NodeStatus, RunStatusNow
from gx.node.workspace import Workspace
from gx.tui.app import Monitor
from gx.tui.feed import Feed
from gx.tui.glyphs import UNICODE, Glyphs

NOW_S = 1_700_000_060.0
PICTURES = Path(__file__).with_name("pictures")
PATIENCE_S = 60.0
"""How long a screen may take to come to what is waited for, on a machine that has others to serve."""
SIZES = ((80, 24), (120, 40), (200, 60))


@asynccontextmanager
async def watching(
    workspace: Path, size: tuple[int, int] = (120, 40), *, glyphs: Glyphs = UNICODE, **more: Any
) -> AsyncIterator[Pilot[None]]:
    """The monitor of a workspace, once it has folded what the log has."""
    app = Monitor(Feed(Workspace(workspace)), glyphs, clock=lambda: NOW_S, **more)
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        yield pilot


async def settled(pilot: Pilot[None]) -> None:
    """Wait until the log is folded, its recipe read, and the screen drawn."""
    app = monitor(pilot)
    ends_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_s:
        await pilot.pause(0.01)
        is_read = app.feed.runs is not None and app.model.seq >= 0 and app.feed.blocks.empty()
        if is_read and (app.vertices or not app.model.recipe):
            break
    await app.workers.wait_for_complete()
    app.tick()
    await pilot.pause()


async def until(pilot: Pilot[None], look: Callable[[], object]) -> None:
    """Let the monitor go on until that is so."""
    ends_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_s:
        monitor(pilot).tick()
        if look():
            return
        await pilot.pause(0.02)
    raise AssertionError("it never came to be")


def monitor(pilot: Pilot[None]) -> Monitor:
    app = pilot.app
    assert isinstance(app, Monitor)
    return app


def stand_still(app: Monitor) -> None:
    """Let nobody but the test say what there is: the threads of the feed have ended."""
    app.feed.close()
    for thread in app.feed.threads:
        thread.join()


def busy(app: Monitor) -> None:
    """As if a node were up whose bench runs what the log says: one sequence is read, one written, others wait."""
    running = [app.model.ids[place] for place in app.model.running]
    slots = (
        SlotNow(conversation="", tokens=120, prompt_tokens=393, is_prefill=True, tokens_per_s=459.0),
        SlotNow(conversation="", tokens=1431, prompt_tokens=1402, tokens_out=30, tokens_per_s=12.4),
    )
    seen = tuple(
        Preview(task=task, attempt=1, worker="edge", tokens_out=0 if slot is None else slot.tokens_out, slot=slot)
        for task, slot in zip_longest(running, slots)
    )
    bench = BenchNow(worker="edge", engine="llama", slots=4, slots_busy=2, threads=2, prompt_tokens_per_s=459.0,
                     written_tokens_per_s=186.2, cached_share=0.781, mean_queue_s=0.2)  # fmt: skip
    app.feed.status = NodeStatus(pid=1, gx="1", workspace="w", epoch=1, seq=1, stays=False, benches=(bench,))
    app.feed.running = RunningNow(run=app.model.run, tasks=seen)


def node_with(*runs: str, done: int = 0, total: int = 0) -> NodeStatus:
    """A node that has these runs live, each with so many tasks."""
    now = Progress(done=done, failed=0, reused=0, running=0, total=total, is_total_final=True, tokens_in=0,
                   tokens_out=0, elapsed_s=1.0)  # fmt: skip
    live = [
        RunStatusNow(run=run, name="r", status="running", clients=1, is_detached=False, priority=1.0, concurrency=None,
                     progress=now, backlog=0, tokens_per_s=None, left_s=None)
        for run in runs
    ]  # fmt: skip
    return NodeStatus(pid=1, gx="1", workspace="w", epoch=1, seq=1, stays=False, runs=tuple(live))


def screen_of(pilot: Pilot[None]) -> str:
    """The lines of the screen, without what is blank at their ends."""
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips) + "\n"


def painted(pilot: Pilot[None]) -> str:
    """The lines, then their styles: a letter a style, and how many cells it has."""
    names: dict[str, str] = {}
    rows = []
    for strip in pilot.app.screen._compositor.render_strips():
        runs: list[tuple[str, int]] = []
        for segment in strip:
            style = segment.style
            told = f"{style.color.name if style and style.color else '-'} on " + (
                f"{style.bgcolor.name if style and style.bgcolor else '-'}{' bold' if style and style.bold else ''}"
            )
            name = names.setdefault(told, ascii_letters[len(names)])
            runs = (
                [*runs[:-1], (name, runs[-1][1] + segment.cell_length)]
                if runs and runs[-1][0] == name
                else [
                    *runs,
                    (name, segment.cell_length),
                ]
            )
        rows.append(" ".join(f"{name}{count}" for name, count in runs))
    legend = "\n".join(f"{name}: {told}" for told, name in names.items())
    return screen_of(pilot) + "\n" + "\n".join(rows) + "\n\n" + legend + "\n"


def assert_like(name: str, found: str) -> None:
    """What is shown is what the picture of that name shows."""
    file = PICTURES / f"{name}.txt"
    if os.environ.get("GX_PICTURES") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(found)
    assert file.exists(), f"there is no picture {file.name}: write it with GX_PICTURES=write"
    assert found == file.read_text(), f"{file.name} shows something else"
