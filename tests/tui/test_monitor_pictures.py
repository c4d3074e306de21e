"""What the monitor's screens look like: each at three sizes and in two themes, and in ASCII alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from gx.tui.glyphs import ASCII
from gx.tui.screens.dialogs import Fill
from tests.tui.screens import SIZES, assert_like, busy, monitor, painted, screen_of, settled, watching
from tests.tui.written import a_run

pytestmark = pytest.mark.anyio
VIEWS = {"1": "run", "2": "tasks", "3": "workers", "4": "failures", "5": "decisions", "6": "asked", "7": "events",
         "9": "runs"}  # fmt: skip
WINDOWS = {"x": "confirm", "a": "choose", "question_mark": "help"}
THEME_SIZE = (80, 24)
"""The text is the same in each theme, so that one size shows what differs."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_run().write(tmp_path_factory.mktemp("seen") / ".gx")


async def screens(pilot: Pilot[None]) -> AsyncIterator[str]:
    """Go from screen to screen; the name of each while it is there."""
    app = monitor(pilot)
    busy(app)
    for key, name in VIEWS.items():
        await pilot.press(key)
        await settled(pilot)
        yield name
    await pilot.press("8", "enter")
    await settled(pilot)
    await pilot.press("escape")  # out of the box, whose cursor blinks
    yield "sql"
    await pilot.press("2", "enter")
    await settled(pilot)
    await settled(pilot)
    yield "task"
    await pilot.press("escape", "5")
    await settled(pilot)
    await pilot.press("enter")
    await pilot.pause()
    yield "tell"
    await pilot.press("escape")
    for key, name in WINDOWS.items():
        await pilot.press(key)
        await pilot.pause()
        yield name
        await pilot.press("escape")
    app.push_screen(Fill("Change a run", [("At most so many tasks at once", "4"), ("Budget", "")], "enter: next"))
    await pilot.press("tab")
    yield "fill"


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_each_screen_at_each_size(place: Path, size: tuple[int, int]) -> None:
    async with watching(place, size) as pilot:
        async for name in screens(pilot):
            assert_like(f"{name}-{size[0]}x{size[1]}", screen_of(pilot))


@pytest.mark.parametrize("theme", ["light", "contrast"])
async def test_each_screen_in_other_colours(place: Path, theme: str) -> None:
    async with watching(place, THEME_SIZE, theme=theme) as pilot:
        async for name in screens(pilot):
            if name != "fill":  # its cursor blinks
                assert_like(f"{name}-{theme}", painted(pilot))


async def test_in_ascii_there_is_nothing_else(place: Path) -> None:
    async with watching(place, (80, 24), glyphs=ASCII) as pilot:
        for key in "345679821":
            await pilot.press("escape", key)
            await settled(pilot)
            assert screen_of(pilot).isascii(), key
            if key in "13":
                assert_like(f"{VIEWS[key]}-ascii", screen_of(pilot))
        await pilot.press("x")
        await pilot.pause()
        assert screen_of(pilot).isascii()


async def test_a_screen_of_a_few_lines_has_the_steps_the_tasks_and_the_question(place: Path) -> None:
    async with watching(place, (40, 12)) as pilot:
        assert_like("run-40x12", screen_of(pilot))
        await pilot.press("x")
        await pilot.pause()
        assert "y yes, do it" in screen_of(pilot)
