"""The monitor: a run's model, folded a little at a time, and the views that draw it.

`tick` is the one loop: it takes what the feed has left, folds for `FOLD_S` at most, and draws the view that is on the
screen. So a run that writes faster than can be folded makes the picture late, never the keys slow; and nothing is drawn
more often than every `TICK_S`. What a person wants goes to the node by `gx.tui.intents`, in a thread.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult, SystemCommand
from textual.binding import BindingType
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import ContentSwitcher, DataTable, Footer, Input, Static
from textual.worker import Worker

from gx.core.errors import GxError, UsageError
from gx.core.inert import inert
from gx.node.status import RunStatusNow
from gx.tui import draw, keys, panes
from gx.tui.acting import Acting
from gx.tui.causes import Cause
from gx.tui.feed import AHEAD, Began, Feed
from gx.tui.glyphs import Glyphs
from gx.tui.graph import Vertex, vertices_of
from gx.tui.intents import Intents, Offer, PlanBurst
from gx.tui.lines import Line
from gx.tui.model import Decision, RunModel
from gx.tui.overview import RunRow, chosen
from gx.tui.places import next_state
from gx.tui.screens.detail import Detail
from gx.tui.screens.dialogs import Tell
from gx.tui.screens.help import Help
from gx.tui.states import State
from gx.tui.themes import PALETTES, Paint, paint_of, themes
from gx.tui.views import Views
from gx.tui.widgets.drawn import Drawn
from gx.tui.widgets.grid import TaskGrid
from gx.tui.widgets.rows import Rows
from gx.tui.widgets.sql import Sql
from gx.tui.widgets.tabs import TabBar
from gx.tui.workers import Seat

TICK_S = 0.16
"""Between two pictures: some six a second, of which a run takes notice less than of more."""
FOLD_S = 0.08
EARLY_S = 0.03
"""How often it is looked whether there is anything to show yet."""
_RECIPE = "SELECT decode(bytes) AS text FROM blobs WHERE digest = '{digest}' LIMIT 1"


def no_burst(run: str) -> Offer:
    """Where nothing can be rented."""
    raise UsageError("nothing can be rented from here", hint=f"gx burst --cloud {run}")


class Monitor(Acting):
    """Shows a workspace's runs. `wanted` is the run to show, by the start of its id; without it the newest live one."""

    CSS_PATH = Path(__file__).with_name("monitor.tcss")
    BINDINGS: ClassVar[list[BindingType]] = [*keys.APP]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide"), (160, "-vast")]
    VERTICAL_BREAKPOINTS = [(0, "-low"), (18, "-high")]
    ENABLE_COMMAND_PALETTE = True
    TITLE = "gx"
    AUTO_FOCUS = None

    def __init__(
        self,
        feed: Feed,
        glyphs: Glyphs,
        *,
        wanted: str | None = None,
        theme: str = "dark",
        keymap: dict[str, str] | None = None,
        plan_burst: PlanBurst = no_burst,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.feed, self.glyphs, self.wanted, self.plan_burst, self.now = feed, glyphs, wanted, plan_burst, clock
        self.intents = Intents(feed.workspace.folder)
        self.model = RunModel("")
        self.vertices: list[Vertex] = []
        self.filters: dict[str, str] = {}
        self.state_wanted: State | None = None
        self.views = Views(self)
        self.remapped = keymap or {}
        self._recipe_read: str | None = None
        self._is_leaving = False
        for one in themes():
            self.register_theme(one)
        self.theme = theme
        self.set_keymap(self.remapped)

    @property
    def paint(self) -> Paint:
        return paint_of(self.theme)

    @property
    def tab(self) -> str:
        return self.query_one("#views", ContentSwitcher).current or "run"

    def compose(self) -> ComposeResult:
        yield Drawn(self._head, id="head")
        yield TabBar(id="tabs")
        yield Static(id="problem")
        with ContentSwitcher(initial="run", id="views"):
            yield from self.views.compose()
        yield Input(id="filter", placeholder="filter", compact=True, disabled=True)
        yield Footer(show_command_palette=False)

    def on_resize(self, event: Resize) -> None:
        for screen in self.screen_stack:
            for footer in screen.query(Footer):
                footer.compact = event.size.width < keys.COMPACT_CELLS

    def on_mount(self) -> None:
        self.set_class(self.glyphs.is_ascii, "-ascii")
        self.query_one("#small-grid").focus()
        self.feed.start()
        self.set_interval(TICK_S, self.tick)
        self._early = self.set_interval(EARLY_S, self._begin)
        self.theme_changed_signal.subscribe(self, lambda _: self._paint_anew())
        self._paint_anew()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Where something is written, / is only a letter."""
        return not (action == "filter" and isinstance(self.focused, Input))

    def on_unmount(self) -> None:
        self.feed.close()

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────

    def tick(self) -> None:
        """Take what has come, and draw what is on the screen."""
        if not self.screen_stack or not self.screen_stack[0].query("#problem"):  # it is closing
            return
        self._choose()
        self.fold(FOLD_S)
        if self.is_abreast and self.model.series.began_s is not None:
            self.model.series.mark(self.now(), self.model.backlog)  # time goes by, whether or not anything happens
        if self.model.recipe and self.model.recipe != self._recipe_read:
            self._recipe_read = self.model.recipe
            self._read_recipe(self.model.recipe)
        self._say_problem()
        if isinstance(self.screen, Detail):
            self.screen.follow()
        elif self.screen is self.screen_stack[0]:
            self.query_one("#head", Drawn).redraw()
            self.query_one(TabBar).note(self._tab_notes())
            self.views.draw()

    def _begin(self) -> None:
        """Show the first run that is found at once."""
        if self.feed.runs is not None:
            self._early.stop()
            self.tick()

    def fold(self, seconds: float) -> int:
        """Fold what the feed has left, for so long at most; how many events that were.

        Of a live run that is followed closely half is left for the next picture: its events come many at a time, and
        move evenly so.
        """
        until, folded, waiting = time.monotonic() + seconds, 0, self.feed.blocks.qsize()
        is_close = waiting <= AHEAD // 2 and self.model.run in self.feed.live
        kept = waiting // 2 if is_close else 0
        while time.monotonic() < until and self.feed.blocks.qsize() > kept:
            try:
                block = self.feed.blocks.get_nowait()
            except queue.Empty:
                break
            if isinstance(block, Began):
                self.model = RunModel(block.run)
                self.state_wanted = None
                continue
            self.model.apply(block)
            folded += len(block)
        return folded

    def _choose(self) -> None:
        """Attend to the run that is meant, as soon as it is known."""
        if not self.model.run and self.feed.runs and (run := chosen(self.feed.runs, self.wanted, self.feed.live)):
            self.model = RunModel(run)
            self.feed.attend(run)

    @work(thread=True, exclusive=True, group="recipe")
    def _read_recipe(self, digest: str) -> None:
        try:
            rows = self.feed.table(_RECIPE.format(digest=digest), 1).rows
        except GxError:  # a log that can't be asked says so where it is asked for more
            return
        self.vertices = vertices_of(rows[0]["text"]) if rows else []

    # ── what is always on the screen ─────────────────────────────────────────────────────────────────────────────

    def _row(self) -> RunRow | None:
        return next((row for row in self.feed.runs or () if row.run == self.model.run), None)

    def _live(self) -> RunStatusNow | None:
        """The run as its node had it when it was asked last; None where it isn't live."""
        status = self.feed.status
        return next((one for one in status.runs if one.run == self.model.run), None) if status is not None else None

    def _head(self, width: int, height: int) -> list[Text]:
        if not self.model.run:
            waits = "reading the log" if self.feed.runs is None else "no run yet"
            if self.feed.runs and self.wanted:
                waits = f"no run, or several, whose id starts with {inert(self.wanted)}; 9 lists them"
            return [Text.assemble((" gx ", self.paint["cursor"]), f" {waits} {self.glyphs.more}")]
        return draw.head(self.model, self._row(), self._live(), width=width, paint=self.paint, glyphs=self.glyphs)

    def _tab_notes(self) -> dict[str, str]:
        failed, asked = self.model.counts[State.failed], len(self.model.questions)
        return {name: f" {n:,}" for name, n in (("failures", failed), ("asked", asked)) if n}

    def _say_problem(self) -> None:
        text = self.feed.problem
        if self.feed.state == "gone":
            text = "the node is gone: this is what it wrote; waiting for the next one"
        elif self.model.questions:
            text = f"? {next(iter(self.model.questions.values())).text}   (a answers)"
        elif self.is_left:
            text = "nothing runs: the node died before the run was over; p lets it go on"
        widget = self.query_one("#problem", Static)
        if widget.has_class("-told") != bool(text) or getattr(self, "_told", "") != text:
            self._told = text
            widget.update(Text(f" {inert(text)}"))
            widget.set_class(bool(text), "-told")

    def _paint_anew(self) -> None:
        for grid in self.query(TaskGrid):
            grid.paint = self.paint
        self.query_one(TabBar).paint = self.paint
        for widget in self.query("#head, TabBar, Rows, TaskGrid, Drawn"):
            widget.refresh()

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def action_leave(self) -> None:
        """Leave, once the node was told what was asked of it; at once if the key is pressed again. The run goes on."""
        asked = [one for one in self.workers if one.group == "asked" and not one.is_finished]
        if not asked or self._is_leaving:
            self.exit()
            return
        self._is_leaving = True
        self.tell("leaving, once the node was told what was asked for; q leaves at once")
        self.run_worker(self._leave_after(asked), exit_on_error=False)  # it is cancelled when the key is pressed again

    async def action_quit(self) -> None:
        """What Textual's own ctrl+q does is what q does."""
        self.action_leave()

    async def _leave_after(self, asked: list[Worker[Any]]) -> None:
        await self.workers.wait_for_complete(asked)
        self.exit()

    def action_help(self) -> None:
        self.push_screen(Help(self.remapped))

    def action_show_tab(self, tab: str) -> None:
        self.query_one("#views", ContentSwitcher).current = tab
        self.query_one(TabBar).shown = tab
        self._hide_filter()
        self.views.draw()
        if tab == "sql":
            self.query_one(Sql).begin()
        else:
            target = {"run": "#small-grid", "tasks": "#grid"}.get(tab, f"#{tab}")
            self.query_one(target).focus()

    def on_tab_bar_clicked(self, message: TabBar.Clicked) -> None:
        self.action_show_tab(message.tab)

    def action_next_theme(self) -> None:
        names = list(PALETTES)
        at = names.index(self.theme) if self.theme in names else -1
        self.theme = names[(at + 1) % len(names)]

    def action_next_run(self, by: int) -> None:
        """Show the next older (-1) or newer (1) run."""
        rows = self.feed.runs or []
        at = next((n for n, row in enumerate(rows) if row.run == self.model.run), None)
        if at is not None and 0 <= at - by < len(rows):
            self.show_run(rows[at - by].run)

    def show_run(self, run: str) -> None:
        """Show that run from now on."""
        if run == self.model.run:  # its events are here already, and would not come again
            return
        self.model, self.vertices, self._recipe_read = RunModel(run), [], None
        self.feed.attend(run)

    def action_state(self) -> None:
        """Show the tasks of one state only: each press of the next, then all again."""
        self.state_wanted = next_state(self.model, self.state_wanted)
        if self.tab != "tasks":
            self.action_show_tab("tasks")
        self.views.draw()

    def action_filter(self) -> None:
        if self.tab in ("run", "sql"):
            self.action_show_tab("tasks")
        box = self.query_one("#filter", Input)
        box.value = self.filters.get(self.tab, "")
        box.disabled = False
        box.add_class("-asked")
        box.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "filter":
            self.filters[self.tab] = event.value
            self.views.draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "filter":
            self.action_show_tab(self.tab)

    def action_leave_box(self) -> None:
        """From a box where something is written, go to what is below it, so that keys are keys again."""
        if self.tab == "sql":
            self.query_one(DataTable).focus()
        else:
            self.action_show_tab(self.tab)

    def _hide_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.set_class(bool(box.value), "-asked")
        box.disabled = not box.value

    def on_rows_chosen(self, message: Rows.Chosen) -> None:
        """Go to what a row is about: a run, a task, the first one of a failure, a question's answer; else all of it."""
        row, tab = message.row, message.rows.id
        if tab == "runs":
            self.show_run(row.run)
            self.action_show_tab("run")
        elif tab == "asked":
            self.action_answer()
        elif isinstance(row, Seat) and row.place is not None:
            self.show_task(row.place)
        elif isinstance(row, Cause) and row.tasks:
            self.show_task(row.tasks[0])
        elif isinstance(row, Line) and row.task in self.model.places:
            self.show_task(self.model.places[row.task])
        elif isinstance(row, Line):
            self.push_screen(Tell(f"Event {row.seq}", panes.event_whole(row)))
        elif isinstance(row, Decision):
            self.push_screen(Tell(f"Event {row.seq}: {row.kind}", row.text))

    def show_task(self, place: int) -> None:
        """Open a task, if the run has it: what was pressed may be of the one that was shown before."""
        if place < self.model.total:
            self.push_screen(Detail(self.model, place))

    def on_task_grid_chosen(self, message: TaskGrid.Chosen) -> None:
        self.show_task(message.place)

    def on_task_grid_moved(self) -> None:
        self.views.tell_place()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The command palette: every action that has a key, and the themes."""
        for one in keys.APP:
            if one.id != "palette":
                action = one.action
                pressed = keys.shown(self.remapped.get(one.id or "", one.key))
                told = f"{one.tooltip}, key: {pressed}" if one.tooltip else f"key: {pressed}"
                yield SystemCommand(one.description, told, lambda a=action: self.call_later(self.run_action, a))
        for name in PALETTES:
            yield SystemCommand(f"Theme: {name}", "colours", lambda n=name: setattr(self, "theme", n))

    @property
    def is_abreast(self) -> bool:
        """Whether the run is live, and all that its node told of is folded: until then what is now is not known."""
        now = self._live()
        return now is not None and self.model.total >= now.progress.total and self.model.done >= now.progress.done

    @property
    def is_left(self) -> bool:
        """Whether the run is neither over nor live: its node died, and none is up."""
        row, is_alone = self._row(), self.feed.state == "file" and self.feed.status is None
        return is_alone and row is not None and row.status == "running"

    @property
    def farewell(self) -> str:
        """What to say when the monitor is left: how the run stands, and how to come back."""
        if not self.model.run:
            return ""
        run = self.model.run
        if run in self.feed.live:
            return f"{run} goes on; come back with: gx monitor {run}"
        if self.is_left:
            return f"{run} is not live: its node died; it goes on with: gx resume {run}"
        return f"{run}: {self.model.status or 'unknown'}; its results: gx export {run}"
