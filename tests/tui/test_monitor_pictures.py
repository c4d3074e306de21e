"""What the monitor's screens look like: at three sizes, in two themes, and in ASCII alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from gx.tui.glyphs import ASCII
from tests.tui.screens import SIZES, assert_like, painted, screen_of, settled, watching
from tests.tui.written import a_run

pytestmark = pytest.mark.anyio
VIEWS = {"1": "run", "2": "tasks", "3": "workers", "4": "failures", "5": "decisions", "7": "events", "9": "runs"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_run().write(tmp_path_factory.mktemp("seen") / ".gx")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_each_view_at_each_size(place: Path, size: tuple[int, int]) -> None:
    async with watching(place, size) as pilot:
        for key, name in VIEWS.items():
            await pilot.press(key)
            await settled(pilot)
            assert_like(f"{name}-{size[0]}x{size[1]}", screen_of(pilot))


@pytest.mark.parametrize("theme", ["light", "contrast"])
async def test_the_first_view_in_other_colours(place: Path, theme: str) -> None:
    async with watching(place, (100, 30), theme=theme) as pilot:
        assert_like(f"run-{theme}", painted(pilot))


async def test_in_ascii_there_is_nothing_else(place: Path) -> None:
    async with watching(place, (80, 24), glyphs=ASCII) as pilot:
        for key in "124579":
            await pilot.press(key)
            await settled(pilot)
            assert screen_of(pilot).isascii(), screen_of(pilot)
        await pilot.press("1")
        await settled(pilot)
        assert_like("run-ascii", screen_of(pilot))


async def test_a_task_by_itself(place: Path) -> None:
    async with watching(place, (100, 30)) as pilot:
        await pilot.press("2", "enter")
        await settled(pilot)
        await settled(pilot)
        assert_like("task", screen_of(pilot))


async def test_the_keys_as_the_help_shows_them(place: Path) -> None:
    async with watching(place, (100, 40)) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        assert_like("help", screen_of(pilot))
