"""What is painted, and when: only lines that changed, and of the workers no more lines than there is room for."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.text import Text
from textual.geometry import Region

from gx.node.client import Progress
from gx.node.status import NodeStatus, RunStatusNow
from gx.tui.feed import AHEAD
from gx.tui.states import State
from gx.tui.widgets.drawn import Drawn
from gx.tui.widgets.grid import TaskGrid
from gx.tui.workers import seats
from tests.tui.screens import busy, monitor, watching
from tests.tui.written import a_run

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_run().write(tmp_path_factory.mktemp("drawn") / ".gx")


async def test_of_a_pane_only_the_lines_that_changed_are_painted(place: Path) -> None:
    async with watching(place) as pilot:
        pane = pilot.app.query_one("#p-backlog", Drawn)
        lines = [Text(f"line {n}") for n in range(5)]
        pane._draw = lambda width, height: list(lines)
        pane.redraw()
        pane._exchange_repaint_regions()
        lines[3] = Text("another")
        lines[4] = Text("line 4", "bold")
        pane.redraw()
        left, top = pane.content_offset
        width = pane.size.width
        assert pane._exchange_repaint_regions() == {Region(left, top + y, width, 1) for y in (3, 4)}
        pane.redraw()
        assert not pane._exchange_repaint_regions()


async def test_a_pane_that_has_fewer_lines_than_before_clears_the_rest(place: Path) -> None:
    async with watching(place) as pilot:
        pane = pilot.app.query_one("#p-backlog", Drawn)
        lines = [Text("one"), Text("two")]
        pane._draw = lambda width, height: list(lines)
        pane.redraw()
        del lines[1]
        pane._exchange_repaint_regions()
        pane.redraw()
        assert {region.y - pane.content_offset.y for region in pane._exchange_repaint_regions()} == {1}
        assert "two" not in pane.render_line(1).text


async def test_of_the_grid_only_the_lines_whose_tasks_changed_are_painted(place: Path) -> None:
    async with watching(place, (40, 30)) as pilot:
        app, grid = monitor(pilot), pilot.app.query_one("#grid", TaskGrid)
        await pilot.press("2")
        await pilot.pause()
        grid._exchange_repaint_regions()
        app.model.states[grid._columns + 3] = State.skipped
        grid.show(app.model)
        assert {region.y - grid.content_offset.y for region in grid._exchange_repaint_regions()} == {1}


async def test_a_grid_that_grows_beyond_the_screen_scrolls_to_its_last_task(place: Path) -> None:
    async with watching(place, (40, 20)) as pilot:
        app, grid = monitor(pilot), pilot.app.query_one("#grid", TaskGrid)
        await pilot.press("2")
        for tasks in (2_000, 5_000, 60):
            model = app.model
            for column, value in ((model.states, 0), (model.steps_of, 0), (model.attempts, 1)):
                del column[tasks:]
                column.extend([value] * (tasks - len(column)))
            model.rows[tasks:] = ["row"] * max(0, tasks - len(model.rows))
            grid.show(model)
            await pilot.pause()
            await pilot.press("G")
            await pilot.pause()
            assert grid.place == tasks - 1
            assert grid.virtual_size.height == -(-tasks // grid._columns)
            assert grid.show_vertical_scrollbar == (grid.virtual_size.height > grid.size.height)
            assert 0 <= grid.cursor // grid._columns - grid.scroll_offset.y < grid.size.height


async def test_the_last_of_so_many_lines_says_how_many_workers_are_left_out(place: Path) -> None:
    async with watching(place) as pilot:
        app = monitor(pilot)
        busy(app)
        model, paint, glyphs = app.model, app.paint, app.glyphs

        def shown(most: int) -> list[str]:
            found = seats(model, app.feed.status, app.feed.running, now_s=model.last_s, width=80, paint=paint,
                          glyphs=glyphs, most=most)  # fmt: skip
            return [seat.text.plain for seat in found]

        whole = shown(100)
        assert [line[2:7] for line in whole[5:]] == ["T-046", "T-045", "T-047", "T-048"], "what is written comes first"
        assert shown(len(whole)) == whole
        for most in range(1, len(whole)):
            found = shown(most)
            assert found[:-1] == whole[: most - 1]
            assert f" {len(whole) - most + 1} more" in found[-1]


async def test_half_of_what_came_of_a_live_run_is_left_for_the_next_picture(place: Path) -> None:
    async with watching(place) as pilot:
        app = monitor(pilot)
        for live, n_blocks, left in ((False, 5, 0), (True, 1, 0), (True, 5, 2), (True, AHEAD, 0)):
            app.feed.status = node_with(*[app.model.run] * live)
            for _ in range(n_blocks):
                app.feed.blocks.put([])
            app.fold(60.0)
            assert app.feed.blocks.qsize() == left, (live, n_blocks)
            app.feed.blocks.queue.clear()


def node_with(*runs: str) -> NodeStatus:
    """A node that has these runs live."""
    now = Progress(done=0, failed=0, reused=0, running=0, total=1, is_total_final=True, tokens_in=0, tokens_out=0,
                   elapsed_s=1.0)  # fmt: skip
    live = [
        RunStatusNow(run=run, name="r", status="running", clients=1, is_detached=False, priority=1.0, concurrency=None,
                     progress=now, backlog=0, tokens_per_s=None, left_s=None)
        for run in runs
    ]  # fmt: skip
    return NodeStatus(pid=1, gx="1", workspace="w", epoch=1, seq=1, stays=False, runs=tuple(live))
