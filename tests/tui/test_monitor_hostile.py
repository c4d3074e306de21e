"""What models and rows write is shown and obeyed by nothing: escapes, markup, a million characters."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from textual.widgets import DataTable, Input

from gx.tui.widgets.longtext import LongText, wrapped
from tests.tui.screens import PATIENCE_S, screen_of, settled, watching
from tests.tui.written import ESCAPES, a_run

pytestmark = pytest.mark.anyio
ROW = f"[red]{ESCAPES}[/] [@click=app.quit]T[/]"


def harmless(screen: str) -> bool:
    return all(char == "\n" or char.isprintable() for char in screen)


async def test_escapes_and_markup_are_inert_in_every_view(tmp_path: Path) -> None:
    place = a_run(answer=ESCAPES + "[bold]", row=ROW).write(tmp_path / ".gx")
    async with watching(place) as pilot:
        for key in "1234567":
            await pilot.press(key)
            await settled(pilot)
            assert harmless(screen_of(pilot)), key
        await pilot.press("2")
        await settled(pilot)
        assert "[red]�[2J" in screen_of(pilot)
        await pilot.press("enter")
        await settled(pilot)
        await settled(pilot)
        assert harmless(screen_of(pilot))
        assert "owned" in screen_of(pilot)
        await pilot.press("y")
        assert harmless(pilot.app.clipboard)


async def test_escapes_are_inert_in_the_answer_to_sql(tmp_path: Path) -> None:
    place = a_run(answer=ESCAPES, row=ROW).write(tmp_path / ".gx")
    async with watching(place) as pilot:
        await pilot.press("8")
        pilot.app.query_one("#question", Input).value = "select id, output from results where index = 0"
        await pilot.press("enter")
        await settled(pilot)
        assert pilot.app.query_one(DataTable).row_count > 0
        assert harmless(screen_of(pilot))
        assert "[red]" in screen_of(pilot)


async def test_an_answer_of_a_million_characters_is_scrolled_like_any_other(tmp_path: Path) -> None:
    place = a_run(answer="word " * 200_000 + "THE END").write(tmp_path / ".gx")
    async with watching(place) as pilot:
        await pilot.press("2", "enter")
        await settled(pilot)
        text = pilot.app.screen.query_one(LongText)
        ends_s = time.monotonic() + PATIENCE_S
        while text.virtual_size.height <= 5000 and time.monotonic() < ends_s:
            await pilot.pause(0.02)
        await pilot.press("G", "k", "k", "g", "G")
        await settled(pilot)
        assert text.scroll_offset.y > 5000


def test_every_character_is_in_some_line_and_no_line_is_too_wide() -> None:
    text = "one two  three " * 40 + "x" * 500 + "\n漢字" * 30
    lines = list(wrapped(text, 40))
    assert all(len(line) <= 40 for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert list(wrapped("", 40)) == [""]
    assert all(len(line) <= 20 for line in wrapped("漢" * 100, 40))
