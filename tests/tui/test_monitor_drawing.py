"""What is painted, and when: only lines that changed, and of the workers no more lines than there is room for."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.text import Text
from textual.geometry import Region

from gx.tui.feed import AHEAD
from gx.tui.model import RunModel
from gx.tui.states import State
from gx.tui.widgets.drawn import Drawn
from gx.tui.widgets.grid import TaskGrid
from gx.tui.workers import MOST_LISTED, seats
from tests.tui.screens import NOW_S, busy, monitor, node_with, stand_still, watching
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
            column_of(app.model, tasks)
            grid.show(app.model)
            await pilot.pause()
            await pilot.press("G")
            await pilot.pause()
            assert grid.place == tasks - 1
            assert grid.virtual_size.height == -(-tasks // grid._columns)
            assert grid.show_vertical_scrollbar == (grid.virtual_size.height > grid.size.height)
            assert 0 <= grid.cursor // grid._columns - grid.scroll_offset.y < grid.size.height


async def test_a_grid_that_gets_shorter_and_still_scrolls_shows_its_last_tasks(place: Path) -> None:
    async with watching(place, (40, 20)) as pilot:
        app, grid = monitor(pilot), pilot.app.query_one("#grid", TaskGrid)
        await pilot.press("2")
        column_of(app.model, 5_000)
        grid.show(app.model)
        await pilot.pause()
        await pilot.press("G")
        await pilot.pause()
        column_of(app.model, 1_500)
        grid.show(app.model)
        await pilot.pause()
        assert grid.show_vertical_scrollbar
        assert grid.scroll_offset.y <= grid.max_scroll_y
        assert grid.vertical_scrollbar.position == grid.scroll_offset.y
        assert all(grid.render_line(y).text.strip() for y in range(grid.size.height))


def column_of(model: RunModel, tasks: int) -> None:
    """As if the run had so many tasks, all of which wait."""
    for column, value in ((model.states, 0), (model.steps_of, 0), (model.attempts, 1)):
        del column[tasks:]
        column.extend([value] * (tasks - len(column)))
    model.rows[tasks:] = ["row"] * max(0, tasks - len(model.rows))


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
            assert found[-1].endswith(f" {len(whole) - most + 1} more"), "3 is said where it leads anywhere"


async def test_the_pane_of_workers_says_which_key_shows_the_rest_and_the_whole_list_does_not(place: Path) -> None:
    async with watching(place, (120, 40)) as pilot:
        app = monitor(pilot)
        busy(app)
        app.model.running |= dict.fromkeys(range(MOST_LISTED + 50), ("edge", 0.0))
        column_of(app.model, MOST_LISTED + 50)
        app.model.ids += [""] * (app.model.total - len(app.model.ids))
        assert app.views._bench_pane(50, 8)[-1].plain.endswith(" more: 3 shows them")
        assert app.views._seats(50)[-1].text.plain.endswith(" more")


async def test_a_legend_that_needs_a_second_line_gets_it(place: Path) -> None:
    async with watching(place, (80, 24)) as pilot:
        app = monitor(pilot)
        counts, one_state = list(app.model.counts), [0] * len(State)
        one_state[State.queued] = 9
        for now, n_lines in ((one_state, 1), (counts, 2), (one_state, 1), (counts, 2)):
            app.model.counts[:] = now
            app.tick()
            await pilot.pause()
            assert app.query_one("#legend").size.height == n_lines


async def test_the_charts_of_a_live_run_go_on_to_now_once_all_of_it_is_folded(place: Path) -> None:
    async with watching(place) as pilot:
        app = monitor(pilot)
        stand_still(app)
        model, series = app.model, app.model.series
        written = len(series.ended)
        for done, total in ((model.done + 1, model.total), (model.done, model.total + 1)):
            app.feed.status = node_with(model.run, done=done, total=total)
            app.tick()
            assert len(series.ended) == written, "what happened since then is still to be folded"
        app.feed.status = node_with(model.run, done=model.done, total=model.total)
        app.tick()
        assert series.began_s is not None
        assert len(series.ended) == 1 + int((NOW_S - series.began_s) / series.width_s) > written


async def test_charts_end_now_only_where_the_run_is_live(place: Path) -> None:
    async with watching(place) as pilot:
        app = monitor(pilot)
        stand_still(app)
        assert app.views._backlog(40, 6)[-1].plain.endswith("end"), "its node died"
        app.feed.status = node_with(app.model.run)
        assert app.views._backlog(40, 6)[-1].plain.endswith("now")


async def test_half_of_what_came_of_a_live_run_is_left_for_the_next_picture(place: Path) -> None:
    async with watching(place) as pilot:
        app = monitor(pilot)
        stand_still(app)
        for live, n_blocks, left in ((False, 5, 0), (True, 1, 0), (True, 5, 2), (True, AHEAD, 0)):
            app.feed.status = node_with(*[app.model.run] * live)
            for _ in range(n_blocks):
                app.feed.blocks.put([])
            app.fold(60.0)
            assert app.feed.blocks.qsize() == left, (live, n_blocks)
            app.feed.blocks.queue.clear()
