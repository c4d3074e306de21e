"""A task by itself: its prompt as sent, its answer as it comes, its attempts; copying, editing, retrying, forking."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import BindingType
from textual.screen import Screen
from textual.widgets import Footer, Static

from gx.core.errors import GxError, UsageError
from gx.core.inert import inert, inert_line
from gx.node.previews import Preview
from gx.tui import story as stories
from gx.tui.keys import COMPACT_CELLS, DETAIL
from gx.tui.screens.dialogs import Confirm
from gx.tui.states import State
from gx.tui.widgets.longtext import LongText, Part

if TYPE_CHECKING:
    from gx.tui.app import Monitor
    from gx.tui.model import RunModel


_EDITOR_HINT = "set $VISUAL or $EDITOR to a command that opens a file and waits"


class Detail(Screen[None]):
    """The task at `place` of `model`, a run's. It is asked for anew whenever its state has changed.

    It closes when the monitor shows another model: another run, or this one of a log that was written anew.
    """

    BINDINGS: ClassVar[list[BindingType]] = [*DETAIL]
    app: Monitor

    def __init__(self, model: RunModel, place: int) -> None:
        super().__init__()
        self._model, self._place = model, place
        self._story: dict[str, Any] = {}
        self._seen: tuple[int, int] | None = None
        self._why: list[Part] = []

    @property
    def task(self) -> str:  # type: ignore[override]
        return self._model.ids[self._place]

    def compose(self) -> ComposeResult:
        yield Static(id="title")
        yield LongText(id="story")
        yield Footer(show_command_palette=False, compact=self.app.size.width < COMPACT_CELLS)

    def on_mount(self) -> None:
        self.app.feed.watched = self.task
        self.query_one(LongText).focus()
        self.follow()

    def on_unmount(self) -> None:
        self.app.feed.watched = None

    def follow(self) -> None:
        """Ask for the story if the task's state has changed; show what is written of its answer."""
        if not self.query("#title"):  # it is opening, or closing
            return
        if self._model is not self.app.model:
            if self.app.screen is self:  # else it waits for what is asked above it
                self.dismiss()
            return
        now = self._model.states[self._place], self._model.attempts[self._place]
        if now != self._seen:
            self._seen = now
            self._ask()
        self._show()

    @work(thread=True, exclusive=True, group="story")
    def _ask(self) -> None:
        try:
            found = self.app.feed.story(self.task)
        except GxError as error:
            self.app.call_from_thread(self.app.complain, error)
            return
        self.app.call_from_thread(self._take, found)

    def _take(self, found: dict[str, Any]) -> None:
        self._story = found
        self.follow()

    def _show(self) -> None:
        state = State(self._model.states[self._place])
        row = inert_line(self._model.rows[self._place])
        title = Text(f" {self.app.glyphs.state(state)} {row}: {state.name}", self.app.paint["title"])
        self.query_one("#title", Static).update(title, layout=False)
        if self._story:
            shown = stories.parts(self._story, self._preview(), self.app.paint)
            self.query_one(LongText).show([*self._why, *shown])

    def _preview(self) -> Preview | None:
        running = self.app.feed.running
        return next((one for one in running.tasks if one.task == self.task), None) if running is not None else None

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def action_back(self) -> None:
        self.dismiss()

    def action_copy(self, what: str) -> None:
        """Put the text on the clipboard, through the terminal (OSC 52)."""
        text = stories.prompt_of(self._story) if what == "prompt" else stories.answer_of(self._story, self._preview())
        self.app.copy_to_clipboard(inert(text))
        self.notify(f"copied the {what}: {len(text):,} characters")

    def action_edit(self) -> None:
        """Show prompt and answer in $EDITOR; nothing of it is read back."""
        try:
            editor = editor_of(os.environ)
        except UsageError as error:
            self.app.complain(error)
            return
        text = stories.written(self._story, self._preview())
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{self.task}.txt"
            file.write_text(text, encoding="utf-8", errors="replace")
            try:
                with self.app.suspend():
                    problem = edited([*editor, str(file)])
            except SuspendNotSupported:
                problem = f"{editor[0]} can't be started: this terminal can't be handed over"
        if problem:
            self.app.complain(UsageError(problem, hint=_EDITOR_HINT))

    @work
    async def action_retry(self) -> None:
        """A running task waits again; the failed ones of a run that is over are tried in a new run."""
        app, state = self.app, State(self._model.states[self._place])
        if state is State.running:
            lines = [f"Take {self.task} back from its worker? It runs anew, and costs no retry."]
            if await app.push_screen_wait(Confirm("Retry", lines)):
                app.ask_node(lambda: app.intents.requeue(self._model.run, self.task))
        elif state.is_terminal:
            await app.retry_run()
        else:
            self.notify("the task hasn't begun: there is nothing to retry")

    @work
    async def action_fork(self) -> None:
        app = self.app
        run, step = self._model.run, self._model.steps[self._model.steps_of[self._place]].name
        lines = [f"Start a new run from {run}?", f"Step {step} and what follows from it is computed anew."]
        if await app.push_screen_wait(Confirm("Fork from here", lines)):
            app.ask_node(lambda: f"{app.intents.fork(run, step).run} was begun; 9 lists it")

    @work
    async def action_cancel(self) -> None:
        app = self.app
        if State(self._model.states[self._place]).is_terminal:
            self.notify("the task has ended: there is nothing to cancel")
        elif await app.push_screen_wait(Confirm("Cancel", [f"Give the task {self.task} up for good?"])):
            app.ask_node(lambda: app.intents.cancel(self._model.run, self.task))

    @work(thread=True, exclusive=True, group="why")
    def action_why(self) -> None:
        """Say above the story why the task has its state."""
        from gx.run.history.evidence import why

        try:
            found = why(lambda sql: self.app.feed.table(sql, 100_000).rows, self.task)
        except GxError as error:
            self.app.call_from_thread(self.app.complain, error)
            return
        self._why = [Part(found.answer, self.app.paint["accent"]), Part("")]
        self.app.call_from_thread(self._show)


def edited(words: list[str]) -> str:
    """Wait for the editor; what went wrong, or nothing. Nothing is raised: Textual would not take the screen back."""
    try:
        status = subprocess.run(words, check=False).returncode
    except OSError as error:
        return f"{words[0]} can't be started: {error.strerror}"
    return f"{words[0]} ended with status {status}" if status else ""


def editor_of(environ: Mapping[str, str]) -> list[str]:
    """The words of $VISUAL, else $EDITOR, else vi. :raises UsageError: if a shell couldn't read them either."""
    for name in ("VISUAL", "EDITOR"):
        try:
            words = shlex.split(environ.get(name, ""))
        except ValueError as error:
            raise UsageError(f"${name}: expected a command, got {environ[name]!r}: {error}") from None
        if words:
            return words
    return ["vi"]
