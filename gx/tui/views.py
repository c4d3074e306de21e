"""The monitor's views: which widgets each has, and how each is drawn from the model. Only the one on the screen is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.text import Text
from textual.containers import Container, Vertical
from textual.widget import Widget
from textual.widgets import ContentSwitcher, Static

from gx.core.inert import inert_line
from gx.tui import draw, panes, workers
from gx.tui.chart import chart
from gx.tui.overview import RunRow
from gx.tui.places import places_of
from gx.tui.states import State
from gx.tui.widgets.drawn import Drawn
from gx.tui.widgets.grid import TaskGrid
from gx.tui.widgets.rows import Rows
from gx.tui.widgets.sql import Sql

if TYPE_CHECKING:
    from gx.tui.app import Monitor


TASKS_SHARE = 0.35
"""Of the screen's height, for the tasks of a run with many."""
_FRAME_LINES = 3
"""The border, and the legend."""
_TOP_LINES = {"-wide": 10, "-vast": 14}
"""Of the panes above the others, by the width of the screen; on a narrow or a low one all stand below each other."""
_LEAST_TOP_LINES = 8
"""What a chart needs; a recipe of a few steps needs no more."""


class Views:
    """Makes the widgets of every view, and draws them."""

    def __init__(self, app: Monitor) -> None:
        self._app = app
        self._drawn: dict[str, object] = {}
        self._texts: dict[str, Text] = {}
        self._noted: tuple[object, list[Text]] = (None, [])
        self._panes = (
            Drawn(self._steps, title="Steps", id="p-steps", classes="pane"),
            Drawn(self._throughput, title="Tasks a second", id="p-throughput", classes="pane"),
            Drawn(self._bench_pane, title="Workers", id="p-workers", classes="pane"),
            Drawn(self._backlog, title="Backlog", id="p-backlog", classes="pane"),
            Drawn(self._notes, title="Decisions and failures", id="p-notes", classes="pane"),
        )

    def compose(self) -> Iterator[Widget]:
        """The views, one of which is on the screen."""
        app = self._app
        yield Container(
            *self._panes,
            Vertical(TaskGrid(app.glyphs, id="small-grid"), Static(id="legend"), id="p-tasks", classes="pane"),
            id="run",
        )
        yield Vertical(TaskGrid(app.glyphs, id="grid"), Static(id="at", classes="bottom"), id="tasks")
        yield Rows(lambda seat, _: seat.text.copy(), empty="no worker is up", id="workers")
        yield Rows(lambda one, _: panes.cause(one, app.paint), empty="nothing failed", id="failures")
        yield Rows(
            lambda one, _: panes.decision(one, app.paint),
            empty="nothing was decided yet",
            follows_end=True,
            id="decisions",
        )
        yield Rows(lambda one, _: panes.question(one, app.paint), empty="nobody is asked anything", id="asked")
        yield Rows(lambda line, _: panes.event(line, app.paint), empty="no event fits", follows_end=True, id="events")
        yield Sql(id="sql")
        yield Rows(self._run_line, empty="no run yet: `gx run RECIPE` makes one", id="runs")

    def draw(self) -> None:
        """Draw the view that is on the screen."""
        app = self._app
        tab = app.query_one("#views", ContentSwitcher).current or "run"
        model = app.model
        if tab == "run":
            for pane in self._panes:
                pane.redraw()
            self._fit_tasks()
            app.query_one("#small-grid", TaskGrid).show(model)
            width = app.query_one("#small-grid").size.width
            self._write("#legend", draw.legend(model.counts, width=width, paint=app.paint, glyphs=app.glyphs))
            self._entitle("#p-tasks", f"Tasks, {model.total:,}")
        elif tab == "tasks":
            app.query_one("#grid", TaskGrid).show(
                model, places_of(model, app.state_wanted, app.filters.get("tasks", ""))
            )
            self.tell_place()
        elif tab == "workers":
            self._list(tab, self._seats(app.query_one("#workers").size.width or app.size.width))
        elif tab == "runs":
            self._list(tab, app.feed.runs or [])
        elif tab == "failures":
            self._list(tab, model.causes.ranked())
        elif tab == "decisions":
            self._list(tab, list(model.decisions))
        elif tab == "asked":
            self._list(tab, list(model.questions.values()))
        elif tab == "events":
            self._list(tab, list(model.events))

    def _fit_tasks(self) -> None:
        """Beside other panes, the tasks get the lines that they need, up to a share of the screen, and no more."""
        app = self._app
        grid = app.query_one("#small-grid", TaskGrid)
        cells = max(1, grid.size.width - grid.scrollbar_size_vertical)
        lines = min(-(-app.model.total // cells), int(TASKS_SHARE * app.size.height)) + _FRAME_LINES
        classes = app.screen_stack[0].classes
        top = next((top for name, top in _TOP_LINES.items() if name in classes and "-low" not in classes), None)
        if top == _TOP_LINES["-wide"]:
            top = max(_LEAST_TOP_LINES, min(top, len(app.model.steps) + 2))
        rows = None if top is None else f"{top} 1fr {lines}"
        if self._drawn.get("rows") != rows:
            self._drawn["rows"] = rows
            app.query_one("#run").styles.grid_rows = rows

    def tell_place(self) -> None:
        """Say below the grid which task the cursor is on, and which are shown."""
        app, model = self._app, self._app.model
        place = app.query_one("#grid", TaskGrid).place
        text = draw.legend(model.counts, width=1000, paint=app.paint, glyphs=app.glyphs)
        if place is not None and place < model.total:
            state, step = State(model.states[place]), model.steps[model.steps_of[place]].name
            head = Text(f" {inert_line(model.rows[place])}: {state.name}, {step}", app.paint["bold"])
            head.append(f", attempt {model.attempts[place]}" if model.attempts[place] > 1 else "")
            text = head.append("   ").append_text(text)
        if app.state_wanted is not None:
            text = Text(f" only {app.state_wanted.name} (s) ", app.paint["cursor"]).append_text(text)
        self._write("#at", text)

    def _list(self, tab: str, rows: Sequence[object]) -> None:
        wanted = self._app.filters.get(tab, "").lower()
        rows_widget = self._app.query_one(f"#{tab}", Rows)
        if wanted:
            rows = [row for row in rows if wanted in rows_widget.line(row, 400).plain.lower()]
        rows_widget.show(rows)

    def _write(self, where: str, text: Text) -> None:
        """Write that there, if it isn't already. A layout is made where it has more lines than before, or fewer."""
        before = self._texts.get(where)
        if before != text:
            self._texts[where] = text
            is_as_high = before is not None and before.plain.count("\n") == text.plain.count("\n")
            self._app.query_one(where, Static).update(text, layout=not is_as_high)

    def _entitle(self, where: str, title: str) -> None:
        """Write a pane's title, if it is another one: Textual paints the pane for it."""
        if self._drawn.get(where) != title:
            self._drawn[where] = title
            self._app.query_one(where).border_title = title

    # ── panes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _steps(self, width: int, height: int) -> list[Text]:
        app = self._app
        return draw.steps(app.model, app.vertices, width=width, paint=app.paint, glyphs=app.glyphs)

    def _throughput(self, width: int, height: int) -> list[Text]:
        series = self._app.model.series
        return self._chart(series.rates(series.ended), width, height, "success")

    def _backlog(self, width: int, height: int) -> list[Text]:
        return self._chart([float(n) for n in self._app.model.series.backlog], width, height, "primary")

    def _chart(self, values: list[float], width: int, height: int, colour: str) -> list[Text]:
        app, series = self._app, self._app.model.series
        until = "now" if app.model.run in app.feed.live else "end"
        lines = chart(values, width=width, height=height, span_s=series.span_s, glyphs=app.glyphs, until=until)
        found = [Text.assemble((line[:7], app.paint["muted"]), (line[7:], app.paint[colour])) for line in lines]
        if found:
            found[-1].stylize(app.paint["muted"])
        return found

    def _bench_pane(self, width: int, height: int) -> list[Text]:
        return [seat.text for seat in self._seats(width, height, is_pane=True)]

    def _seats(self, width: int, most: int = workers.MOST_LISTED, *, is_pane: bool = False) -> list[workers.Seat]:
        app = self._app
        return workers.seats(
            app.model,
            app.feed.status,
            app.feed.running,
            now_s=app.now(),
            width=width,
            paint=app.paint,
            glyphs=app.glyphs,
            most=most,
            is_pane=is_pane,
        )

    def _notes(self, width: int, height: int) -> list[Text]:
        """The causes that failed most, then the newest decisions that fit; wrapped anew only where something is new."""
        app, model = self._app, self._app.model
        causes = [panes.cause(one, app.paint) for one in model.causes.ranked()[:3]]
        newest = model.decisions[-1].seq if model.decisions else -1
        key = (model.run, newest, width, height, app.theme, tuple(text.plain for text in causes))
        if self._noted[0] != key:
            lines: list[Text] = []
            for one in reversed(model.decisions):
                lines[:0] = panes.wrapped(panes.decision(one, app.paint), width, app.console)
                if len(lines) >= height - len(causes):
                    break
            self._noted = key, [*causes, *lines[-max(0, height - len(causes)) :]]
        return self._noted[1]

    def _run_line(self, row: RunRow, width: int) -> Text:
        app = self._app
        return panes.run(
            row, app.paint, app.glyphs, width=width, is_live=row.run in app.feed.live, is_shown=row.run == app.model.run
        )
